//! The writer thread: group commit, segment rolling and recovery.
//!
//! Problem: fdatasync takes 0.2 to 8 ms, so one sync per request would limit intake to a few hundred requests per
//! second. Model: the writer takes all queued appends, writes them at once, syncs once and then acknowledges all of
//! them. After a failed sync the file is not trusted: the segment is read back through a new descriptor, and writing
//! continues in a new segment.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use wardroom_domain::mutant;

use crate::config::Durability;
use crate::error::Error;
use crate::log_state::{LogState, lock};
use crate::metrics as names;
use crate::segment;

/// Capacity of the append queue, and maximum number of appends per group.
pub(crate) const QUEUE_CAPACITY: usize = 1024;
/// Minimum time between two syncs while appends arrive concurrently: appends within it share the next sync.
const MIN_SYNC_INTERVAL: Duration = Duration::from_millis(2);
/// Number of syncs without that delay after a delayed group turned out to hold a single append.
const UNDELAYED_SYNCS: u32 = 100;
/// Interval between probes of the disk while no append arrives.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes written by a probe of the disk.
const PROBE_BYTES: usize = 4096;

/// An append in the queue of the writer.
#[derive(Debug)]
pub(crate) struct Append {
    /// The encoded header of the record.
    pub(crate) header: Vec<u8>,
    pub(crate) body: Bytes,
    pub(crate) done: oneshot::Sender<Result<u64, Error>>,
}

/// Writes appends to the newest segment.
pub(crate) struct Writer {
    log: Arc<LogState>,
    file: File,
    /// Bytes of the open segment that are written and synced.
    size: u64,
    /// Offset of the next record.
    next: u64,
    /// Bytes of all segments.
    total_bytes: u64,
    /// A write or sync has failed: the open segment may hold bytes that were not acknowledged.
    write_failed: bool,
    buffer: Vec<u8>,
}

impl Writer {
    /// Opens the segment `base` for appending; `next` is the offset of the next record.
    pub(crate) fn open(log: Arc<LogState>, base: u64, next: u64) -> Result<Self, Error> {
        let disk_error = |error: std::io::Error| Error::disk("open", &error);
        let file = OpenOptions::new().append(true).open(segment::path(&log.dir, base)).map_err(disk_error)?;
        let size = file.metadata().map_err(disk_error)?.len();
        let total_bytes = folder_bytes(&log.dir);
        Ok(Self { log, file, size, next, total_bytes, write_failed: false, buffer: Vec::new() })
    }

