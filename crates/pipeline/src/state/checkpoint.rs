//! Checkpoints of detection: a restart resumes at the newest one and reads only newer records from the bus.
//!
//! ```text
//! checkpoint/000…42.state        offset, and all state that changes with every sample; the two newest are kept
//! checkpoint/t-main/series-0.log   label sets in the order of their ids; append-only until series are evicted
//! checkpoint/t-main/retired-1.log  evicted series, with the times of their first and last sample
//! checkpoint/t-main/blocks-7.log   sealed blocks of samples, read in place; dropped once older than the live window
//! ```
//!
//! Append-only data goes to journals as it arrives; everything else is written whole into a new file that is renamed
//! once it is synced. Every part has a checksum. A checkpoint that is damaged, of another format version, or taken with
//! other detection settings is skipped for the one before it; without any, detection reads the retained bus again,
//! which is slower but gives the same result.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wardroom_bus::Bus;
use wardroom_correlate::Correlator;
use wardroom_detect::Engine;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{MetricMetadata, SeriesId, TenantId};
use wardroom_files::{ChecksummedWriter, EvictedSeries, Journal, JournalError, JournalPosition};
use wardroom_head::{RecentSamples, SeriesRegistry};

use crate::config::Config;
use crate::consumer_groups;
use crate::metrics as names;
use crate::state::tenants::{Detectors, LiveState, Tenant, Tenants, is_stored_in_lake, retained_series};

const MAGIC: [u8; 4] = *b"WRDC";
/// 6: what orchestrators remember is counted. An older checkpoint is skipped and its state is built from the bus again.
const FORMAT_VERSION: u8 = 6;
/// Checkpoints on disk.
const MAX_CHECKPOINTS: usize = 2;
/// Minimum of inactive series for an eviction, which renumbers all others.
const MIN_EVICTED_SERIES: usize = 1000;
/// Sealed blocks held in memory before they are written to the journal, in bytes.
const MAX_PENDING_BLOCK_BYTES: usize = 1 << 20;

/// Why a checkpoint could not be written or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Disk I/O failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The file is truncated, has a wrong checksum or is not a checkpoint.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(String),
    /// Written in another format version.
    #[error("format version {0} is not supported by this build; the bus is read again instead")]
    UnsupportedVersion(u8),
    /// The lake lacks rows that the state relies on.
    #[error(
        "the lake is committed to offset {}, the checkpoint requires {wanted}",
        .found.map_or_else(|| "none".to_owned(), |found| found.to_string())
    )]
    LakeBehind {
        /// Committed offset of the lake.
        found: Option<u64>,
        /// Committed offset that the checkpoint requires.
        wanted: u64,
    },
    /// Taken with other settings, so that the state means something else now.
    #[error("taken with other settings of detection, entities, conventions or live series")]
    SettingsChanged,
}

impl From<postcard::Error> for Error {
    fn from(error: postcard::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Header of a checkpoint file. Postcard stores fields by position: their order is the format.
#[derive(Serialize, Deserialize)]
struct Header {
    offset: u64,
    settings_digest: String,
    complete_from_ms: i64,
    /// Committed offset of the lake.
    lake_offset: Option<u64>,
    tenants: Vec<JournalPosition>,
}

/// The checkpoints of a data folder.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    settings_digest: String,
    /// Length of the live window (`head.recent-minutes`), in ms.
    live_window_ms: i64,
    journals: Vec<Journal>,
    /// Offsets of the checkpoints on disk, ascending.
    offsets: Vec<u64>,
    /// Whether series were renumbered since the last checkpoint.
    renumbered: bool,
}

/// Where detection resumes after loading a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// The next offset of the bus.
    pub offset: u64,
    /// The state holds every sample since this time, in ms.
    pub complete_from_ms: i64,
    /// Committed offset of the lake when the checkpoint was taken.
    pub lake_offset: Option<u64>,
}

