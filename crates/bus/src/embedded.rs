//! The bus of the embedded product: segment files and one writer thread.
//!
//! Problem: fdatasync costs 0.2 to 8 ms, so one per request would cap intake at a few hundred a
//! second. Model: the writer takes everything that waits, writes it in one go, syncs once and then
//! answers all of them. Guarantees: see the trait. After a failed sync the file is not trusted again:
//! it is read back through a new descriptor, and writing goes on in a new segment.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use wardroom_domain::{Envelope, mutant};

use crate::config::Durability;
use crate::groups;
use crate::places::Places;
use crate::segment::{self, Found};
use crate::{BoxFuture, Bus, Config, Error, Expiry, Record, metrics as names, record, rest};

/// Requests that may wait for the writer; more wait in their own tasks.
const QUEUE: usize = 1024;
/// Shortest time between two syncs while requests come together: those that come within it share the next one.
const SYNC_EVERY: Duration = Duration::from_millis(2);
/// How many syncs a request is not made to wait after it waited for nobody.
const ALONE: u32 = 100;
/// How long the writer waits before it looks whether the disk takes something again.
const PROBE: Duration = Duration::from_secs(1);

/// The embedded bus.
#[derive(Debug)]
pub struct EmbeddedBus {
    shared: Arc<Shared>,
    queue: Option<mpsc::SyncSender<Append>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    config: Config,
    end: AtomicU64,
    /// Bases of the segments on disk.
    segments: Mutex<Vec<u64>>,
    /// Where readers stopped.
    places: Mutex<Places>,
    /// Bytes that wait for the writer.
    pending: AtomicUsize,
    /// Why the last group could not be written.
    trouble: Mutex<Option<String>>,
}

/// A share of what may wait, given back when dropped.
struct Pending<'a>(&'a AtomicUsize, usize);

impl<'a> Pending<'a> {
    fn take(pending: &'a AtomicUsize, bytes: usize, limit: usize) -> Result<Self, Error> {
        let fits = |held: usize| Some(held + bytes).filter(|sum| *sum <= limit || held == 0);
        let taken = pending.try_update(Ordering::AcqRel, Ordering::Acquire, fits);
        taken.map(|_| Self(pending, bytes)).map_err(|_| Error::Overloaded { limit })
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

#[derive(Debug)]
struct Append {
    /// What stands before the body.
    head: Vec<u8>,
    body: Bytes,
    done: oneshot::Sender<Result<u64, Error>>,
}

impl EmbeddedBus {
    /// Opens or creates the log in `dir`, cutting off a torn tail.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(dir: &Path, config: Config) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| Error::disk("open", &error))?;
        let mut bases = segment::list(dir).map_err(|error| Error::disk("open", &error))?;
        let (base, end) = match bases.last().copied() {
            Some(last) => (last, recover(dir, last)?),
            None => {
                create(dir, 0)?;
                bases.push(0);
                (0, 0)
            }
        };
        let file = OpenOptions::new()
            .append(true)
            .open(segment::path(dir, base))
            .map_err(|error| Error::disk("open", &error))?;
        let size = file.metadata().map_err(|error| Error::disk("open", &error))?.len();
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            config,
            end: AtomicU64::new(end),
            segments: Mutex::new(bases),
            places: Mutex::default(),
            pending: AtomicUsize::new(0),
            trouble: Mutex::default(),
        });
        let (queue, waiting) = mpsc::sync_channel(QUEUE);
        let (distrusted, buffer) = (false, Vec::new());
        let mut writer = Writer { shared: Arc::clone(&shared), file, size, next: end, total: 0, distrusted, buffer };
        writer.total = writer.measure();
        let writer = std::thread::Builder::new()
            .name("bus-writer".into())
            .spawn(move || writer.run(&waiting))
            .map_err(|error| Error::disk("open", &error))?;
        Ok(Self { shared, queue: Some(queue), writer: Some(writer) })
    }
}

/// The segments of a folder, only read: beside a running server, or without one.
#[derive(Debug)]
pub struct ReadOnlyBus(Shared);

impl ReadOnlyBus {
    /// Looks at the folder as it is now.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let bases = segment::list(dir).map_err(|error| Error::disk("open", &error))?;
        Ok(Self(Shared {
            dir: dir.to_owned(),
            config: Config::default(),
            end: AtomicU64::new(u64::MAX),
            segments: Mutex::new(bases),
            places: Mutex::default(),
            pending: AtomicUsize::new(0),
            trouble: Mutex::default(),
        }))
    }

    /// The least of what its groups have done with: everything from there on is needed.
    ///
    /// # Errors
    /// The disk's.
    pub fn needed(&self) -> Result<Option<u64>, Error> {
        groups::least(&self.0.dir).map_err(|error| Error::disk("read", &error))
    }

    /// As [`Bus::committed`].
    ///
    /// # Errors
    /// The disk's.
    pub fn committed(&self, group: &str) -> Result<Option<u64>, Error> {
        groups::committed(&self.0.dir, group).map_err(|error| Error::disk("read", &error))
    }

    /// As [`Bus::read`].
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, Error> {
        self.0.read(from, limit, None).map_err(|error| Error::disk("read", &error))
    }
}

