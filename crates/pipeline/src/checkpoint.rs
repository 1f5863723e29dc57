//! Checkpoints of detection (decision D8): a restart goes on where the last one was taken, and reads only what
//! came after it from the bus.
//!
//! ```text
//! checkpoint/000…42.state   offset, and all that changes with every sample; the two newest are kept
//! checkpoint/t-main/series-0.log label sets in the order of their ids; only grows, until many have left
//! checkpoint/t-main/retired-1.log those that left, with the times of their first and last sample
//! checkpoint/t-main/blocks-7.log sealed blocks of samples, read from there; dropped once they are older than the
//!                                live hours
//! ```
//!
//! What only grows is written once, as it comes; what changes is written whole, straight into a new file that
//! takes its name when it is on the disk. Every part has a checksum. A checkpoint that is damaged, of another
//! version, or taken under other rules of detection is passed over for the one before it, and without one the
//! bus is read again as far as it reaches back: slower, and never wrong.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wardroom_bus::Bus;
use wardroom_correlate::Correlator;
use wardroom_detect::Engine;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{MetricMetadata, SeriesId, TenantId};
use wardroom_head::{Recent, Registry};
use wardroom_store::{Checked, Journal, JournalError, Left, Mark};

use crate::config::Config;
use crate::metrics as names;
use crate::poison::GROUP;
use crate::tenants::{Live, Tenant, Tenants, kept, stay};

const MAGIC: [u8; 4] = *b"WRDC";
const VERSION: u8 = 3;
/// Checkpoints that are kept.
const KEPT: usize = 2;
/// So few series that left are not worth numbering the others anew.
const FEW: usize = 1000;
/// Sealed blocks that wait in memory for the journal, in bytes.
const WAITING: usize = 1 << 20;

/// Why a checkpoint could not be taken or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What only grows.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It is not whole, or not of this kind.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(String),
    /// A newer version wrote it.
    #[error("format version {0} is unknown to this build; the bus is read again instead")]
    Version(u8),
    /// The lake lacks what the state relies on.
    #[error("the lake ends at {found:?}, and the checkpoint relies on {wanted}")]
    Lake {
        /// Where the lake ends.
        found: Option<u64>,
        /// Where it should.
        wanted: u64,
    },
    /// Its state means something else now.
    #[error("it was taken under other settings of detection, entities or live series")]
    OtherRules,
}

impl From<postcard::Error> for Error {
    fn from(error: postcard::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// What stands first in a checkpoint.
#[derive(Serialize, Deserialize)]
struct Head {
    offset: u64,
    rules: String,
    covered_ms: i64,
    /// Everything before it was in the lake.
    lake: Option<u64>,
    tenants: Vec<Mark>,
}

/// The checkpoints of a data folder.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    rules: String,
    /// The live hours, in ms.
    useful_ms: i64,
    journals: Vec<Journal>,
    /// Offsets of those on disk, ascending.
    taken: Vec<u64>,
    /// Series were numbered anew, and no checkpoint knows it yet.
    renumbered: bool,
}

/// Where detection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The next offset of the bus.
    pub offset: u64,
    /// From when on the state holds every sample, in ms.
    pub covered_ms: i64,
    /// Everything before it was in the lake when the checkpoint was taken.
    pub lake: Option<u64>,
}

impl Checkpoints {
    /// Opens the folder and puts the newest usable state in force. The bus holds these offsets, and the lake ends at `lake`.
    pub fn open(
        dir: &Path,
        config: &Config,
        held: RangeInclusive<u64>,
        tenants: &Tenants,
        lake: Option<u64>,
    ) -> Result<(Self, Option<Resumed>), Error> {
        std::fs::create_dir_all(dir)?;
        let settings = (&config.detect, &config.entities, &config.correlate, config.head.recent_minutes);
        let useful_ms = i64::from(config.head.recent_minutes) * 60_000;
        let settings = serde_json::to_vec(&settings).map_err(std::io::Error::from)?;
        let mut this = Self {
            dir: dir.to_owned(),
            rules: sha256_hex(&settings),
            useful_ms,
            journals: Vec::new(),
            taken: list(dir)?,
            renumbered: false,
        };
        for offset in this.taken.clone().into_iter().rev() {
            if held.contains(&offset) {
                match this.load(offset, config, tenants, lake) {
                    Ok(resumed) => return Ok((this, Some(resumed))),
                    Err(error) => tracing::warn!(offset, %error, "checkpoint passed over"),
                }
            }
            std::fs::remove_file(this.path(offset))?;
            this.taken.retain(|taken| *taken != offset);
        }
        // Without a state the journals are about nothing.
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok((this, None))
    }

