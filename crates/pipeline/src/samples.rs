//! Raw samples of everything that is retained: from the live series where they hold all that is asked for, else from the
//! tables and, from where these end, the bus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wardroom_api::{ExemplarsView, SeriesView};
use wardroom_bus::Bus;
use wardroom_domain::query::{LOOKBACK_MS, SeriesQuery};
use wardroom_domain::{Exemplar, Labels, NativeHistogram, Sample, SeriesId, TenantId, Timestamp};
use wardroom_edge::{InflateBudget, Problem};
use wardroom_head::{Part, Registry};
use wardroom_lake::Lake;
use wardroom_store::Left;

use crate::config::Config;
use crate::events;
use crate::keep::{Kept, Tables};
use crate::tenants::{Live, Tenants};
use wardroom_process::clock;

/// Samples that one page holds, about.
const PAGE: usize = 50_000;
/// Samples that one question by steps may have behind it.
const MOST: usize = 5_000_000;
/// Marks a cursor that counts live series.
const BY_SERIES: u64 = 1 << 63;
/// Marks a cursor that counts series of the tables, with the end of the offset at which the tables ended when the first page
/// was asked for; cursors without a mark are offsets of the bus.
const IN_TABLES: u64 = 1 << 62;
/// Marks one that counts minutes of native histograms, the first that is left, with that end as well.
const IN_HISTOGRAMS: u64 = 1 << 61;
/// Bits of that end.
const END_BITS: u32 = 30;
const MINUTE_MS: i64 = 60_000;
/// Exemplars that one answer may hold.
const EXEMPLARS: usize = 100_000;
/// Series that are looked at in one go.
const TURN: usize = 256;
/// Records that detection may be behind for the live series to be asked.
const LAG: u64 = 1024;

/// Where samples are looked for.
#[derive(Clone)]
pub struct Samples {
    /// What is not in the tables yet.
    pub bus: Arc<dyn Bus>,
    /// What decoding may take.
    pub budget: InflateBudget,
    /// The live series.
    pub tenants: Arc<Tenants>,
    /// The offset up to which the live series are complete.
    pub next: Arc<AtomicU64>,
    /// What is older.
    pub kept: Kept,
    /// How long series that left are remembered.
    pub remembered: Duration,
}

impl Samples {
    /// One page, and the cursor of the next. What is asked for by steps comes in one piece.
    pub fn page(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        cursor: u64,
    ) -> Result<(Vec<SeriesView>, Option<u64>), Problem> {
        if query.step_ms.is_none() {
            let (found, next) = self.raw(tenant, query, cursor)?;
            return Ok((view(found), next));
        }
        let start = Timestamp::from_millis(query.start.millis().saturating_sub(LOOKBACK_MS));
        let raw = SeriesQuery { start, ..query.clone() };
        let (mut all, mut held, mut from) = (Found::new(), 0, Some(0));
        while let Some(next) = from {
            let (found, after) = self.raw(tenant, &raw, next)?;
            for (labels, more) in found {
                held += more.samples.len();
                all.entry(labels).or_default().samples.extend(more.samples);
            }
            if held > MOST {
                let detail =
                    format!("more than {MOST} samples lie behind these steps; ask for fewer series or less time");
                return Err(Problem::bad_request("too_many_samples", detail));
            }
            from = after;
        }
        for held in all.values_mut() {
            // From the bus they come as they were sent.
            held.samples.sort_by_key(|sample| sample.ts_ms);
            held.samples = query.at_steps(&held.samples);
        }
        Ok((view(all), None))
    }

    fn raw(&self, tenant: &TenantId, query: &SeriesQuery, cursor: u64) -> Result<(Found, Option<u64>), Problem> {
        let mut offset = cursor;
        if cursor == 0 || cursor & BY_SERIES != 0 {
            if let Some(found) = self.live_page(tenant, query, cursor).map_err(storage)? {
                return Ok(found);
            }
            // It counted series; the tables and the bus have all of them from their beginning.
            offset = 0;
        }
        let (mut found, offset) = match self.stored(tenant, query, offset)? {
            Some((found, next)) if next & (IN_TABLES | IN_HISTOGRAMS) != 0 => return Ok((found, Some(next))),
            // What came since stands on the same page, for whoever reads only one.
            Some(stored) => stored,
            None => (Found::new(), offset),
        };
        let read = |from: u64, limit: usize| self.bus.read(from.max(self.bus.start()), limit);
        let (more, next) = page(&read, &self.budget, tenant, query, offset).map_err(storage)?;
        more.into_iter().for_each(|(labels, more)| found.entry(labels).or_default().extend(more));
        Ok((found, next))
    }

