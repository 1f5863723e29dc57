//! The journal of one tenant: its label sets and its sealed sample blocks, append-only.
//!
//! Label sets are stored as frames: length u32, CRC-32 u32 (little-endian), payload (postcard). The block stream is a
//! sequence of numbered files; each begins at an address of the stream. The format and checksums of the blocks belong
//! to the caller. A checkpoint stores a [`JournalPosition`], which holds the length of every file; bytes beyond that
//! length are not committed and are cut off when the journal is loaded.
//!
//! Files of a tenant's folder: `series-<generation>.log`, `retired-<generation>.log` (evicted series) and
//! `blocks-<number>.log`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Labels, TenantId};

use crate::rewrite::rewrite_prefix;

/// An error of the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file cannot be read, written or synced.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file does not hold what its position says.
    #[error("{0} is damaged")]
    Damaged(String),
}

impl From<postcard::Error> for JournalError {
    fn from(error: postcard::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Size at which a block file is closed and the next one is started, in bytes.
const MAX_BLOCK_FILE_BYTES: u64 = 32 << 20;
/// Time that a block file is kept beyond the retention, in ms.
const RETENTION_MARGIN_MS: i64 = 600_000;

/// The committed state of a tenant's files, as stored in a checkpoint. Encoded by position, so fields are only
/// appended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JournalPosition {
    /// The tenant.
    pub tenant: TenantId,
    /// Number of times the series ids were renumbered.
    generation: u64,
    series_count: usize,
    series_len: u64,
    evicted_len: u64,
    /// Newest sample of the evicted series, in ms.
    evicted_newest_ms: i64,
    block_files: Vec<BlockFile>,
    /// Upper bound of the sample times in dropped block files, in ms.
    dropped_ms: i64,
}

/// One file of the block stream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct BlockFile {
    number: u64,
    /// Stream address of its first byte.
    start: u64,
    len: u64,
    /// Its newest sample, in ms.
    newest_ms: i64,
}

/// Reads the retained part of a block stream while more is appended. Files that are dropped later stay readable.
#[derive(Clone, Debug, Default)]
pub struct BlockReader(Arc<Vec<(u64, u64, Arc<File>)>>);

impl BlockReader {
    /// Reads from an address of the stream into `buffer`, at most up to the end of that file. Returns the number of
    /// bytes, or `None` if the address is not retained or the file cannot be read.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Option<usize> {
        let (start, len, file) = self.0.iter().rev().find(|(start, ..)| *start <= address)?;
        let position = address - start;
        let remaining = usize::try_from(len.checked_sub(position)?).unwrap_or(usize::MAX);
        let read_len = buffer.len().min(remaining);
        // A file that was damaged or truncated since it was opened reads as missing.
        file.read_exact_at(&mut buffer[..read_len], position).ok().map(|()| read_len)
    }
}

/// A series that was evicted because it no longer receives samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictedSeries {
    /// Its labels.
    pub labels: Labels,
    /// Time of its first sample, in ms.
    pub first_ms: i64,
    /// Time of its last sample, in ms.
    pub last_ms: i64,
}

/// The evicted series of a tenant; read on demand.
#[derive(Clone, Debug, Default)]
pub struct EvictedSeriesFile(Option<Arc<EvictedFile>>);

#[derive(Debug)]
struct EvictedFile {
    file: File,
    path: PathBuf,
    len: u64,
    newest_ms: i64,
}

impl EvictedSeriesFile {
    /// Time of the newest sample of any evicted series, in ms; `i64::MIN` if there are none.
    pub fn newest_ms(&self) -> i64 {
        self.0.as_ref().map_or(i64::MIN, |evicted| evicted.newest_ms)
    }

    /// Reads all evicted series.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged.
    pub fn read(&self) -> Result<Vec<EvictedSeries>, JournalError> {
        let Some(evicted) = &self.0 else { return Ok(Vec::new()) };
        let mut bytes = vec![0; usize::try_from(evicted.len).unwrap_or(usize::MAX)];
        evicted.file.read_exact_at(&mut bytes, 0)?;
        let mut series = Vec::new();
        for payload in split_frames(&bytes, &evicted.path)? {
            series.extend(postcard::from_bytes::<Vec<EvictedSeries>>(payload)?);
        }
        Ok(series)
    }
}