impl Drop for EmbeddedBus {
    /// Drains: everything queued is written and synced before this returns.
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
            let limit = self.shared.config.pending_bytes;
            let _waiting = Pending::take(&self.shared.pending, body.len() + envelope.protocol.len() + 200, limit)?;
            let head = record::head(&envelope, &body);
            let size = (head.len() + body.len()) as u64;
            if size > self.shared.config.segment_bytes {
                return Err(Error::TooLarge { size });
            }
            let (done, outcome) = oneshot::channel();
            let mut append = Append { head, body, done };
            let queue = self.queue.as_ref().ok_or(Error::Closed)?;
            if mutant::on("ack-before-append") {
                let guess = self.end();
                queue.try_send(append).map_err(|_| Error::Closed)?;
                return Ok(guess);
            }
            loop {
                match queue.try_send(append) {
                    Ok(()) => break,
                    Err(mpsc::TrySendError::Full(back)) => {
                        append = back;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(mpsc::TrySendError::Disconnected(_)) => return Err(Error::Closed),
                }
            }
            outcome.await.unwrap_or(Err(Error::Closed))
        })
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, Error> {
        self.shared.read(from, limit, None).map_err(|error| Error::disk("read", &error))
    }

    fn follow(&self, from: u64, limit: usize, skip: &dyn Fn(&Envelope) -> bool) -> Result<Vec<Record>, Error> {
        self.shared.read(from, limit, Some(skip)).map_err(|error| Error::disk("read", &error))
    }

    fn start(&self) -> u64 {
        lock(&self.shared.segments).first().copied().unwrap_or(0)
    }

    fn end(&self) -> u64 {
        self.shared.end.load(Ordering::Acquire)
    }

    fn commit(&self, group: &str, offset: u64) -> Result<(), Error> {
        groups::commit(&self.shared.dir, group, offset).map_err(|error| Error::disk("commit", &error))
    }

    fn committed(&self, group: &str) -> Result<Option<u64>, Error> {
        groups::committed(&self.shared.dir, group).map_err(|error| Error::disk("read", &error))
    }

    fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }

    fn durability(&self) -> &'static str {
        self.shared.config.durability.as_str()
    }

    fn trim(&self, offset: u64, expiry: &Expiry<'_>) -> Result<u64, Error> {
        let (dir, mut dropped) = (&self.shared.dir, 0);
        let step = |error: std::io::Error| Error::disk("trim", &error);
        rest::forget(dir, expiry.rest, self.shared.config.limit_bytes).map_err(step)?;
        loop {
            let (first, second) = match lock(&self.shared.segments)[..] {
                [first, second, ..] => (first, second),
                _ => return Ok(dropped),
            };
            let path = segment::path(dir, first);
            let modified = std::fs::metadata(&path)
                .and_then(|meta| meta.modified())
                .map_err(step)?
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            if second > offset || modified >= expiry.log.millis() {
                return Ok(dropped);
            }
            // Nobody waits for it: readers go on meanwhile. A full disk is no reason to keep all of it.
            if let Err(error) = rest::keep(dir, first, expiry.worth) {
                tracing::warn!(segment = first, %error, "requests of logs and the like go with their segment");
            }
            lock(&self.shared.segments).retain(|base| *base != first);
            std::fs::remove_file(&path).map_err(step)?;
            lock(&self.shared.places).forget(second);
            dropped += 1;
        }
    }

    fn find(&self, offset: u64) -> Result<Option<Record>, Error> {
        let step = |error: std::io::Error| Error::disk("read", &error);
        if offset >= self.start() {
            return Ok(self.read(offset, 1)?.into_iter().find(|record| record.offset == offset));
        }
        rest::find(&self.shared.dir, offset).map_err(step)
    }
}