    /// Refuses a question that only the tables can answer in full.
    fn not_away(&self) -> Result<(), Problem> {
        self.kept.away().map_or(Ok(()), |why| Err(Problem::unavailable("lake_unavailable", why)))
    }

    /// From the tables, with the cursor of what comes next: there, or where they end on the bus. `None` if all of it, or the
    /// rest, stands on the bus.
    fn stored(&self, tenant: &TenantId, query: &SeriesQuery, cursor: u64) -> Result<Option<(Found, u64)>, Problem> {
        self.not_away()?;
        let Some(tables) = self.kept.tables() else { return Ok(None) };
        let reached = tables.progress.reached();
        let low = (1 << END_BITS) - 1;
        let before = match cursor {
            0 => reached,
            // The tables went on since, by less than would fill these bits.
            cursor if cursor & (IN_TABLES | IN_HISTOGRAMS) != 0 => {
                let end = (reached & !low) | (cursor & low);
                if end > reached { end - low - 1 } else { end }
            }
            _ => return Ok(None),
        };
        if before == 0 {
            return Ok(None);
        }
        let (place, mut found) = ((cursor & !(IN_TABLES | IN_HISTOGRAMS)) >> END_BITS, Found::new());
        let mut minute = i64::try_from(place).unwrap_or(i64::MAX);
        if cursor & IN_HISTOGRAMS == 0 {
            let asked = tables.lake.samples(tenant, query, (minute, before), PAGE);
            let page = tokio::runtime::Handle::current().block_on(asked).map_err(storage)?;
            let held = |(labels, samples)| (labels, Held { samples, histograms: Vec::new() });
            found.extend(page.series.into_iter().map(held));
            if let Some(next) = page.next.and_then(|next| u64::try_from(next).ok()) {
                return Ok(Some((found, IN_TABLES | next << END_BITS | before & low)));
            }
            minute = 0;
        }
        // By steps only samples are asked for.
        if query.step_ms.is_some() {
            return Ok(Some((found, before)));
        }
        let next = self.histograms(tables, tenant, query, (minute, before), &mut found)?;
        let next = next.map_or(before, |minute| IN_HISTOGRAMS | minute << END_BITS | before & low);
        Ok(Some((found, next)))
    }

    /// Native histograms that came before an offset of the bus: those of the tables from a minute on, with the minute at which
    /// the next page begins; with the last of them what the tables have yet to get.
    fn histograms(
        &self,
        tables: &Tables,
        tenant: &TenantId,
        query: &SeriesQuery,
        (minute, before): (i64, u64),
        found: &mut Found,
    ) -> Result<Option<u64>, Problem> {
        let runtime = tokio::runtime::Handle::current();
        let start = query.start.millis().max(minute.saturating_mul(MINUTE_MS));
        let rest = SeriesQuery { start: Timestamp::from_millis(start), ..query.clone() };
        // Asked first: what comes to the tables meanwhile is looked at twice, not overlooked.
        let mut shown = tables.events.reached().max(runtime.block_on(tables.lake.events_shown()));
        let kept = runtime.block_on(tables.lake.histograms(tenant, &rest, shown.min(before))).map_err(storage)?;
        for (labels, histogram) in kept.found {
            found.entry(labels).or_default().histograms.push(histogram);
        }
        if let Some(next_ms) = kept.next_ms {
            return Ok(u64::try_from(next_ms / MINUTE_MS).ok());
        }
        while shown < before {
            let read = |from: u64, limit: usize| {
                let left = usize::try_from(before.saturating_sub(from)).unwrap_or(limit);
                self.bus.read(from.max(self.bus.start()), limit.min(left))
            };
            let (more, next) = page(&read, &self.budget, tenant, query, shown).map_err(storage)?;
            for (labels, held) in more.into_iter().filter(|(_, held)| !held.histograms.is_empty()) {
                found.entry(labels).or_default().histograms.extend(held.histograms);
            }
            shown = next.unwrap_or(before);
        }
        Ok(None)
    }