/// The journal of one tenant, open for appending.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    position: JournalPosition,
    series: File,
    /// The files of the block stream, parallel to `position.block_files`; the last one is appended to.
    blocks: Vec<Arc<File>>,
    /// Retention of blocks, in ms.
    retention_ms: i64,
    /// A sync has failed: the disk may lack bytes that the files seem to hold.
    sync_failed: bool,
}

impl Journal {
    /// Creates empty files; the block stream begins at address `start`.
    ///
    /// # Errors
    /// Returns an error if the files cannot be created or synced.
    pub fn create(dir: &Path, tenant: &TenantId, start: u64, retention_ms: i64) -> Result<Self, JournalError> {
        // The prefix makes a tenant called ".." a valid file name.
        let folder = dir.join(format!("t-{tenant}"));
        std::fs::create_dir_all(&folder)?;
        let first = BlockFile { number: 0, start, len: 0, newest_ms: i64::MIN };
        let position = JournalPosition {
            tenant: tenant.clone(),
            generation: 0,
            series_count: 0,
            series_len: 0,
            evicted_len: 0,
            evicted_newest_ms: i64::MIN,
            block_files: vec![first],
            dropped_ms: i64::MIN,
        };
        let series = open_truncated(&folder.join("series-0.log"), 0)?;
        let blocks = open_truncated(&folder.join("blocks-0.log"), 0)?;
        File::open(dir)?.sync_all()?;
        Ok(Self { folder, position, series, blocks: vec![Arc::new(blocks)], retention_ms, sync_failed: false })
    }

