//! The state of a segmented log that readers and the writer share, and reading from it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use wardroom_domain::Envelope;

use crate::config::Config;
use crate::epoch_markers;
use crate::metrics as names;
use crate::position_index::PositionIndex;
use crate::record::{self, Record};
use crate::segment::{self, Frame};

/// End of a log opened read-only: all valid frames are read.
const UNKNOWN_END: u64 = u64::MAX;

/// The shared state of a log.
#[derive(Debug)]
pub(crate) struct LogState {
    pub(crate) dir: PathBuf,
    pub(crate) config: Config,
    /// Offset after the last durable record.
    pub(crate) end: AtomicU64,
    /// Base offsets of the segments on disk, ascending.
    pub(crate) segments: Mutex<Vec<u64>>,
    /// First offsets of new epochs: the offsets before them may be missing.
    epochs: Vec<u64>,
    /// Ranges of lost records that reads have found: the first offset of each by the one after its last.
    lost: Mutex<BTreeMap<u64, u64>>,
    /// Positions where readers stopped.
    pub(crate) positions: Mutex<PositionIndex>,
    /// Bytes of appends that are waiting for the writer.
    pub(crate) pending_bytes: AtomicUsize,
    /// Why the last group of appends failed.
    pub(crate) append_error: Mutex<Option<String>>,
}