impl Shared {
    fn read(&self, from: u64, limit: usize, skip: Option<&dyn Fn(&Envelope) -> bool>) -> std::io::Result<Vec<Record>> {
        let end = self.end.load(Ordering::Acquire);
        let mut records = Vec::new();
        let bases = lock(&self.segments).clone();
        let mut at = bases.partition_point(|base| *base <= from).saturating_sub(1);
        let mut position = bases.get(at).map_or(0, |base| lock(&self.places).before(*base, from));
        // Whoever asks for what comes next is not to read all of the segment again.
        let (mut upcoming, mut place) = (from, None);
        'segments: while let Some(base) = bases.get(at) {
            let mut file = File::open(segment::path(&self.dir, *base))?;
            while records.len() < limit {
                // What is below the end is whole, but for damage that shows to whoever reads the body.
                if let Some(skip) = skip
                    && let Some(start) = segment::start_at(&file, position)?
                    && start.offset == upcoming
                    && upcoming < end
                    && let Some(record) = record::head_at(*base, position, &start)
                    && skip(&record.envelope)
                {
                    (position, upcoming) = (start.next, upcoming.max(start.offset + 1));
                    records.push(record);
                    continue;
                }
                match segment::read_at(&mut file, position)? {
                    Found::Frame { offset, .. } if offset >= end => {
                        place = Some((*base, position));
                        break 'segments;
                    }
                    Found::Frame { offset, payload, next } => {
                        let frame = (position, next - position);
                        (position, upcoming) = (next, upcoming.max(offset + 1));
                        if offset >= from {
                            match record::at(*base, frame, offset, &payload, &|_| false) {
                                Ok(record) => records.push(record),
                                Err(error) => damaged(*base, position, &error.to_string()),
                            }
                        }
                    }
                    Found::Damage { next } => {
                        damaged(*base, position, "checksum");
                        position = next;
                    }
                    Found::Torn => {
                        // In the newest segment the writer may be at work there.
                        if at + 1 < bases.len() || end == u64::MAX {
                            damaged(*base, position, "no whole record up to the segment's end");
                        }
                        break;
                    }
                    Found::End => break,
                }
            }
            place = Some((*base, position));
            if records.len() >= limit {
                break;
            }
            at += 1;
            position = 0;
        }
        if let Some((base, position)) = place {
            lock(&self.places).note(base, upcoming, position);
        }
        Ok(records)
    }
}

fn damaged(base: u64, position: u64, detail: &str) {
    metrics::counter!(names::CORRUPT_TOTAL).increment(1);
    tracing::error!(segment = base, position, detail, "damaged bus record skipped");
}

struct Writer {
    shared: Arc<Shared>,
    file: File,
    /// Bytes of the open segment that are written and synced.
    size: u64,
    next: u64,
    /// Bytes of all segments.
    total: u64,
    /// The open segment may hold something that nobody was promised.
    distrusted: bool,
    buffer: Vec<u8>,
}

impl Writer {
    fn run(mut self, waiting: &mpsc::Receiver<Append>) {
        let (mut synced, mut alone) = (Instant::now(), 0);
        loop {
            let first = match waiting.recv_timeout(PROBE) {
                Ok(first) => first,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.probe();
                    continue;
                }
            };
            let early = SYNC_EVERY.saturating_sub(synced.elapsed());
            let waits = !early.is_zero() && alone == 0;
            if waits {
                std::thread::sleep(early);
            }
            let mut group = vec![first];
            group.extend(waiting.try_iter().take(QUEUE));
            // Who sends one request after the other gains nothing by waiting.
            alone = if waits && group.len() == 1 { ALONE } else { alone.saturating_sub(1) };
            let outcome = self.commit(&group);
            synced = Instant::now();
            *lock(&self.shared.trouble) = outcome.as_ref().err().map(ToString::to_string);
            if let Err(error) = &outcome {
                metrics::counter!(names::APPEND_FAILURES_TOTAL).increment(group.len() as u64);
                tracing::error!(%error, records = group.len(), "bus append failed");
            }
            for (offset, append) in (self.next - if outcome.is_ok() { group.len() as u64 } else { 0 }..).zip(group) {
                // A sender that went away does not need its answer.
                drop(append.done.send(outcome.clone().map(|()| offset)));
            }
        }
    }

    /// While the disk refuses, nobody may send: whoever asks whether it is ready would be told "no" for ever.
    fn probe(&self) {
        let mut trouble = lock(&self.shared.trouble);
        if trouble.is_none() {
            return;
        }
        let path = self.shared.dir.join("probe");
        let tried = File::create(&path).and_then(|mut file| file.write_all(&[0; 4096]).and_then(|()| file.sync_all()));
        let removed = std::fs::remove_file(&path);
        *trouble = tried.and(removed).err().map(|error| Error::disk("probe", &error).to_string());
    }

    fn commit(&mut self, group: &[Append]) -> Result<(), Error> {
        if self.total >= self.shared.config.limit_bytes {
            self.total = self.measure();
            if self.total >= self.shared.config.limit_bytes {
                return Err(Error::Full { limit: self.shared.config.limit_bytes });
            }
        }
        if self.distrusted {
            self.distrust()?;
        }
        if self.size >= self.shared.config.segment_bytes {
            self.roll()?;
        }
        self.buffer.clear();
        for (index, append) in group.iter().enumerate() {
            segment::frame(&mut self.buffer, self.next + index as u64, &append.head, &append.body);
        }
        if let Err(error) = self.file.write_all(&self.buffer) {
            // Nothing of this group was promised to anyone: take it back whole.
            self.distrusted = self.file.set_len(self.size).is_err();
            return Err(Error::disk("write", &error));
        }
        if self.shared.config.durability == Durability::Fsync
            && !mutant::on("ack-before-sync")
            && let Err(error) = self.file.sync_data()
            && !mutant::on("ack-after-failed-sync")
        {
            // The pages count as clean now, whatever the disk has: syncing again would say "yes" to anything.
            self.distrusted = true;
            return Err(Error::disk("fdatasync", &error));
        }
        self.size += self.buffer.len() as u64;
        self.total += self.buffer.len() as u64;
        self.next += group.len() as u64;
        self.shared.end.store(self.next, Ordering::Release);
        metrics::counter!(names::APPENDED_TOTAL).increment(group.len() as u64);
        metrics::counter!(names::SYNCS_TOTAL).increment(1);
        metrics::gauge!(names::SIZE_BYTES).set(self.total as f64);
        Ok(())
    }

    /// After a failed sync: read back what is really there and go on in a new segment.
    fn distrust(&mut self) -> Result<(), Error> {
        let base = lock(&self.shared.segments).last().copied().unwrap_or(0);
        self.next = recover(&self.shared.dir, base)?.max(self.next);
        self.roll()?;
        self.distrusted = false;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), Error> {
        self.file = create(&self.shared.dir, self.next)?;
        self.size = 0;
        let mut segments = lock(&self.shared.segments);
        if segments.last() != Some(&self.next) {
            segments.push(self.next);
        }
        Ok(())
    }

    fn measure(&self) -> u64 {
        let sizes = std::fs::read_dir(&self.shared.dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|meta| meta.len());
        sizes.sum()
    }
}