    /// Opens the files as they were at a checkpoint and returns the label sets with them.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is missing, is shorter than at the checkpoint, or is damaged.
    pub fn load(
        dir: &Path,
        position: &JournalPosition,
        retention_ms: i64,
    ) -> Result<(Self, Vec<Labels>), JournalError> {
        let folder = dir.join(format!("t-{}", position.tenant));
        let mut labels = Vec::with_capacity(position.series_count);
        let series_path = folder.join(format!("series-{}.log", position.generation));
        for payload in read_frames(&series_path, position.series_len)? {
            labels.extend(postcard::from_bytes::<Vec<Labels>>(&payload)?);
        }
        if labels.len() != position.series_count {
            let detail = format!("label set list ({} of {} entries)", labels.len(), position.series_count);
            return Err(JournalError::Damaged(detail));
        }
        let series = open_truncated(&series_path, position.series_len)?;
        let mut position = position.clone();
        let last = position.block_files.last().copied();
        let last = last.ok_or_else(|| JournalError::Damaged("an empty list of block files".into()))?;
        for block_file in &position.block_files {
            let path = folder.join(format!("blocks-{}.log", block_file.number));
            match std::fs::metadata(&path) {
                Ok(found) if found.len() >= block_file.len => {}
                // It passed the retention and was deleted after the checkpoint.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && block_file.number != last.number => {
                    position.dropped_ms = position.dropped_ms.max(block_file.newest_ms);
                }
                _ => return Err(JournalError::Damaged(path.display().to_string())),
            }
        }
        let dropped_ms = position.dropped_ms;
        position.block_files.retain(|file| file.newest_ms > dropped_ms || file.number == last.number);
        let mut blocks = Vec::new();
        for block_file in &position.block_files {
            let path = folder.join(format!("blocks-{}.log", block_file.number));
            blocks.push(Arc::new(if block_file.number == last.number {
                open_truncated(&path, last.len)?
            } else {
                File::open(&path)?
            }));
        }
        Ok((Self { folder, position, series, blocks, retention_ms, sync_failed: false }, labels))
    }

    /// Returns a reader of the retained part of the block stream.
    pub fn block_reader(&self) -> BlockReader {
        let files = self.position.block_files.iter().zip(&self.blocks);
        BlockReader(Arc::new(files.map(|(file, blocks)| (file.start, file.len, Arc::clone(blocks))).collect()))
    }

    /// Returns the retained range of the block stream: address of the first byte, and of the end.
    pub fn retained(&self) -> (u64, u64) {
        let files = &self.position.block_files;
        let (first, last) = (files.first(), files.last());
        (first.map_or(0, |first| first.start), last.map_or(0, |last| last.start + last.len))
    }

    /// Upper bound of the times of samples in dropped block files, in ms.
    pub const fn dropped_ms(&self) -> i64 {
        self.position.dropped_ms
    }

    /// The tenant.
    pub const fn tenant(&self) -> &TenantId {
        &self.position.tenant
    }

    /// Number of label sets written.
    pub const fn series_count(&self) -> usize {
        self.position.series_count
    }

    /// Appends label sets.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn append_series(&mut self, labels: &[Labels]) -> Result<(), JournalError> {
        if !labels.is_empty() {
            let payload = postcard::to_stdvec(labels)?;
            self.position.series_len += append_frame(&mut self.series, self.position.series_len, &payload)?;
            self.position.series_count += labels.len();
        }
        Ok(())
    }

    /// Starts a new generation of series ids with the label sets in `remaining`. `evicted` is added to the evicted
    /// series, which are kept until their last sample is older than `evicted_retention_start_ms`. Files of the previous
    /// generation stay for the previous checkpoint. Returns the evicted series.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, written or synced; the journal is then unchanged.
    pub fn renumber(
        &mut self,
        remaining: &[Labels],
        evicted: Vec<EvictedSeries>,
        evicted_retention_start_ms: i64,
    ) -> Result<EvictedSeriesFile, JournalError> {
        let generation = self.position.generation + 1;
        let mut all_evicted = self.evicted_series()?.read()?;
        all_evicted.extend(evicted);
        all_evicted.retain(|series| series.last_ms >= evicted_retention_start_ms);
        let path = |kind: &str, generation: u64| self.folder.join(format!("{kind}-{generation}.log"));
        let evicted_path = path("retired", generation);
        let mut evicted_file = open_truncated(&evicted_path, 0)?;
        let evicted_newest_ms = all_evicted.iter().map(|series| series.last_ms).max().unwrap_or(i64::MIN);
        let evicted_len = append_frame(&mut evicted_file, 0, &postcard::to_stdvec(&all_evicted)?)?;
        let mut series = open_truncated(&path("series", generation), 0)?;
        let series_len = append_frame(&mut series, 0, &postcard::to_stdvec(remaining)?)?;
        evicted_file.sync_data()?;
        series.sync_data()?;
        File::open(&self.folder)?.sync_all()?;
        if let Some(old) = generation.checked_sub(2) {
            for path in [path("retired", old), path("series", old)] {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        }
        // Nothing below can fail: memory and files change generation together.
        self.series = series;
        self.position = JournalPosition {
            tenant: self.position.tenant.clone(),
            generation,
            series_count: remaining.len(),
            series_len,
            evicted_len,
            evicted_newest_ms,
            block_files: std::mem::take(&mut self.position.block_files),
            dropped_ms: self.position.dropped_ms,
        };
        let evicted =
            EvictedFile { file: evicted_file, path: evicted_path, len: evicted_len, newest_ms: evicted_newest_ms };
        Ok(EvictedSeriesFile(Some(Arc::new(evicted))))
    }

    /// The generation of the series ids.
    pub const fn generation(&self) -> u64 {
        self.position.generation
    }

    /// Opens the file of the evicted series.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened.
    pub fn evicted_series(&self) -> Result<EvictedSeriesFile, JournalError> {
        if self.position.evicted_len == 0 {
            return Ok(EvictedSeriesFile::default());
        }
        let path = self.folder.join(format!("retired-{}.log", self.position.generation));
        let (file, len, newest_ms) = (File::open(&path)?, self.position.evicted_len, self.position.evicted_newest_ms);
        Ok(EvictedSeriesFile(Some(Arc::new(EvictedFile { file, path, len, newest_ms }))))
    }

    /// Appends sealed blocks to the stream; `newest_ms` is the time of their newest sample. Block files that begin at
    /// address `needed` or later are kept whatever their age.
    ///
    /// The file is synced at once, so that dirty pages do not accumulate and make a later sync of another file wait.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, created or deleted.
    pub fn append_blocks(&mut self, sealed: &[u8], newest_ms: i64, needed: u64) -> Result<(), JournalError> {
        if self.position.block_files.last().is_some_and(|file| file.len >= MAX_BLOCK_FILE_BYTES) {
            self.start_block_file(newest_ms, needed)?;
        }
        if let (Some(block_file), Some(file)) = (self.position.block_files.last_mut(), self.blocks.last()) {
            // Cut off what a failed write left behind.
            if file.metadata()?.len() != block_file.len {
                file.set_len(block_file.len)?;
            }
            (&**file).write_all(sealed)?;
            block_file.len += sealed.len() as u64;
            block_file.newest_ms = newest_ms.max(block_file.newest_ms);
            // No checkpoint covers these bytes yet: the next sync rewrites the file.
            self.sync_failed |= file.sync_data().is_err();
        }
        Ok(())
    }

    /// Syncs all files and returns the position to store in a checkpoint.
    ///
    /// # Errors
    /// Returns an error if a sync fails; the files are then rewritten before the next one.
    pub fn sync(&mut self) -> Result<JournalPosition, JournalError> {
        self.sync_files()?;
        Ok(self.position.clone())
    }

    fn sync_files(&mut self) -> std::io::Result<()> {
        if self.sync_failed {
            self.series = rewrite_prefix(&self.series_path(), self.position.series_len)?;
            if let (Some(block_file), Some(file)) = (self.position.block_files.last(), self.blocks.last_mut()) {
                let path = self.folder.join(format!("blocks-{}.log", block_file.number));
                *file = Arc::new(rewrite_prefix(&path, block_file.len)?);
            }
        }
        let blocks = self.blocks.last().map_or(Ok(()), |file| file.sync_data());
        let synced = self.series.sync_data().and(blocks);
        self.sync_failed = synced.is_err();
        synced
    }

    fn series_path(&self) -> PathBuf {
        self.folder.join(format!("series-{}.log", self.position.generation))
    }

    /// Starts the next block file and deletes those past the retention.
    fn start_block_file(&mut self, newest_ms: i64, needed: u64) -> Result<(), JournalError> {
        self.sync_files()?;
        let number = self.position.block_files.last().map_or(0, |last| last.number + 1);
        let (_, start) = self.retained();
        let file = open_truncated(&self.folder.join(format!("blocks-{number}.log")), 0)?;
        File::open(&self.folder)?.sync_all()?;
        self.blocks.push(Arc::new(file));
        self.position.block_files.push(BlockFile { number, start, len: 0, newest_ms });
        let oldest_ms = newest_ms.saturating_sub(self.retention_ms + RETENTION_MARGIN_MS);
        // Only from the front: the stream has no holes.
        while let [first, second, ..] = self.position.block_files[..]
            && first.newest_ms < oldest_ms
            && second.start <= needed
        {
            self.position.block_files.remove(0);
            self.blocks.remove(0);
            self.position.dropped_ms = self.position.dropped_ms.max(first.newest_ms);
            std::fs::remove_file(self.folder.join(format!("blocks-{}.log", first.number)))?;
        }
        Ok(())
    }
}