    /// The series that are asked for and have samples in that time, those that left memory too.
    pub fn series(&self, tenant: &TenantId, query: &SeriesQuery) -> Result<Vec<Labels>, Problem> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let overlaps = |first_ms: i64, last_ms: i64| first_ms <= end_ms && last_ms >= start_ms;
        let (mut found, retired) = self.selected(tenant, query, |live, ids, labels| {
            let within = |id: &SeriesId| {
                let floats = live.recent.span_ms(*id).is_some_and(|(first, last)| overlaps(first, last));
                floats || live.native.contains_key(id)
            };
            let here = ids.iter().zip(labels).filter(|(id, _)| within(id)).map(|(_, labels)| labels);
            (here.collect::<Vec<_>>(), live.retired.clone())
        });
        if retired.newest_ms() < start_ms {
            return Ok(found);
        }
        let left = retired.read().map_err(storage)?;
        let known: BTreeSet<Labels> = found.iter().cloned().collect();
        let fits = |left: &Left| overlaps(left.first_ms, left.last_ms) && query.selects(&left.labels);
        let left: BTreeSet<Labels> = left.into_iter().filter(fits).map(|left| left.labels).collect();
        found.extend(left.difference(&known).cloned());
        Ok(found)
    }

    /// Works with the series that a query selects, under their ids of this moment.
    fn selected<T>(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        work: impl Fn(&mut Live, &[SeriesId], Vec<Labels>) -> T,
    ) -> T {
        loop {
            let (ids, labels, generation) = select(&self.tenants.get(tenant).registry(), query, 0);
            // Between the two locks the series may be numbered anew: seldom, and not twice in a row.
            let same = |live: &mut Live| (live.generation == generation).then(|| work(live, &ids, labels));
            if let Some(found) = self.tenants.with(tenant, same) {
                return found;
            }
        }
    }

    /// The exemplars of the series that are asked for: those in the tables, and the newest.
    pub fn exemplars(&self, tenant: &TenantId, query: &SeriesQuery) -> Result<Vec<ExemplarsView>, Problem> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let live = self.selected(tenant, query, |live, ids, labels| {
            let named: BTreeMap<SeriesId, Labels> = ids.iter().copied().zip(labels).collect();
            let found = live.exemplars.select(&named.keys().copied().collect(), start_ms, end_ms);
            let named = |(id, exemplars)| Some((named.get(&id)?.clone(), exemplars));
            found.into_iter().filter_map(named).collect::<Vec<(Labels, Vec<Exemplar>)>>()
        });
        // What stands in both counts once.
        let mut found: BTreeMap<Labels, BTreeMap<(i64, Labels, u64), Exemplar>> = BTreeMap::new();
        let mut note = |series: &Labels, exemplar: Exemplar| {
            let key = (exemplar.ts_ms, exemplar.labels.clone(), exemplar.value.to_bits());
            found.entry(series.clone()).or_default().insert(key, exemplar);
        };
        self.not_away()?;
        if let Some(tables) = self.kept.tables() {
            let stored = tables.lake.exemplars(tenant, query, EXEMPLARS + 1);
            let stored = tokio::runtime::Handle::current().block_on(stored).map_err(storage)?;
            if stored.len() > EXEMPLARS {
                let detail = format!("more than {EXEMPLARS} exemplars; ask for fewer series or less time");
                return Err(Problem::bad_request("too_many_exemplars", detail));
            }
            stored.into_iter().for_each(|(series, exemplar)| note(&series, exemplar));
        }
        for (series, exemplars) in live {
            exemplars.into_iter().for_each(|exemplar| note(&series, exemplar));
        }
        Ok(found.into_iter().map(|(series, all)| ExemplarsView::new(series, all.into_values().collect())).collect())
    }

    /// From the live series; `None` if they do not hold all of it.
    fn live_page(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        cursor: u64,
    ) -> Result<Option<(Found, Option<u64>)>, wardroom_bus::Error> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let reached = self.next.load(Ordering::Acquire);
        let lag = self.bus.end().saturating_sub(reached);
        // Series that left longer ago than that are not even known to have been.
        let known_ms = clock::now().minus(self.remembered).millis();
        if start_ms < self.tenants.covered_ms.load(Ordering::Acquire).max(known_ms) || lag > LAG {
            return Ok(None);
        }
        let state = self.tenants.get(tenant);
        let (ids, labels, generation, known) = {
            let registry = state.registry();
            let (ids, labels, generation) = select(&registry, query, cursor & u64::from(u32::MAX));
            (ids, labels, generation, registry.since(0).len())
        };
        let numbering = (generation << 32) & !BY_SERIES;
        if cursor != 0 && cursor & !BY_SERIES & !u64::from(u32::MAX) != numbering {
            return Ok(None);
        }
        let (mut found, mut held, mut next) = (Found::new(), 0, None);
        // Detection waits while its series are looked at, so not for the disk; and in turns.
        let mut asked = ids.iter().zip(labels);
        while next.is_none() {
            let some: Vec<_> = asked.by_ref().take(TURN).collect();
            if some.is_empty() {
                break;
            }
            let parts = self.tenants.with(tenant, |live| {
                let whole = |id: &SeriesId| {
                    let here = live.recent.complete_from_ms(*id) <= start_ms && !live.native.contains_key(id);
                    here.then(|| live.recent.part(*id, start_ms, end_ms))
                };
                if live.generation != generation || live.retired.newest_ms() >= start_ms {
                    return None;
                }
                let parts: Option<Vec<Part>> = some.iter().map(|(id, _)| whole(id)).collect();
                parts.map(|parts| (parts, live.sealed.clone()))
            });
            let Some((parts, sealed)) = parts else { return Ok(None) };
            for ((id, labels), part) in some.into_iter().zip(parts) {
                if held >= PAGE {
                    next = Some(BY_SERIES | numbering | u64::from(id.0));
                    break;
                }
                // What cannot be read here stands on the bus.
                let read = part.whole(&|address, buffer| sealed.read(address, buffer));
                let Some(samples) = read else { return Ok(None) };
                held += samples.len();
                found.insert(labels, Held { samples, histograms: Vec::new() });
            }
        }
        // What was acknowledged and has not been through detection yet.
        let read = |from: u64, limit: usize| self.bus.read(from, limit);
        let mut from = (lag > 0).then_some(reached);
        while let Some(at) = from {
            let (fresh, after) = page(&read, &self.budget, tenant, query, at)?;
            for (labels, held) in fresh {
                // Series of another page get theirs there; one that nobody knew comes with the last.
                let elsewhere = state.registry().find(&labels).is_some_and(|id| id.index() < known) || next.is_some();
                if !elsewhere || found.contains_key(&labels) {
                    found.entry(labels).or_default().extend(held);
                }
            }
            from = after;
        }
        Ok(Some((found, next)))
    }
}

