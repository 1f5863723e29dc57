//! The embedded bus: segment files and one writer thread. See [`Bus`] for the guarantees.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use wardroom_domain::{Envelope, mutant};

use crate::bus::{BoxFuture, Bus, TrimPolicy};
use crate::config::Config;
use crate::error::Error;
use crate::log_state::{LogState, lock};
use crate::record::{self, Record};
use crate::writer::{self, Append, QUEUE_CAPACITY, Writer};
use crate::{consumer_groups, epoch_markers, request_archive, segment};

/// Interval between attempts to append to a full queue.
const QUEUE_RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// Estimated size of a record header, in bytes.
const HEADER_ESTIMATE_BYTES: usize = 200;

/// The embedded bus.
#[derive(Debug)]
pub struct EmbeddedBus {
    log: Arc<LogState>,
    queue: Option<mpsc::SyncSender<Append>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// A reservation of pending bytes, released when dropped.
struct PendingBytes<'a>(&'a AtomicUsize, usize);

impl<'a> PendingBytes<'a> {
    /// Reserves bytes within the limit; a single append is allowed whatever its size.
    fn reserve(pending: &'a AtomicUsize, bytes: usize, limit: usize) -> Result<Self, Error> {
        let add = |held: usize| Some(held + bytes).filter(|sum| *sum <= limit || held == 0);
        let reserved = pending.try_update(Ordering::AcqRel, Ordering::Acquire, add);
        reserved.map(|_| Self(pending, bytes)).map_err(|_| Error::Overloaded { limit })
    }
}

impl Drop for PendingBytes<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

impl EmbeddedBus {
    /// Opens or creates the log in `dir`, cutting off a torn tail.
    ///
    /// # Errors
    /// Returns an error if a file cannot be opened, read or created.
    pub fn open(dir: &Path, config: Config) -> Result<Self, Error> {
        let disk_error = |error: std::io::Error| Error::disk("open", &error);
        std::fs::create_dir_all(dir).map_err(disk_error)?;
        let mut segments = segment::list(dir).map_err(disk_error)?;
        let (base, end) = match segments.last().copied() {
            Some(last) => (last, writer::recover_segment(dir, last)?),
            None => {
                writer::create_segment(dir, 0)?;
                segments.push(0);
                (0, 0)
            }
        };
        if end < base {
            let detail = format!("segment {base} holds records up to {end}, which are those of another segment");
            return Err(Error::disk("open", &std::io::Error::other(detail)));
        }
        let log = Arc::new(LogState::new(dir, config, end, segments).map_err(disk_error)?);
        let (queue, appends) = mpsc::sync_channel(QUEUE_CAPACITY);
        let writer = Writer::open(Arc::clone(&log), base, end)?;
        let writer = std::thread::Builder::new()
            .name("bus-writer".into())
            .spawn(move || writer.run(&appends))
            .map_err(disk_error)?;
        Ok(Self { log, queue: Some(queue), writer: Some(writer) })
    }
}

/// A log opened read-only, whether or not a server is running on it.
#[derive(Debug)]
pub struct ReadOnlyBus(LogState);

impl ReadOnlyBus {
    /// Opens the segments that are in the folder now.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let disk_error = |error: std::io::Error| Error::disk("open", &error);
        let segments = segment::list(dir).map_err(disk_error)?;
        Ok(Self(LogState::read_only(dir, segments).map_err(disk_error)?))
    }

    /// Returns the lowest committed offset of all consumer groups: records from there on are still needed.
    ///
    /// # Errors
    /// Returns an error if an offset cannot be read.
    pub fn min_committed(&self) -> Result<Option<u64>, Error> {
        consumer_groups::min_committed(&self.0.dir).map_err(|error| Error::disk("read", &error))
    }

    /// Returns the offsets at which the log was continued after a loss ([`start_new_epoch`](crate::start_new_epoch)):
    /// offsets right before them may be missing.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read.
    pub fn epochs(&self) -> Result<Vec<u64>, Error> {
        epoch_markers::list(&self.0.dir).map_err(|error| Error::disk("read", &error))
    }

    /// See [`Bus::committed`].
    ///
    /// # Errors
    /// Returns an error if the offset cannot be read.
    pub fn committed(&self, group: &str) -> Result<Option<u64>, Error> {
        consumer_groups::committed(&self.0.dir, group).map_err(|error| Error::disk("read", &error))
    }

    /// See [`Bus::read`].
    ///
    /// # Errors
    /// Returns an error if the disk cannot be read.
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, Error> {
        self.0.read(from, limit, None).map_err(|error| Error::disk("read", &error))
    }
}

impl Drop for EmbeddedBus {
    /// Drains the queue: all queued appends are written and synced before this returns.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(Err(panic)) = self.writer.take().map(std::thread::JoinHandle::join) {
            tracing::error!(?panic, "bus writer panicked");
        }
    }
}