impl Checkpoints {
    /// Opens the folder and loads the newest usable checkpoint into `tenants`.
    ///
    /// `available` are the offsets that the bus holds, `lake_offset` is the committed offset of the lake. Unusable
    /// checkpoints are deleted.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read or written.
    pub fn open(
        dir: &Path,
        config: &Config,
        available: RangeInclusive<u64>,
        tenants: &Tenants,
        lake_offset: Option<u64>,
    ) -> Result<(Self, Option<ResumePoint>), Error> {
        std::fs::create_dir_all(dir)?;
        let catalog = &config.catalog;
        let meaning = (catalog.entity_rules(), catalog.user_conventions());
        let settings = (&config.detect, meaning, &config.correlate, config.head.recent_minutes);
        let live_window_ms = i64::from(config.head.recent_minutes) * 60_000;
        let settings = serde_json::to_vec(&settings).map_err(std::io::Error::from)?;
        let mut checkpoints = Self {
            dir: dir.to_owned(),
            settings_digest: sha256_hex(&settings),
            live_window_ms,
            journals: Vec::new(),
            offsets: list_offsets(dir)?,
            renumbered: false,
        };
        for offset in checkpoints.offsets.clone().into_iter().rev() {
            if available.contains(&offset) {
                match checkpoints.load(offset, config, tenants, lake_offset) {
                    Ok(resumed) => return Ok((checkpoints, Some(resumed))),
                    Err(error) => tracing::warn!(offset, %error, "checkpoint skipped"),
                }
            }
            std::fs::remove_file(checkpoints.path(offset))?;
            checkpoints.offsets.retain(|kept| *kept != offset);
        }
        // Journals are of no use without a checkpoint.
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok((checkpoints, None))
    }

    /// Writes the sealed blocks of a tenant to its journal if they exceed `MAX_PENDING_BLOCK_BYTES`.
    ///
    /// # Errors
    /// Returns an error if the journal cannot be written; the blocks stay pending.
    pub fn flush_blocks_if_large(&mut self, tenant: &TenantId, live: &mut LiveState) -> Result<(), Error> {
        if live.recent.unpersisted_blocks().1.len() < MAX_PENDING_BLOCK_BYTES {
            return Ok(());
        }
        self.flush_blocks(tenant, live)
    }

    /// Writes the sealed blocks of a tenant to its journal.
    ///
    /// # Errors
    /// Returns an error if the journal cannot be written; the blocks stay pending.
    pub fn flush_blocks(&mut self, tenant: &TenantId, live: &mut LiveState) -> Result<(), Error> {
        let newest_ms = live.newest_ms;
        let ((address, blocks), journal) = (live.recent.unpersisted_blocks(), self.journal(tenant)?);
        if blocks.is_empty() {
            return Ok(());
        }
        if journal.retained().1 != address {
            return Err(Error::Damaged(format!(
                "the journal ends at {}, but the next block is at {address}",
                journal.retained().1
            )));
        }
        journal.append_blocks(blocks, newest_ms, live.lake_committed_address)?;
        live.recent.mark_persisted();
        live.recent.truncate_before(journal.retained().0, journal.dropped_ms());
        live.sealed = journal.block_reader();
        Ok(())
    }

    /// Evicts series without a sample in the live window, once they are many. Evicted series stay findable in the index
    /// on disk; their samples are read from the tables and the bus.
    ///
    /// # Errors
    /// Returns an error if a journal cannot be written; the series of that tenant stay in memory.
    pub fn evict_inactive_series(&mut self, config: &Config, tenants: &Tenants) -> Result<(), Error> {
        if self.renumbered {
            return Ok(());
        }
        for (id, tenant) in tenants.all() {
            let Detectors { engine, .. } = &mut *tenant.detectors();
            let live = &mut *tenant.live_state();
            let now_ms = engine.watermark_ms();
            let inactive_before_ms = now_ms.saturating_sub(self.live_window_ms);
            let span = |id: u32| {
                let native = live.native_newest_ms.get(&SeriesId(id)).map(|newest| (*newest, *newest));
                let floats = live.recent.span_ms(SeriesId(id));
                floats.into_iter().chain(native).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            };
            let spans: Vec<_> = (0..engine.known_series() as u32).map(span).collect();
            let unflushed = live.recent.unflushed_series();
            let is_active = |(index, span): (usize, &Option<(i64, i64)>)| {
                span.is_none_or(|(_, last)| last >= inactive_before_ms)
                    || unflushed.get(index).copied().unwrap_or_default()
            };
            let keep: Vec<bool> = spans.iter().enumerate().map(is_active).collect();
            let inactive = keep.iter().filter(|keep| !**keep).count();
            if inactive < MIN_EVICTED_SERIES || inactive * 8 < keep.len() {
                continue;
            }
            let (retained, evicted) = {
                let registry = tenant.registry();
                let all = registry.labels_from(0).iter().zip(&spans).zip(&keep).filter(|(_, keep)| !**keep);
                let evicted = all.filter_map(|((labels, span), _)| {
                    span.map(|(first_ms, last_ms)| EvictedSeries { labels: labels.clone(), first_ms, last_ms })
                });
                (retained_series(registry.labels_from(0), &keep), evicted.collect())
            };
            let drop_before_ms = now_ms.saturating_sub(config.bus.retention_hours as i64 * 3_600_000);
            let journal = self.journal(&id)?;
            let evicted = journal.renumber(&retained, evicted, drop_before_ms)?;
            tenant.renumber((engine, live), &keep, config, evicted);
            self.renumbered = true;
            metrics::counter!(names::SERIES_EVICTED_TOTAL).increment(inactive as u64);
        }
        Ok(())
    }