fn storage(error: impl std::fmt::Display) -> Problem {
    Problem::unavailable("storage_unavailable", error.to_string())
}

/// The series a query selects, from this id on, with their labels, and in which numbering.
fn select(registry: &Registry, query: &SeriesQuery, from: u64) -> (Vec<SeriesId>, Vec<Labels>, u64) {
    let mut ids: Vec<SeriesId> = query.selectors.iter().flat_map(|all| registry.select(all)).collect();
    if query.selectors.is_empty() {
        ids = registry.select(&[]);
    }
    ids.sort_unstable();
    ids.dedup();
    ids.retain(|id| u64::from(id.0) >= from);
    let labels = ids.iter().filter_map(|id| registry.labels(*id)).cloned().collect();
    (ids, labels, registry.generation())
}

type Read<'a> = dyn Fn(u64, usize) -> Result<Vec<wardroom_bus::Record>, wardroom_bus::Error> + 'a;
type Found = BTreeMap<Labels, Held>;

/// What was found of one series.
#[derive(Default)]
struct Held {
    samples: Vec<Sample>,
    histograms: Vec<NativeHistogram>,
}

impl Held {
    fn extend(&mut self, more: Self) {
        self.samples.extend(more.samples);
        self.histograms.extend(more.histograms);
    }
}