    /// Writes sealed blocks out when enough of them wait.
    pub fn drain(&mut self, tenant: &TenantId, live: &mut Live) -> Result<(), Error> {
        if live.recent.pending().1.len() < WAITING {
            return Ok(());
        }
        self.keep(tenant, live)
    }

    /// Writes the sealed blocks of a tenant out; those that cannot be written wait for the next time.
    pub fn keep(&mut self, tenant: &TenantId, live: &mut Live) -> Result<(), Error> {
        let newest_ms = live.engine.watermark_ms();
        let ((address, blocks), journal) = (live.recent.pending(), self.journal(tenant)?);
        if blocks.is_empty() {
            return Ok(());
        }
        if journal.kept().1 != address {
            return Err(Error::Damaged(format!("the stream ends at {}, and {address} comes next", journal.kept().1)));
        }
        journal.blocks(blocks, newest_ms, live.needed)?;
        live.recent.flushed();
        live.recent.forget(journal.kept().0, journal.dropped_ms());
        live.sealed = journal.stream();
        Ok(())
    }

    /// Takes series out of memory that nobody has written for the live hours, once they are many. They are found on
    /// disk then, and their samples on the bus.
    pub fn retire(&mut self, config: &Config, tenants: &Tenants) -> Result<(), Error> {
        if self.renumbered {
            return Ok(());
        }
        for (id, tenant) in tenants.all() {
            let live = &mut *tenant.live();
            let now_ms = live.engine.watermark_ms();
            let idle_ms = now_ms.saturating_sub(self.useful_ms);
            let span = |at: u32| {
                let native = live.native.get(&SeriesId(at)).map(|newest| (*newest, *newest));
                let floats = live.recent.span_ms(SeriesId(at));
                floats.into_iter().chain(native).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
            };
            let spans: Vec<_> = (0..live.engine.known_series() as u32).map(span).collect();
            let uncut = live.recent.uncut();
            let stays = |(at, span): (usize, &Option<(i64, i64)>)| {
                span.is_none_or(|(_, last)| last >= idle_ms) || uncut.get(at).copied().unwrap_or_default()
            };
            let keep: Vec<bool> = spans.iter().enumerate().map(stays).collect();
            let leaving = keep.iter().filter(|keep| !**keep).count();
            if leaving < FEW || leaving * 8 < keep.len() {
                continue;
            }
            let (staying, left) = {
                let registry = tenant.registry();
                let all = registry.since(0).iter().zip(&spans).zip(&keep).filter(|(_, keep)| !**keep);
                let left = all.filter_map(|((labels, span), _)| {
                    span.map(|(first_ms, last_ms)| Left { labels: labels.clone(), first_ms, last_ms })
                });
                (stay(registry.since(0), &keep), left.collect())
            };
            let forget_ms = now_ms.saturating_sub(config.bus.retention_hours as i64 * 3_600_000);
            let journal = self.journal(&id)?;
            let retired = journal.renumber(&staying, left, forget_ms)?;
            tenant.renumber(live, &keep, config, retired);
            self.renumbered = true;
            metrics::counter!(names::SERIES_RETIRED_TOTAL).increment(leaving as u64);
        }
        Ok(())
    }

    /// Takes one: everything below `offset` is in the state of the tenants.
    pub fn take(
        &mut self,
        offset: u64,
        covered_ms: i64,
        lake: Option<u64>,
        bus: &dyn Bus,
        tenants: &Tenants,
    ) -> Result<u64, Error> {
        if self.taken.last() == Some(&offset) {
            return Ok(0);
        }
        let all = tenants.all();
        let mut marks = Vec::new();
        for (id, tenant) in &all {
            let known = {
                let live = &mut *tenant.live();
                self.keep(id, live)?;
                live.engine.known_series()
            };
            // Whoever reads the tenant does not wait for the disk.
            let journal = self.journal(id)?;
            let fresh: Vec<_> =
                tenant.registry().since(journal.known()).iter().take(known - journal.known()).cloned().collect();
            journal.series(&fresh)?;
            marks.push(journal.mark()?);
        }
        let fresh = self.dir.join("new");
        let mut out = Checked::create(&fresh)?;
        out.write_all(&MAGIC)?;
        out.write_all(&[VERSION])?;
        let head = Head { offset, rules: self.rules.clone(), covered_ms, lake, tenants: marks };
        postcard::to_io(&head, &mut out)?;
        for (_, tenant) in &all {
            let live = tenant.live();
            live.engine.save(&mut out)?;
            live.recent.save(&mut out)?;
            let metadata: Vec<_> =
                live.metadata.values().map(|said| (&said.family, said.kind, &said.help, &said.unit)).collect();
            let rest = (live.correlator.save(), &live.exemplars, &live.native, metadata, &live.numbers);
            postcard::to_io(&rest, &mut out)?;
        }
        let size = out.finish()?;
        std::fs::rename(&fresh, self.path(offset))?;
        File::open(&self.dir)?.sync_all()?;
        self.taken.push(offset);
        self.renumbered = false;
        while self.taken.len() > KEPT {
            let oldest = self.taken.remove(0);
            std::fs::remove_file(self.path(oldest))?;
        }
        // The older one may be needed yet, and the bus from there on.
        if let Some(oldest) = self.taken.first() {
            bus.commit(GROUP, *oldest).map_err(|error| Error::Io(std::io::Error::other(error)))?;
        }
        Ok(size)
    }

