//! What of one tenant only grows: its label sets, and the stream of sealed blocks of its series.
//!
//! The label sets are a list of frames: length u32, CRC-32 u32 (little-endian), bytes. The stream lies in files one
//! after the other, each named by a number and beginning at an address; what its entries are, and their
//! checksums, is for whoever writes them. A checkpoint says how long each file was; what stands behind that
//! belongs to nobody and is cut off when the file is opened again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Labels, TenantId};

use crate::renew;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It does not hold what it should.
    #[error("{0} is damaged")]
    Damaged(String),
}

impl From<postcard::Error> for JournalError {
    fn from(error: postcard::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// A file of blocks is closed at this size.
const FILE_BYTES: u64 = 32 << 20;
/// How much older than the newest sample a file of blocks may get beyond the live hours, in ms.
const MARGIN_MS: i64 = 600_000;

/// What a checkpoint says of a tenant's files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// Whose.
    pub tenant: TenantId,
    /// How often the series were numbered anew.
    generation: u64,
    series: usize,
    series_len: u64,
    retired_len: u64,
    /// The newest sample of a series that left, in ms.
    retired_ms: i64,
    blocks: Vec<Extent>,
    /// No block newer than this was dropped, in ms.
    dropped_ms: i64,
}

/// A file of the stream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Extent {
    number: u64,
    /// Address of its first byte.
    start: u64,
    len: u64,
    /// Its newest sample, in ms.
    newest_ms: i64,
}

/// The kept part of a stream, for whoever reads while more of it is written. A file that is dropped meanwhile
/// can be read on.
#[derive(Clone, Debug, Default)]
pub struct Stream(Arc<Vec<(u64, u64, Arc<File>)>>);

impl Stream {
    /// Copies the bytes from an address on and says how many there were; `None` if they cannot be read.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Option<usize> {
        let (start, len, file) = self.0.iter().rev().find(|(start, ..)| *start <= address)?;
        let within = address - start;
        let left = usize::try_from(len.checked_sub(within)?).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        // A file that was damaged or cut under us holds nothing anybody wants.
        file.read_exact_at(&mut buffer[..wanted], within).ok().map(|()| wanted)
    }
}

/// A series that nobody writes any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// What it was called.
    pub labels: Labels,
    /// Time of its first sample, in ms.
    pub first_ms: i64,
    /// Time of its last sample, in ms.
    pub last_ms: i64,
}

/// The series that left, for whoever looks for them.
#[derive(Clone, Debug, Default)]
pub struct Retired(Option<Arc<Archive>>);

#[derive(Debug)]
struct Archive {
    file: File,
    path: PathBuf,
    len: u64,
    newest_ms: i64,
}

impl Retired {
    /// None of them has a sample after this, in ms.
    pub fn newest_ms(&self) -> i64 {
        self.0.as_ref().map_or(i64::MIN, |archive| archive.newest_ms)
    }

    /// All of them.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&self) -> Result<Vec<Left>, JournalError> {
        let Some(archive) = &self.0 else { return Ok(Vec::new()) };
        let mut whole = vec![0; usize::try_from(archive.len).unwrap_or(usize::MAX)];
        archive.file.read_exact_at(&mut whole, 0)?;
        let mut all = Vec::new();
        for frame in split(&whole, &archive.path)? {
            all.extend(postcard::from_bytes::<Vec<Left>>(frame)?);
        }
        Ok(all)
    }
}

/// The files of one tenant.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    mark: Mark,
    series: File,
    /// The files of the stream, in the order of `mark.blocks`; the last is written to.
    files: Vec<Arc<File>>,
    /// How long blocks are of use, in ms.
    useful_ms: i64,
    /// A sync has failed: the disk may lack what the files seem to hold.
    distrusted: bool,
}