    /// Writes appends until the queue is closed.
    pub(crate) fn run(mut self, queue: &mpsc::Receiver<Append>) {
        let (mut last_sync, mut undelayed) = (Instant::now(), 0);
        loop {
            let first = match queue.recv_timeout(PROBE_INTERVAL) {
                Ok(first) => first,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.probe_disk();
                    continue;
                }
            };
            let delay = MIN_SYNC_INTERVAL.saturating_sub(last_sync.elapsed());
            let delayed = !delay.is_zero() && undelayed == 0;
            if delayed {
                std::thread::sleep(delay);
            }
            let mut group = vec![first];
            group.extend(queue.try_iter().take(QUEUE_CAPACITY));
            // A single sequential sender gains nothing from the delay.
            undelayed = if delayed && group.len() == 1 { UNDELAYED_SYNCS } else { undelayed.saturating_sub(1) };
            let outcome = self.commit(&group);
            last_sync = Instant::now();
            *lock(&self.log.append_error) = outcome.as_ref().err().map(ToString::to_string);
            if let Err(error) = &outcome {
                metrics::counter!(names::APPEND_FAILURES_TOTAL).increment(group.len() as u64);
                tracing::error!(%error, records = group.len(), "bus append failed");
            }
            for (offset, append) in (self.next - if outcome.is_ok() { group.len() as u64 } else { 0 }..).zip(group) {
                // The caller may have been cancelled.
                drop(append.done.send(outcome.clone().map(|()| offset)));
            }
        }
    }

    /// After a failed append, probes the disk by writing and syncing a file. The server is not ready while appends
    /// fail, so no sender would trigger the append that clears the error.
    fn probe_disk(&self) {
        let mut append_error = lock(&self.log.append_error);
        if append_error.is_none() {
            return;
        }
        let path = self.log.dir.join("probe");
        let written =
            File::create(&path).and_then(|mut file| file.write_all(&[0; PROBE_BYTES]).and_then(|()| file.sync_all()));
        let removed = std::fs::remove_file(&path);
        let is_in_place = if self.is_in_place() { Ok(()) } else { Err(misplaced_segment()) };
        *append_error =
            written.and(removed).and(is_in_place).err().map(|error| Error::disk("probe", &error).to_string());
    }

    /// Whether the open segment is where the next start looks for it: not deleted, moved, or replaced by another file.
    fn is_in_place(&self) -> bool {
        let base = lock(&self.log.segments).last().copied().unwrap_or_default();
        let identity = |file: std::fs::Metadata| (file.dev(), file.ino());
        let found = std::fs::metadata(segment::path(&self.log.dir, base)).map(identity);
        found.is_ok_and(|found| self.file.metadata().map(identity).is_ok_and(|open| open == found))
    }

    /// Writes and syncs a group of appends.
    fn commit(&mut self, group: &[Append]) -> Result<(), Error> {
        if self.total_bytes >= self.log.config.limit_bytes {
            self.total_bytes = folder_bytes(&self.log.dir);
            if self.total_bytes >= self.log.config.limit_bytes {
                return Err(Error::Full { limit: self.log.config.limit_bytes });
            }
        }
        if self.write_failed {
            self.recover()?;
        }
        if self.size >= self.log.config.segment_bytes {
            self.roll_segment()?;
        }
        self.buffer.clear();
        for (index, append) in group.iter().enumerate() {
            segment::append_frame(&mut self.buffer, self.next + index as u64, &append.header, &append.body);
        }
        if let Err(error) = self.file.write_all(&self.buffer) {
            // Nothing of this group was acknowledged: remove all of it.
            self.write_failed = self.file.set_len(self.size).is_err();
            return Err(Error::disk("write", &error));
        }
        if self.log.config.durability == Durability::Fsync
            && !mutant::is_enabled("ack-before-sync")
            && let Err(error) = self.file.sync_data()
            && !mutant::is_enabled("ack-after-failed-sync")
        {
            // The pages are marked clean now whatever the disk holds: a second sync would succeed without writing.
            self.write_failed = true;
            return Err(Error::disk("fdatasync", &error));
        }
        if !self.is_in_place() {
            // The restart would not find what was written.
            self.write_failed = true;
            return Err(Error::disk("write", &misplaced_segment()));
        }
        self.size += self.buffer.len() as u64;
        self.total_bytes += self.buffer.len() as u64;
        self.next += group.len() as u64;
        self.log.end.store(self.next, Ordering::Release);
        metrics::counter!(names::APPENDED_TOTAL).increment(group.len() as u64);
        metrics::counter!(names::SYNCS_TOTAL).increment(1);
        metrics::gauge!(names::SIZE_BYTES).set(self.total_bytes as f64);
        Ok(())
    }

    /// After a failed write or sync: reads back what is on disk and continues in a new segment.
    fn recover(&mut self) -> Result<(), Error> {
        let base = lock(&self.log.segments).last().copied().unwrap_or(0);
        self.next = recover_segment(&self.log.dir, base)?.max(self.next);
        self.roll_segment()?;
        self.write_failed = false;
        Ok(())
    }

    fn roll_segment(&mut self) -> Result<(), Error> {
        self.file = create_segment(&self.log.dir, self.next)?;
        self.size = 0;
        let mut segments = lock(&self.log.segments);
        if segments.last() != Some(&self.next) {
            segments.push(self.next);
        }
        Ok(())
    }
}

fn misplaced_segment() -> std::io::Error {
    std::io::Error::other(
        "the open segment was deleted, moved or replaced while the server runs; stop the server and put the bus back",
    )
}

/// Returns the total size of the files in the folder of the log.
fn folder_bytes(dir: &Path) -> u64 {
    let sizes = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|meta| meta.len());
    sizes.sum()
}

/// Cuts off the torn tail of a segment, after copying the segment to a `.torn` file for inspection, and returns the
/// offset of the next record.
pub(crate) fn recover_segment(dir: &Path, base: u64) -> Result<u64, Error> {
    let path = segment::path(dir, base);
    let disk_error = |error: std::io::Error| Error::disk("recover", &error);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(disk_error)?;
    let (end, next) = segment::valid_end(&mut file).map_err(disk_error)?;
    let size = file.metadata().map_err(disk_error)?.len();
    if size > end {
        tracing::warn!(segment = base, bytes = size - end, "torn tail cut off the bus");
        std::fs::copy(&path, path.with_extension("torn")).map_err(disk_error)?;
        file.set_len(end).map_err(disk_error)?;
        file.sync_all().map_err(disk_error)?;
    }
    Ok(next.unwrap_or(base))
}

/// Creates an empty segment, durably.
pub(crate) fn create_segment(dir: &Path, base: u64) -> Result<File, Error> {
    let disk_error = |error: std::io::Error| Error::disk("create segment", &error);
    let file = OpenOptions::new().create(true).append(true).open(segment::path(dir, base)).map_err(disk_error)?;
    file.sync_all().map_err(disk_error)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(disk_error)?;
    Ok(file)
}