impl Bus for EmbeddedBus {
    fn append(&self, envelope: Envelope, body: Bytes) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            let limit = self.log.config.pending_bytes;
            let bytes = body.len() + envelope.protocol.len() + HEADER_ESTIMATE_BYTES;
            let _pending = PendingBytes::reserve(&self.log.pending_bytes, bytes, limit)?;
            let header = record::encode_header(&envelope, &body);
            let size = (header.len() + body.len()) as u64;
            if size > self.log.config.segment_bytes {
                return Err(Error::TooLarge { size });
            }
            let (done, outcome) = oneshot::channel();
            let mut append = Append { header, body, done };
            let queue = self.queue.as_ref().ok_or(Error::Closed)?;
            if mutant::is_enabled("ack-before-append") {
                let expected_offset = self.end_offset();
                queue.try_send(append).map_err(|_| Error::Closed)?;
                return Ok(expected_offset);
            }
            loop {
                match queue.try_send(append) {
                    Ok(()) => break,
                    Err(mpsc::TrySendError::Full(rejected_append)) => {
                        append = rejected_append;
                        tokio::time::sleep(QUEUE_RETRY_INTERVAL).await;
                    }
                    Err(mpsc::TrySendError::Disconnected(_)) => return Err(Error::Closed),
                }
            }
            outcome.await.unwrap_or(Err(Error::Closed))
        })
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, Error> {
        self.log.read(from, limit, None).map_err(|error| Error::disk("read", &error))
    }

    fn read_skipping_bodies(
        &self,
        from: u64,
        limit: usize,
        skip: &dyn Fn(&Envelope) -> bool,
    ) -> Result<Vec<Record>, Error> {
        self.log.read(from, limit, Some(skip)).map_err(|error| Error::disk("read", &error))
    }

    fn start_offset(&self) -> u64 {
        lock(&self.log.segments).first().copied().unwrap_or(0)
    }

    fn end_offset(&self) -> u64 {
        self.log.end.load(Ordering::Acquire)
    }

    fn commit(&self, group: &str, offset: u64) -> Result<(), Error> {
        consumer_groups::commit(&self.log.dir, group, offset).map_err(|error| Error::disk("commit", &error))
    }

    fn committed(&self, group: &str) -> Result<Option<u64>, Error> {
        consumer_groups::committed(&self.log.dir, group).map_err(|error| Error::disk("read", &error))
    }

    fn append_error(&self) -> Option<String> {
        lock(&self.log.append_error).clone()
    }

    fn lost_records(&self) -> u64 {
        self.log.lost_records()
    }

    fn durability(&self) -> &'static str {
        self.log.config.durability.as_str()
    }

    fn trim(&self, offset: u64, policy: &TrimPolicy<'_>) -> Result<u64, Error> {
        let (dir, mut dropped) = (&self.log.dir, 0);
        let disk_error = |error: std::io::Error| Error::disk("trim", &error);
        request_archive::trim(dir, policy.archive_before, self.log.config.limit_bytes).map_err(disk_error)?;
        loop {
            let (first, second) = match lock(&self.log.segments)[..] {
                [first, second, ..] => (first, second),
                _ => return Ok(dropped),
            };
            let path = segment::path(dir, first);
            let modified_ms = std::fs::metadata(&path)
                .and_then(|meta| meta.modified())
                .map_err(disk_error)?
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            if second > offset || modified_ms >= policy.segments_before.millis() {
                return Ok(dropped);
            }
            // Without the lock: readers continue meanwhile. If archiving fails (disk full), the segment is dropped
            // anyway, which frees space.
            if let Err(error) = request_archive::archive_segment(dir, first, policy.keep) {
                tracing::warn!(segment = first, %error, "archiving requests failed; they are dropped with the segment");
            }
            lock(&self.log.segments).retain(|base| *base != first);
            std::fs::remove_file(&path).map_err(disk_error)?;
            lock(&self.log.positions).remove_before(second);
            dropped += 1;
        }
    }

    fn find(&self, offset: u64) -> Result<Option<Record>, Error> {
        if offset >= self.start_offset() {
            return Ok(self.read(offset, 1)?.into_iter().find(|record| record.offset == offset));
        }
        request_archive::find(&self.log.dir, offset).map_err(|error| Error::disk("read", &error))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::contract::envelope;

    #[tokio::test]
    async fn following_the_log_does_not_scan_the_segment_again() {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(dir.path(), Config::default()).unwrap();
        let scan_start = |offset: u64| lock(&bus.log.positions).scan_start(0, offset);
        for round in 1..=3 {
            bus.append(envelope(0), Bytes::from_static(b"body")).await.unwrap();
            let read = bus.read(round - 1, 100).unwrap();
            assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), [round - 1]);
            let position = scan_start(round);
            assert!(bus.read(round, 100).unwrap().is_empty());
            assert_eq!(scan_start(round), position, "an empty read keeps the position");
            assert!(position > 0 && position.is_multiple_of(round), "after {round} frames of equal length");
        }
    }

    /// A damaged header loses only that record.
    #[tokio::test]
    async fn skipped_bodies_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(dir.path(), Config::default()).unwrap();
        for has_events in [false, true, false, false] {
            let body = Bytes::from(vec![7; 3000]);
            bus.append(Envelope { has_events, ..envelope(0) }, body).await.unwrap();
        }
        let read = || bus.read_skipping_bodies(0, 100, &|envelope| !envelope.has_events).unwrap();
        let complete = bus.read(0, 100).unwrap();
        let headers = read();
        for (header, complete) in headers.iter().zip(&complete) {
            assert_eq!(
                (header.offset, &header.envelope, header.location),
                (complete.offset, &complete.envelope, complete.location)
            );
            let body_len = if header.envelope.has_events { 3000 } else { 0 };
            assert_eq!((header.location.size, header.body.len()), (3000, body_len));
        }
        assert_eq!(headers.len(), 4);
        let file = OpenOptions::new().write(true).open(segment::path(dir.path(), 0)).unwrap();
        // The payload length, then the offset, of the third frame.
        for field in [8, 12] {
            std::os::unix::fs::FileExt::write_at(&file, &[0xee], headers[2].location.position + field).unwrap();
            assert_eq!(read().iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1, 3]);
        }
    }
}