    /// Writes a checkpoint: the state of `tenants` includes everything below `offset`. Commits the offset of the oldest
    /// kept checkpoint on the bus. Returns the size in bytes; 0 if there is a checkpoint of this offset already.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written or the bus cannot commit.
    pub fn write(
        &mut self,
        offset: u64,
        complete_from_ms: i64,
        lake_offset: Option<u64>,
        bus: &dyn Bus,
        tenants: &Tenants,
    ) -> Result<u64, Error> {
        if self.offsets.last() == Some(&offset) {
            return Ok(0);
        }
        let all = tenants.all();
        let mut positions = Vec::new();
        for (id, tenant) in &all {
            let known = tenant.detectors().engine.known_series();
            self.flush_blocks(id, &mut tenant.live_state())?;
            // The tenant is not locked during disk I/O.
            let journal = self.journal(id)?;
            let new_series: Vec<_> = tenant
                .registry()
                .labels_from(journal.series_count())
                .iter()
                .take(known - journal.series_count())
                .cloned()
                .collect();
            journal.append_series(&new_series)?;
            positions.push(journal.sync()?);
        }
        let new_path = self.dir.join("new");
        let mut out = ChecksummedWriter::create(&new_path)?;
        out.write_all(&MAGIC)?;
        out.write_all(&[FORMAT_VERSION])?;
        let settings_digest = self.settings_digest.clone();
        let header = Header { offset, settings_digest, complete_from_ms, lake_offset, tenants: positions };
        postcard::to_io(&header, &mut out)?;
        for (_, tenant) in &all {
            let detectors = tenant.detectors();
            detectors.engine.save(&mut out)?;
            let live = tenant.live_state();
            live.recent.save(&mut out)?;
            let metadata: Vec<_> = live
                .metadata
                .values()
                .map(|family| (&family.family, family.kind, &family.help, &family.unit))
                .collect();
            let state =
                (detectors.correlator.save(), &live.exemplars, &live.native_newest_ms, metadata, &live.lake_series_ids);
            postcard::to_io(&state, &mut out)?;
        }
        let size = out.finish()?;
        std::fs::rename(&new_path, self.path(offset))?;
        File::open(&self.dir)?.sync_all()?;
        self.offsets.push(offset);
        self.renumbered = false;
        while self.offsets.len() > MAX_CHECKPOINTS {
            let oldest = self.offsets.remove(0);
            std::fs::remove_file(self.path(oldest))?;
        }
        // The older checkpoint is the fallback, so the bus has to retain the records since then.
        if let Some(oldest) = self.offsets.first() {
            bus.commit(consumer_groups::DETECT, *oldest).map_err(|error| Error::Io(std::io::Error::other(error)))?;
        }
        Ok(size)
    }

    fn journal(&mut self, tenant: &TenantId) -> Result<&mut Journal, Error> {
        let index = match self.journals.iter().position(|journal| journal.tenant() == tenant) {
            Some(index) => index,
            None => {
                self.journals.push(Journal::create(
                    &self.dir,
                    tenant,
                    wardroom_head::STREAM_START,
                    self.live_window_ms,
                )?);
                self.journals.len() - 1
            }
        };
        Ok(&mut self.journals[index])
    }