/// Opens or creates a file for appending, truncated to `len` bytes.
fn open_truncated(path: &Path, len: u64) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    file.set_len(len)?;
    Ok(file)
}

/// Appends a frame at `end`, cutting off what a failed write left beyond it. Returns the frame's length in bytes.
fn append_frame(file: &mut File, end: u64, payload: &[u8]) -> Result<u64, JournalError> {
    let mut frame = Vec::with_capacity(payload.len() + 8);
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(crc32fast::hash(payload).to_le_bytes());
    frame.extend(payload);
    if file.metadata()?.len() != end {
        file.set_len(end)?;
    }
    file.write_all(&frame)?;
    Ok(frame.len() as u64)
}

/// Reads the payloads of all frames in the first `len` bytes of a file.
fn read_frames(path: &Path, len: u64) -> Result<Vec<Vec<u8>>, JournalError> {
    let bytes = std::fs::read(path)?;
    let committed = usize::try_from(len).ok().and_then(|len| bytes.get(..len));
    let committed = committed.ok_or_else(|| JournalError::Damaged(path.display().to_string()))?;
    Ok(split_frames(committed, path)?.into_iter().map(<[u8]>::to_vec).collect())
}

/// Splits bytes into the payloads of their frames and checks each checksum.
fn split_frames<'a>(mut bytes: &'a [u8], path: &Path) -> Result<Vec<&'a [u8]>, JournalError> {
    let damaged = || JournalError::Damaged(path.display().to_string());
    let mut payloads = Vec::new();
    while let Some((header, tail)) = bytes.split_first_chunk::<8>() {
        let [a, b, c, d, w, x, y, z] = *header;
        let (payload, tail) = tail.split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize).ok_or_else(damaged)?;
        if crc32fast::hash(payload) != u32::from_le_bytes([w, x, y, z]) {
            return Err(damaged());
        }
        payloads.push(payload);
        bytes = tail;
    }
    if bytes.is_empty() { Ok(payloads) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_off_the_remains_of_a_failed_write() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &TenantId::main(), 1, 1000).unwrap();
        journal.append_blocks(b"first", 1, u64::MAX).unwrap();
        let path = dir.path().join("t-main/blocks-0.log");
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(b"half an entry");
        std::fs::write(&path, torn).unwrap();
        journal.append_blocks(b"second", 2, u64::MAX).unwrap();
        let position = journal.sync().unwrap();
        let (journal, _) = Journal::load(dir.path(), &position, 1000).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(journal.block_reader().read(1, &mut buffer), Some(11));
        assert_eq!(&buffer[..11], b"firstsecond");
        assert_eq!(journal.retained(), (1, 12));
    }

    #[test]
    fn rewrites_the_files_after_a_failed_sync() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &TenantId::main(), 1, 1000).unwrap();
        journal.append_series(&[Labels::of(&[("a", "1")])]).unwrap();
        journal.append_blocks(b"first", 1, u64::MAX).unwrap();
        let early = journal.block_reader();
        let inode = |name: &str| {
            let path = dir.path().join("t-main").join(name);
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
        };
        let before = (inode("series-0.log"), inode("blocks-0.log"));
        journal.sync().unwrap();
        assert_eq!((inode("series-0.log"), inode("blocks-0.log")), before, "a successful sync rewrites nothing");
        journal.sync_failed = true;
        journal.sync().unwrap();
        assert!(inode("series-0.log") != before.0 && inode("blocks-0.log") != before.1 && !journal.sync_failed);
        journal.append_blocks(b"second", 2, u64::MAX).unwrap();
        let position = journal.sync().unwrap();
        let (journal, labels) = Journal::load(dir.path(), &position, 1000).unwrap();
        let mut buffer = [0; 100];
        assert_eq!((journal.block_reader().read(1, &mut buffer), labels.len()), (Some(11), 1));
        assert_eq!(early.read(1, &mut buffer), Some(5), "an open reader keeps the old file");
    }

    #[test]
    fn drops_files_past_the_retention_and_keeps_them_for_open_readers() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &TenantId::main(), 1, 1000).unwrap();
        let (file_of_blocks, hour_ms) = (vec![7; MAX_BLOCK_FILE_BYTES as usize], 3_600_000);
        journal.append_blocks(&file_of_blocks, hour_ms, u64::MAX).unwrap();
        let early = journal.block_reader();
        for hour in 2..5 {
            journal.append_blocks(&file_of_blocks, hour * hour_ms, u64::MAX).unwrap();
        }
        assert_eq!(journal.dropped_ms(), 3 * hour_ms);
        let position = journal.sync().unwrap();
        let (journal, _) = Journal::load(dir.path(), &position, 1000).unwrap();
        assert_eq!(journal.retained(), (1 + 3 * MAX_BLOCK_FILE_BYTES, 1 + 4 * MAX_BLOCK_FILE_BYTES));
        let mut buffer = [0; 3];
        let late = journal.block_reader();
        assert_eq!((late.read(1, &mut buffer), early.read(1, &mut buffer)), (None, Some(3)));
        assert_eq!(late.read(4 * MAX_BLOCK_FILE_BYTES, &mut buffer), Some(1), "up to the end of a file");
        std::fs::remove_file(dir.path().join("t-main/blocks-3.log")).unwrap();
        assert!(Journal::load(dir.path(), &position, 1000).is_err(), "the newest file is missing");
    }
}