    fn journal(&mut self, tenant: &TenantId) -> Result<&mut Journal, Error> {
        let at = match self.journals.iter().position(|journal| journal.tenant() == tenant) {
            Some(at) => at,
            None => {
                self.journals.push(Journal::create(&self.dir, tenant, wardroom_head::START, self.useful_ms)?);
                self.journals.len() - 1
            }
        };
        Ok(&mut self.journals[at])
    }

    fn load(&mut self, offset: u64, config: &Config, tenants: &Tenants, lake: Option<u64>) -> Result<Resumed, Error> {
        let bytes = std::fs::read(self.path(offset))?;
        let damaged = |what: &str| Error::Damaged(what.to_owned());
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged("cut short"))?;
        let rest = body.strip_prefix(&MAGIC).ok_or_else(|| damaged("no magic"))?;
        let (version, rest) = rest.split_first().ok_or_else(|| damaged("cut short"))?;
        if *version != VERSION {
            return Err(Error::Version(*version));
        }
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(damaged("checksum"));
        }
        let (head, mut rest): (Head, _) = postcard::take_from_bytes(rest)?;
        if head.rules != self.rules || head.offset != offset {
            return Err(Error::OtherRules);
        }
        if let Some(wanted) = head.lake.filter(|wanted| config.lake.enabled && lake.is_none_or(|found| found < *wanted))
        {
            return Err(Error::Lake { found: lake, wanted });
        }
        let (mut journals, mut loaded) = (Vec::new(), Vec::new());
        for mark in &head.tenants {
            let (journal, labels) = Journal::load(&self.dir, mark, self.useful_ms)?;
            let (engine, after) = Engine::load(config.detect.clone(), config.entities.clone(), &labels, rest)?;
            let (mut recent, after) = Recent::load(after)?;
            recent.forget(journal.kept().0, journal.dropped_ms());
            let sealed = journal.stream();
            let (saved, after) = postcard::take_from_bytes(after)?;
            rest = after;
            let (correlator, exemplars, native, metadata, numbers): (_, _, _, Vec<[String; 4]>, _) = saved;
            let said = metadata.into_iter().map(|[family, kind, help, unit]| {
                let kind = MetricMetadata::KINDS.iter().find(|known| **known == kind).copied().unwrap_or("unknown");
                (family.clone(), MetricMetadata { family, kind, help, unit })
            });
            let correlator = Correlator::load(config.correlate.clone(), mark.tenant.clone(), correlator);
            let (generation, retired) = (journal.generation(), journal.retired()?);
            let kept = kept(config, &mark.tenant);
            recent.gather(kept);
            let needed = if kept { recent.cut_at() } else { u64::MAX };
            let live = Live {
                recent,
                sealed,
                needed,
                numbers,
                generation,
                retired,
                exemplars,
                native,
                metadata: said.collect(),
                engine,
                correlator,
            };
            loaded.push((
                mark.tenant.clone(),
                Tenant::resumed(Registry::load(config.head.clone(), &labels, generation), live),
            ));
            journals.push(journal);
        }
        self.journals = journals;
        loaded.into_iter().for_each(|(id, tenant)| tenants.put(id, tenant));
        Ok(Resumed { offset, covered_ms: head.covered_ms, lake: head.lake })
    }

    fn path(&self, offset: u64) -> PathBuf {
        self.dir.join(format!("{offset:020}.state"))
    }
}

/// Offsets of the checkpoints in a folder, ascending.
fn list(dir: &Path) -> std::io::Result<Vec<u64>> {
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