impl Journal {
    /// Empty files; the stream begins at this address.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(dir: &Path, tenant: &TenantId, start: u64, useful_ms: i64) -> Result<Self, JournalError> {
        // A tenant may be called "..": the letter before it makes it a name.
        let folder = dir.join(format!("t-{tenant}"));
        std::fs::create_dir_all(&folder)?;
        let first = Extent { number: 0, start, len: 0, newest_ms: i64::MIN };
        let mark = Mark {
            tenant: tenant.clone(),
            generation: 0,
            series: 0,
            series_len: 0,
            retired_len: 0,
            retired_ms: i64::MIN,
            blocks: vec![first],
            dropped_ms: i64::MIN,
        };
        let series = open(&folder.join("series-0.log"), 0)?;
        let blocks = open(&folder.join("blocks-0.log"), 0)?;
        File::open(dir)?.sync_all()?;
        Ok(Self { folder, mark, series, files: vec![Arc::new(blocks)], useful_ms, distrusted: false })
    }

    /// The files as they were at a checkpoint, with the label sets.
    ///
    /// # Errors
    /// The disk's, or they do not hold what they should.
    pub fn load(dir: &Path, mark: &Mark, useful_ms: i64) -> Result<(Self, Vec<Labels>), JournalError> {
        let folder = dir.join(format!("t-{}", mark.tenant));
        let mut labels = Vec::with_capacity(mark.series);
        let names = folder.join(format!("series-{}.log", mark.generation));
        for frame in frames(&names, mark.series_len)? {
            labels.extend(postcard::from_bytes::<Vec<Labels>>(&frame)?);
        }
        if labels.len() != mark.series {
            return Err(JournalError::Damaged(format!("{} of {} label sets", labels.len(), mark.series)));
        }
        let series = open(&names, mark.series_len)?;
        let mut mark = mark.clone();
        let last = mark.blocks.last().copied().ok_or_else(|| JournalError::Damaged("an empty list of files".into()))?;
        for extent in &mark.blocks {
            let path = folder.join(format!("blocks-{}.log", extent.number));
            match std::fs::metadata(&path) {
                Ok(found) if found.len() >= extent.len => {}
                // One that aged out since then is of no use to anybody.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && extent.number != last.number => {
                    mark.dropped_ms = mark.dropped_ms.max(extent.newest_ms);
                }
                _ => return Err(JournalError::Damaged(path.display().to_string())),
            }
        }
        let dropped_ms = mark.dropped_ms;
        mark.blocks.retain(|extent| extent.newest_ms > dropped_ms || extent.number == last.number);
        let mut files = Vec::new();
        for extent in &mark.blocks {
            let path = folder.join(format!("blocks-{}.log", extent.number));
            files.push(Arc::new(if extent.number == last.number {
                open(&path, last.len)?
            } else {
                File::open(&path)?
            }));
        }
        Ok((Self { folder, mark, series, files, useful_ms, distrusted: false }, labels))
    }

    /// The stream, as far as it is kept.
    pub fn stream(&self) -> Stream {
        let files = self.mark.blocks.iter().zip(&self.files);
        Stream(Arc::new(files.map(|(extent, file)| (extent.start, extent.len, Arc::clone(file))).collect()))
    }

    /// Address from which on the stream is kept, and its end.
    pub fn kept(&self) -> (u64, u64) {
        let (first, last) = (self.mark.blocks.first(), self.mark.blocks.last());
        (first.map_or(0, |first| first.start), last.map_or(0, |last| last.start + last.len))
    }

    /// The newest sample that may have been dropped, in ms.
    pub const fn dropped_ms(&self) -> i64 {
        self.mark.dropped_ms
    }

    /// Whose files they are.
    pub const fn tenant(&self) -> &TenantId {
        &self.mark.tenant
    }

    /// Label sets written so far.
    pub const fn known(&self) -> usize {
        self.mark.series
    }

    /// Adds label sets.
    ///
    /// # Errors
    /// The disk's.
    pub fn series(&mut self, fresh: &[Labels]) -> Result<(), JournalError> {
        if !fresh.is_empty() {
            self.mark.series_len += append(&mut self.series, self.mark.series_len, &postcard::to_stdvec(fresh)?)?;
            self.mark.series += fresh.len();
        }
        Ok(())
    }

    /// Begins anew with these label sets: others have left, and are kept with the times of their first and last sample
    /// until they are older than `forget_ms`. The files of the generation before stay, for the checkpoint before. Says
    /// who has left.
    ///
    /// # Errors
    /// The disk's; then nothing has changed.
    pub fn renumber(&mut self, stay: &[Labels], left: Vec<Left>, forget_ms: i64) -> Result<Retired, JournalError> {
        let generation = self.mark.generation + 1;
        let mut all = self.retired()?.read()?;
        all.extend(left);
        all.retain(|left| left.last_ms >= forget_ms);
        let name = |what: &str, generation: u64| self.folder.join(format!("{what}-{generation}.log"));
        let retired_path = name("retired", generation);
        let mut retired = open(&retired_path, 0)?;
        let retired_ms = all.iter().map(|left| left.last_ms).max().unwrap_or(i64::MIN);
        let retired_len = append(&mut retired, 0, &postcard::to_stdvec(&all)?)?;
        let mut series = open(&name("series", generation), 0)?;
        let series_len = append(&mut series, 0, &postcard::to_stdvec(stay)?)?;
        retired.sync_data()?;
        series.sync_data()?;
        File::open(&self.folder)?.sync_all()?;
        if let Some(old) = generation.checked_sub(2) {
            for path in [name("retired", old), name("series", old)] {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        }
        // All that can fail is behind us: memory and files must not stand in two numberings.
        self.series = series;
        let blocks = std::mem::take(&mut self.mark.blocks);
        let (tenant, dropped_ms) = (self.mark.tenant.clone(), self.mark.dropped_ms);
        let series = stay.len();
        self.mark = Mark { tenant, generation, series, series_len, retired_len, retired_ms, blocks, dropped_ms };
        let archive = Archive { file: retired, path: retired_path, len: retired_len, newest_ms: retired_ms };
        Ok(Retired(Some(Arc::new(archive))))
    }

    /// In which numbering the label sets stand.
    pub const fn generation(&self) -> u64 {
        self.mark.generation
    }

    /// The series that left.
    ///
    /// # Errors
    /// The disk's.
    pub fn retired(&self) -> Result<Retired, JournalError> {
        if self.mark.retired_len == 0 {
            return Ok(Retired::default());
        }
        let path = self.folder.join(format!("retired-{}.log", self.mark.generation));
        let (file, len, newest_ms) = (File::open(&path)?, self.mark.retired_len, self.mark.retired_ms);
        Ok(Retired(Some(Arc::new(Archive { file, path, len, newest_ms }))))
    }

    /// Adds to the stream; no sample in it is newer than this. What begins at `needed` or later stays, however old it gets. It goes to the disk at once: what gathers in memory is
    /// written by the system in one go some day, and whoever waits for a sync then waits for all of it.
    ///
    /// # Errors
    /// The disk's.
    pub fn blocks(&mut self, sealed: &[u8], newest_ms: i64, needed: u64) -> Result<(), JournalError> {
        if self.mark.blocks.last().is_some_and(|open| open.len >= FILE_BYTES) {
            self.next_file(newest_ms, needed)?;
        }
        if let (Some(open), Some(file)) = (self.mark.blocks.last_mut(), self.files.last()) {
            // What a write that failed left behind goes first.
            if file.metadata()?.len() != open.len {
                file.set_len(open.len)?;
            }
            (&**file).write_all(sealed)?;
            open.len += sealed.len() as u64;
            open.newest_ms = newest_ms.max(open.newest_ms);
            // Nothing rests on it yet: the next mark writes the file anew.
            self.distrusted |= file.sync_data().is_err();
        }
        Ok(())
    }

    /// Waits for the disk, and says how long the files are.
    ///
    /// # Errors
    /// The disk's. After a failed sync the files are written anew before the next one.
    pub fn mark(&mut self) -> Result<Mark, JournalError> {
        self.sync()?;
        Ok(self.mark.clone())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        if self.distrusted {
            self.series = renew(&self.series_path(), self.mark.series_len)?;
            if let (Some(open), Some(file)) = (self.mark.blocks.last(), self.files.last_mut()) {
                *file = Arc::new(renew(&self.folder.join(format!("blocks-{}.log", open.number)), open.len)?);
            }
        }
        let blocks = self.files.last().map_or(Ok(()), |file| file.sync_data());
        let synced = self.series.sync_data().and(blocks);
        self.distrusted = synced.is_err();
        synced
    }

    fn series_path(&self) -> PathBuf {
        self.folder.join(format!("series-{}.log", self.mark.generation))
    }

    fn next_file(&mut self, newest_ms: i64, needed: u64) -> Result<(), JournalError> {
        self.sync()?;
        let number = self.mark.blocks.last().map_or(0, |last| last.number + 1);
        let (_, start) = self.kept();
        let file = open(&self.folder.join(format!("blocks-{number}.log")), 0)?;
        File::open(&self.folder)?.sync_all()?;
        self.files.push(Arc::new(file));
        self.mark.blocks.push(Extent { number, start, len: 0, newest_ms });
        let oldest_ms = newest_ms.saturating_sub(self.useful_ms + MARGIN_MS);
        // Only from the front: the stream has no holes.
        while let [first, second, ..] = self.mark.blocks[..]
            && first.newest_ms < oldest_ms
            && second.start <= needed
        {
            self.mark.blocks.remove(0);
            self.files.remove(0);
            self.mark.dropped_ms = self.mark.dropped_ms.max(first.newest_ms);
            std::fs::remove_file(self.folder.join(format!("blocks-{}.log", first.number)))?;
        }
        Ok(())
    }
}

