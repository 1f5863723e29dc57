//! What of one tenant only grows: its label sets, and the sealed blocks of its series.
//!
//! A file is a list of frames: length u32, CRC-32 u32 (little-endian), bytes. A checkpoint says how long each
//! file was; what stands behind that belongs to nobody and is cut off when the file is opened again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wardroom_domain::{Labels, TenantId};

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
    series: usize,
    series_len: u64,
    /// Number, length and newest sample of each file of blocks.
    blocks: Vec<(u64, u64, i64)>,
}

/// The files of one tenant, its label sets, and frames of its blocks.
pub type Loaded = (Journal, Vec<Labels>, Vec<Vec<u8>>);

/// The files of one tenant.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    mark: Mark,
    series: File,
    /// The last file of blocks.
    open: File,
    /// How long blocks are of use, in ms.
    useful_ms: i64,
}

impl Journal {
    /// Empty files.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(dir: &Path, tenant: &TenantId, useful_ms: i64) -> Result<Self, JournalError> {
        // A tenant may be called "..": the letter before it makes it a name.
        let folder = dir.join(format!("t-{tenant}"));
        std::fs::create_dir_all(&folder)?;
        let mark = Mark { tenant: tenant.clone(), series: 0, series_len: 0, blocks: vec![(0, 0, i64::MIN)] };
        let series = open(&folder.join("series.log"), 0)?;
        let blocks = open(&folder.join("blocks-0.log"), 0)?;
        File::open(dir)?.sync_all()?;
        Ok(Self { folder, mark, series, open: blocks, useful_ms })
    }

    /// The files as they were at a checkpoint, with what they hold: label sets, and frames of blocks.
    ///
    /// # Errors
    /// The disk's, or they do not hold what they should.
    pub fn load(dir: &Path, mark: &Mark, useful_ms: i64) -> Result<Loaded, JournalError> {
        let folder = dir.join(format!("t-{}", mark.tenant));
        let mut labels = Vec::with_capacity(mark.series);
        for frame in frames(&folder.join("series.log"), mark.series_len)? {
            labels.extend(postcard::from_bytes::<Vec<Labels>>(&frame)?);
        }
        if labels.len() != mark.series {
            return Err(JournalError::Damaged(format!("{} of {} label sets", labels.len(), mark.series)));
        }
        let mut blocks = Vec::new();
        for (number, len, _) in &mark.blocks {
            let path = folder.join(format!("blocks-{number}.log"));
            // One that aged out since then is of no use to anybody.
            if path.exists() {
                blocks.extend(frames(&path, *len)?);
            }
        }
        let series = open(&folder.join("series.log"), mark.series_len)?;
        let (number, len, _) = mark.blocks.last().copied().unwrap_or_default();
        let last = open(&folder.join(format!("blocks-{number}.log")), len)?;
        Ok((Self { folder, mark: mark.clone(), series, open: last, useful_ms }, labels, blocks))
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

    /// Adds sealed blocks, none newer than this.
    ///
    /// # Errors
    /// The disk's.
    pub fn blocks(&mut self, sealed: &[u8], newest_ms: i64) -> Result<(), JournalError> {
        if self.mark.blocks.last().is_some_and(|(_, len, _)| *len >= FILE_BYTES) {
            self.next_file(newest_ms)?;
        }
        if let Some((_, len, newest)) = self.mark.blocks.last_mut() {
            *len += append(&mut self.open, *len, sealed)?;
            *newest = newest_ms.max(*newest);
        }
        Ok(())
    }

    /// Waits for the disk, and says how long the files are.
    ///
    /// # Errors
    /// The disk's.
    pub fn mark(&mut self) -> Result<Mark, JournalError> {
        self.series.sync_data()?;
        self.open.sync_data()?;
        Ok(self.mark.clone())
    }

    fn next_file(&mut self, newest_ms: i64) -> Result<(), JournalError> {
        self.open.sync_data()?;
        let number = self.mark.blocks.last().map_or(0, |(number, ..)| number + 1);
        self.open = open(&self.folder.join(format!("blocks-{number}.log")), 0)?;
        File::open(&self.folder)?.sync_all()?;
        self.mark.blocks.push((number, 0, newest_ms));
        let oldest_ms = newest_ms.saturating_sub(self.useful_ms + MARGIN_MS);
        let (stale, kept) = self.mark.blocks.iter().partition(|(.., newest)| *newest < oldest_ms);
        self.mark.blocks = kept;
        let stale: Vec<(u64, u64, i64)> = stale;
        for (number, ..) in stale {
            std::fs::remove_file(self.folder.join(format!("blocks-{number}.log")))?;
        }
        Ok(())
    }
}

/// Opens a file for adding to it, cut to this length.
fn open(path: &Path, len: u64) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
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
    let damaged = || JournalError::Damaged(path.display().to_string());
    let mut rest = usize::try_from(len).ok().and_then(|len| whole.get(..len)).ok_or_else(damaged)?;
    let mut found = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, w, x, y, z] = *head;
        let (bytes, tail) = tail.split_at_checked(u32::from_le_bytes([a, b, c, d]) as usize).ok_or_else(damaged)?;
        if crc32fast::hash(bytes) != u32::from_le_bytes([w, x, y, z]) {
            return Err(damaged());
        }
        found.push(bytes.to_vec());
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
        let mut journal = Journal::create(dir.path(), &TenantId::main(), 1000).unwrap();
        journal.blocks(b"first", 1).unwrap();
        let path = dir.path().join("t-main/blocks-0.log");
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(b"half a frame");
        std::fs::write(&path, torn).unwrap();
        journal.blocks(b"second", 2).unwrap();
        let mark = journal.mark().unwrap();
        let (_, _, blocks) = Journal::load(dir.path(), &mark, 1000).unwrap();
        assert_eq!(blocks, [b"first".to_vec(), b"second".to_vec()]);
    }
}