impl LogState {
    /// Creates the state of a log with these segments.
    ///
    /// # Errors
    /// Returns an error if the markers of new epochs cannot be read.
    pub(crate) fn new(dir: &Path, config: Config, end: u64, segments: Vec<u64>) -> std::io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            config,
            end: AtomicU64::new(end),
            segments: Mutex::new(segments),
            epochs: epoch_markers::list(dir)?,
            lost: Mutex::default(),
            positions: Mutex::default(),
            pending_bytes: AtomicUsize::new(0),
            append_error: Mutex::default(),
        })
    }

    /// Creates the state of a log that another process may be writing.
    ///
    /// # Errors
    /// See [`LogState::new`].
    pub(crate) fn read_only(dir: &Path, segments: Vec<u64>) -> std::io::Result<Self> {
        Self::new(dir, Config::default(), UNKNOWN_END, segments)
    }

    /// Describes the records that are missing if `found` follows where `expected` should: a segment was deleted, or
    /// replaced by an older copy. Returns `None` if none are, or if a new epoch starts there: offsets before one may be
    /// missing.
    fn missing_records(&self, expected: u64, found: u64) -> Option<String> {
        let is_missing = found > expected && !self.epochs.contains(&found);
        is_missing.then(|| format!("records {expected} to {} are missing", found - 1))
    }

    /// Remembers that the records `first..end` are lost, without those before the start of a new epoch: which of them
    /// existed is unknown, and their loss was accepted.
    fn note_lost(&self, first: u64, end: u64) {
        let newest_epoch = self.epochs.iter().rfind(|epoch| **epoch < end);
        let first = newest_epoch.map_or(first, |epoch| first.max(*epoch));
        if first < end && !self.epochs.contains(&end) {
            lock(&self.lost).entry(end).and_modify(|known| *known = first.min(*known)).or_insert(first);
        }
    }

    /// Returns how many records reads have found damaged or missing, each counted once; those of dropped segments are
    /// forgotten.
    pub(crate) fn lost_records(&self) -> u64 {
        let start = lock(&self.segments).first().copied().unwrap_or_default();
        let mut lost = lock(&self.lost);
        lost.retain(|end, _| *end > start);
        let (mut records, mut counted_to) = (0, start);
        for (end, first) in &*lost {
            records += end - counted_to.max(*first);
            counted_to = *end;
        }
        records
    }

    /// Reads up to `limit` records from `from`; only the header of requests that `skip` selects.
    pub(crate) fn read(
        &self,
        from: u64,
        limit: usize,
        skip: Option<&dyn Fn(&Envelope) -> bool>,
    ) -> std::io::Result<Vec<Record>> {
        let end = self.end.load(Ordering::Acquire);
        let mut records = Vec::new();
        let segments = lock(&self.segments).clone();
        let mut index = segments.partition_point(|base| *base <= from).saturating_sub(1);
        let mut position = segments.get(index).map_or(0, |base| lock(&self.positions).scan_start(*base, from));
        // Where the next read continues: without this it would scan the segment again.
        let (mut next_offset, mut stopped_at, mut is_damaged) = (from, None, false);
        let start = segments.first().copied().unwrap_or_default();
        'segments: while let Some(base) = segments.get(index) {
            let mut file = File::open(segment::path(&self.dir, *base))?;
            while records.len() < limit {
                // Frames below the end are valid unless damaged, and damage is detected when the body is read.
                if let Some(skip) = skip
                    && let Some(prefix) = segment::read_frame_prefix(&file, position)?
                    && prefix.offset == next_offset
                    && next_offset < end
                    && let Some(record) = record::decode_without_body(*base, position, &prefix)
                    && skip(&record.envelope)
                {
                    (position, next_offset) = (prefix.next, next_offset.max(prefix.offset + 1));
                    records.push(record);
                    continue;
                }
                match segment::read_frame(&mut file, position)? {
                    Frame::Valid { offset, .. } if offset >= end => {
                        stopped_at = Some((*base, position));
                        break 'segments;
                    }
                    Frame::Valid { offset, next, .. }
                        if offset < *base || segments.get(index + 1).is_some_and(|following| offset >= *following) =>
                    {
                        report_damage(*base, position, "the record belongs to another segment");
                        (position, is_damaged) = (next, true);
                    }
                    Frame::Valid { offset, payload, next } => {
                        let is_gap = !is_damaged && next_offset >= start;
                        if is_gap && let Some(missing) = self.missing_records(next_offset, offset) {
                            report_damage(*base, position, &missing);
                        }
                        if is_gap || is_damaged {
                            self.note_lost(next_offset.max(start), offset);
                        }
                        let span = (position, next - position);
                        (position, next_offset, is_damaged) = (next, next_offset.max(offset + 1), false);
                        if offset >= from {
                            match record::decode(*base, span, offset, &payload, &|_| false) {
                                Ok(record) => records.push(record),
                                Err(error) => {
                                    self.note_lost(offset, offset + 1);
                                    report_damage(*base, position, &error.to_string());
                                }
                            }
                        }
                    }
                    Frame::Damaged { next } => {
                        report_damage(*base, position, "checksum");
                        (position, is_damaged) = (next, true);
                    }
                    Frame::Torn => {
                        // In the newest segment the writer may be writing there, after the last durable record.
                        if index + 1 < segments.len() || next_offset.max(*base) < end {
                            report_damage(*base, position, "no valid frame up to the end of the segment");
                            is_damaged = true;
                        }
                        break;
                    }
                    Frame::End => break,
                }
            }
            stopped_at = Some((*base, position));
            if records.len() >= limit {
                break;
            }
            index += 1;
            position = 0;
        }
        if is_damaged && end != UNKNOWN_END {
            self.note_lost(next_offset.max(start), end);
        }
        if let Some((base, position)) = stopped_at {
            lock(&self.positions).insert(base, next_offset, position);
        }
        Ok(records)
    }
}

fn report_damage(segment: u64, position: u64, detail: &str) {
    metrics::counter!(names::CORRUPT_TOTAL).increment(1);
    tracing::error!(segment, position, detail, "damaged or missing bus records skipped");
}

/// Locks a mutex, ignoring poisoning.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_reported_unless_a_new_epoch_starts_after_it() {
        let dir = tempfile::tempdir().unwrap();
        crate::epoch::start_new_epoch(dir.path(), 50).unwrap();
        let log = LogState::read_only(dir.path(), vec![0, 50]).unwrap();
        assert_eq!(log.missing_records(10, 10), None);
        assert_eq!(log.missing_records(10, 50), None, "lost before the epoch, and known");
        assert_eq!(log.missing_records(10, 12).unwrap(), "records 10 to 11 are missing");
        assert_eq!(log.missing_records(12, 10), None, "read before");
    }
}