/// Opens a file for adding to it, cut to this length.
fn open(path: &Path, len: u64) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    file.set_len(len)?;
    Ok(file)
}

/// Adds a frame at `end`; what a write that failed left behind it goes first.
fn append(file: &mut File, end: u64, bytes: &[u8]) -> Result<u64, JournalError> {
    let mut frame = Vec::with_capacity(bytes.len() + 8);
    frame.extend((bytes.len() as u32).to_le_bytes());
    frame.extend(crc32fast::hash(bytes).to_le_bytes());
    frame.extend(bytes);
    if file.metadata()?.len() != end {
        file.set_len(end)?;
    }
    file.write_all(&frame)?;
    Ok(frame.len() as u64)
}

fn frames(path: &Path, len: u64) -> Result<Vec<Vec<u8>>, JournalError> {
    let whole = std::fs::read(path)?;
    let kept = usize::try_from(len).ok().and_then(|len| whole.get(..len));
    let kept = kept.ok_or_else(|| JournalError::Damaged(path.display().to_string()))?;
    Ok(split(kept, path)?.into_iter().map(<[u8]>::to_vec).collect())
}

fn split<'a>(mut rest: &'a [u8], path: &Path) -> Result<Vec<&'a [u8]>, JournalError> {
    let damaged = || JournalError::Damaged(path.display().to_string());
    let mut found = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, w, x, y, z] = *head;
        let (bytes, tail) = tail.split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize).ok_or_else(damaged)?;
        if crc32fast::hash(bytes) != u32::from_le_bytes([w, x, y, z]) {
            return Err(damaged());
        }
        found.push(bytes);
        rest = tail;
    }
    if rest.is_empty() { Ok(found) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_write_left_behind_goes_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &TenantId::main(), 1, 1000).unwrap();
        journal.blocks(b"first", 1, u64::MAX).unwrap();
        let path = dir.path().join("t-main/blocks-0.log");
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(b"half an entry");
        std::fs::write(&path, torn).unwrap();
        journal.blocks(b"second", 2, u64::MAX).unwrap();
        let mark = journal.mark().unwrap();
        let (journal, _) = Journal::load(dir.path(), &mark, 1000).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(journal.stream().read(1, &mut buffer), Some(11));
        assert_eq!(&buffer[..11], b"firstsecond");
        assert_eq!(journal.kept(), (1, 12));
    }

    #[test]
    fn after_a_failed_sync_the_files_are_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &TenantId::main(), 1, 1000).unwrap();
        journal.series(&[Labels::of(&[("a", "1")])]).unwrap();
        journal.blocks(b"first", 1, u64::MAX).unwrap();
        let (early, inode) = (journal.stream(), |name: &str| {
            let path = dir.path().join("t-main").join(name);
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
        });
        let before = (inode("series-0.log"), inode("blocks-0.log"));
        journal.mark().unwrap();
        assert_eq!((inode("series-0.log"), inode("blocks-0.log")), before, "a good sync changes nothing");
        journal.distrusted = true;
        journal.mark().unwrap();
        assert!(inode("series-0.log") != before.0 && inode("blocks-0.log") != before.1 && !journal.distrusted);
        journal.blocks(b"second", 2, u64::MAX).unwrap();
        let mark = journal.mark().unwrap();
        let (journal, labels) = Journal::load(dir.path(), &mark, 1000).unwrap();
        let mut buffer = [0; 100];
        assert_eq!((journal.stream().read(1, &mut buffer), labels.len()), (Some(11), 1));
        assert_eq!(early.read(1, &mut buffer), Some(5), "whoever reads the old file keeps it");
    }

    #[test]
    fn files_go_once_they_are_too_old_and_readers_keep_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(dir.path(), &TenantId::main(), 1, 1000).unwrap();
        let (some, hour_ms) = (vec![7; FILE_BYTES as usize], 3_600_000);
        journal.blocks(&some, hour_ms, u64::MAX).unwrap();
        let early = journal.stream();
        for hour in 2..5 {
            journal.blocks(&some, hour * hour_ms, u64::MAX).unwrap();
        }
        assert_eq!(journal.dropped_ms(), 3 * hour_ms);
        let mark = journal.mark().unwrap();
        let (journal, _) = Journal::load(dir.path(), &mark, 1000).unwrap();
        assert_eq!(journal.kept(), (1 + 3 * FILE_BYTES, 1 + 4 * FILE_BYTES));
        let mut buffer = [0; 3];
        let late = journal.stream();
        assert_eq!((late.read(1, &mut buffer), early.read(1, &mut buffer)), (None, Some(3)));
        assert_eq!(late.read(4 * FILE_BYTES, &mut buffer), Some(1), "up to the end of a file");
        std::fs::remove_file(dir.path().join("t-main/blocks-3.log")).unwrap();
        assert!(Journal::load(dir.path(), &mark, 1000).is_err(), "the newest is missing");
    }
}