/// Cuts the torn tail off a segment, keeping it beside for a person to look at, and says which
/// offset comes next.
fn recover(dir: &Path, base: u64) -> Result<u64, Error> {
    let path = segment::path(dir, base);
    let step = |error: std::io::Error| Error::disk("recover", &error);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(step)?;
    let (end, next) = segment::valid_end(&mut file).map_err(step)?;
    let size = file.metadata().map_err(step)?.len();
    if size > end {
        tracing::warn!(segment = base, bytes = size - end, "torn tail cut off the bus");
        std::fs::copy(&path, path.with_extension("torn")).map_err(step)?;
        file.set_len(end).map_err(step)?;
        file.sync_all().map_err(step)?;
    }
    Ok(next.unwrap_or(base))
}

fn create(dir: &Path, base: u64) -> Result<File, Error> {
    let step = |error: std::io::Error| Error::disk("create segment", &error);
    let file = OpenOptions::new().create(true).append(true).open(segment::path(dir, base)).map_err(step)?;
    file.sync_all().map_err(step)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(step)?;
    Ok(file)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::envelope;

    /// Whoever follows the log reads each record once, not its segment each time.
    #[tokio::test]
    async fn the_end_is_found_again_without_a_search() {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(dir.path(), Config::default()).unwrap();
        let cursor = |offset: u64| lock(&bus.shared.places).before(0, offset);
        for round in 1..=3 {
            bus.append(envelope(0), Bytes::from_static(b"body")).await.unwrap();
            let read = bus.read(round - 1, 100).unwrap();
            assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), [round - 1]);
            let place = cursor(round);
            assert!(bus.read(round, 100).unwrap().is_empty());
            assert_eq!(cursor(round), place, "asked in vain, and remembered still");
            assert!(place > 0 && place.is_multiple_of(round), "behind {round} frames of one length");
        }
    }

    /// Whoever wants to know of a request gets its header; damage there costs that record and no other.
    #[tokio::test]
    async fn bodies_that_are_skipped_stay_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(dir.path(), Config::default()).unwrap();
        for events in [false, true, false, false] {
            let body = Bytes::from(vec![7; 3000]);
            bus.append(Envelope { events, ..envelope(0) }, body).await.unwrap();
        }
        let follow = || bus.follow(0, 100, &|envelope| !envelope.events).unwrap();
        let whole = bus.read(0, 100).unwrap();
        let heads = follow();
        for (head, whole) in heads.iter().zip(&whole) {
            assert_eq!((head.offset, &head.envelope, head.place), (whole.offset, &whole.envelope, whole.place));
            assert_eq!((head.place.size, head.body.len()), (3000, if head.envelope.events { 3000 } else { 0 }));
        }
        assert_eq!(heads.len(), 4);
        let file = OpenOptions::new().write(true).open(segment::path(dir.path(), 0)).unwrap();
        for broken in [8, 12] {
            // The length, or the offset, of the third.
            std::os::unix::fs::FileExt::write_at(&file, &[0xee], heads[2].place.position + broken).unwrap();
            assert_eq!(follow().iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1, 3]);
        }
    }
}