    fn load(
        &mut self,
        offset: u64,
        config: &Config,
        tenants: &Tenants,
        lake_offset: Option<u64>,
    ) -> Result<ResumePoint, Error> {
        let bytes = std::fs::read(self.path(offset))?;
        let damaged = |what: &str| Error::Damaged(what.to_owned());
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged("truncated"))?;
        let rest = body.strip_prefix(&MAGIC).ok_or_else(|| damaged("wrong magic number"))?;
        let (version, rest) = rest.split_first().ok_or_else(|| damaged("truncated"))?;
        if *version != FORMAT_VERSION {
            return Err(Error::UnsupportedVersion(*version));
        }
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(damaged("wrong checksum"));
        }
        let (header, mut rest): (Header, _) = postcard::take_from_bytes(rest)?;
        if header.settings_digest != self.settings_digest || header.offset != offset {
            return Err(Error::SettingsChanged);
        }
        let is_behind = |wanted: &u64| config.lake.enabled && lake_offset.is_none_or(|found| found < *wanted);
        if let Some(wanted) = header.lake_offset.filter(is_behind) {
            return Err(Error::LakeBehind { found: lake_offset, wanted });
        }
        let (mut journals, mut loaded) = (Vec::new(), Vec::new());
        for position in &header.tenants {
            let (journal, labels) = Journal::load(&self.dir, position, self.live_window_ms)?;
            let (engine, after) = Engine::load(config.detect.clone(), config.catalog.clone(), &labels, rest)?;
            let (mut recent, after) = RecentSamples::load(after)?;
            recent.truncate_before(journal.retained().0, journal.dropped_ms());
            let sealed = journal.block_reader();
            let (saved, after) = postcard::take_from_bytes(after)?;
            rest = after;
            let (correlator, exemplars, native_newest_ms, metadata, lake_series_ids): (_, _, _, Vec<[String; 4]>, _) =
                saved;
            let metadata = metadata.into_iter().map(|[family, kind, help, unit]| {
                let kind = MetricMetadata::KINDS.iter().find(|known| **known == kind).copied().unwrap_or("unknown");
                (family.clone(), MetricMetadata { family, kind, help, unit })
            });
            let correlator = Correlator::load(config.correlate.clone(), position.tenant.clone(), correlator);
            let (generation, evicted) = (journal.generation(), journal.evicted_series()?);
            let in_lake = is_stored_in_lake(config, &position.tenant);
            recent.enable_flushing(in_lake);
            let lake_committed_address = if in_lake { recent.flushed_position() } else { u64::MAX };
            let live = LiveState {
                recent,
                newest_ms: engine.watermark_ms(),
                sealed,
                lake_committed_address,
                lake_series_ids,
                generation,
                evicted,
                exemplars,
                native_newest_ms,
                metadata: Arc::new(metadata.collect()),
            };
            let registry = SeriesRegistry::load(config.head.clone(), config.series_names(), &labels, generation);
            let tenant = Tenant::from_parts(registry, Detectors { engine, correlator }, live);
            loaded.push((position.tenant.clone(), tenant));
            journals.push(journal);
        }
        self.journals = journals;
        loaded.into_iter().for_each(|(id, tenant)| tenants.insert(id, tenant));
        Ok(ResumePoint { offset, complete_from_ms: header.complete_from_ms, lake_offset: header.lake_offset })
    }

    fn path(&self, offset: u64) -> PathBuf {
        self.dir.join(format!("{offset:020}.state"))
    }
}

/// Returns the offset of the newest checkpoint in a folder; `None` without one, and if there is no such folder.
///
/// # Errors
/// Returns an error if the folder cannot be read.
pub fn newest_offset(dir: &Path) -> std::io::Result<Option<u64>> {
    Ok(if dir.is_dir() { list_offsets(dir)?.pop() } else { None })
}

/// Returns the offsets of the checkpoints in a folder, ascending.
fn list_offsets(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        found.extend(
            name.to_str().and_then(|name| name.strip_suffix(".state")).and_then(|stem| stem.parse::<u64>().ok()),
        );
    }
    found.sort_unstable();
    Ok(found)
}