fn page(
    read: &Read<'_>,
    budget: &InflateBudget,
    tenant: &TenantId,
    query: &SeriesQuery,
    from: u64,
) -> Result<(Found, Option<u64>), wardroom_bus::Error> {
    let mut found = Found::new();
    // The same series come in every request; their labels are read once.
    let mut selected: BTreeMap<u128, Option<Labels>> = BTreeMap::new();
    let (mut held, mut next) = (0, from);
    while held < PAGE {
        let records = read(next, 256)?;
        let Some(last) = records.last() else { return Ok((found, None)) };
        next = last.offset + 1;
        for record in records.iter().filter(|record| record.envelope.tenant == *tenant) {
            let decoded = match wardroom_sources::replay(&record.envelope, &record.body, budget) {
                Ok(decoded) => decoded,
                Err(error) => {
                    tracing::error!(offset = record.offset, %error, "bus record cannot be decoded");
                    continue;
                }
            };
            let (start, end) = (query.start.millis(), query.end.millis());
            for (at, samples) in decoded.metrics.iter() {
                let metrics = &decoded.metrics;
                let read = || metrics.labels(at).ok().filter(|labels| query.selects(labels));
                let labels = selected.entry(metrics.keys()[at]).or_insert_with(read);
                if let Some(labels) = labels {
                    let samples = samples.iter().filter(|sample| (start..=end).contains(&sample.ts_ms));
                    let list = &mut found.entry(labels.clone()).or_default().samples;
                    let before = list.len();
                    list.extend(samples);
                    held += list.len() - before;
                }
            }
            let within = |histogram: &NativeHistogram| (start..=end).contains(&histogram.ts_ms);
            for (at, histogram) in decoded.metrics.histograms().iter().filter(|(_, histogram)| within(histogram)) {
                let labels = selected.get(&decoded.metrics.keys()[*at as usize]);
                if let Some(Some(labels)) = labels {
                    found.entry(labels.clone()).or_default().histograms.push(histogram.clone());
                    held += histogram.positive.counts.len();
                }
            }
        }
    }
    Ok((found, Some(next)))
}

/// Why a data folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The bus.
    #[error(transparent)]
    Bus(#[from] wardroom_bus::Error),
    /// The tables.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
}

/// Every retained sample of a data folder that no server holds open, or that one holds: tables and bus are
/// only read.
///
/// # Errors
/// They cannot be read.
pub async fn dump(
    config: &Config,
    data: &std::path::Path,
    tenant: &TenantId,
    query: &SeriesQuery,
) -> Result<Vec<SeriesView>, DumpError> {
    let bus = wardroom_bus::ReadOnlyBus::open(&data.join("bus"))?;
    let budget = InflateBudget::new(config.edge.inflate_budget_bytes, config.edge.max_inflated_bytes);
    let (mut all, mut from) = (Vec::new(), Some(0));
    if let Some(lake) = Lake::look_at_series(&config.lake, data).await? {
        let (mut place, before) = (Some(0), lake.reached().await?.unwrap_or_default());
        while let Some(next) = place {
            let page = lake.samples(tenant, query, (next, before), PAGE).await?;
            all.extend(page.series.into_iter().map(|(labels, samples)| SeriesView::new(labels, samples, &[])));
            place = page.next;
        }
        let (mut rest, mut more) = (query.clone(), true);
        while more {
            let page = lake.histograms(tenant, &rest, u64::MAX).await?;
            all.extend(
                page.found.into_iter().map(|(labels, histogram)| SeriesView::new(labels, Vec::new(), &[histogram])),
            );
            more = page.next_ms.is_some();
            rest.start = page.next_ms.map_or(rest.start, Timestamp::from_millis);
        }
        // Where one of them ends, and not before; what stands in both counts once.
        from = Some(before.min(bus.committed(events::GROUP)?.unwrap_or_default()));
    }
    while let Some(next) = from {
        let (page, after) = page(&|from, limit| bus.read(from, limit), &budget, tenant, query, next)?;
        all.extend(view(page));
        from = after;
    }
    Ok(all)
}

fn view(found: Found) -> Vec<SeriesView> {
    let some = found.into_iter().filter(|(_, held)| !held.samples.is_empty() || !held.histograms.is_empty());
    some.map(|(labels, held)| SeriesView::new(labels, held.samples, &held.histograms)).collect()
}
