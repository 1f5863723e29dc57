//! Runs queries for samples, series and exemplars: from memory if the live series hold the whole result, else
//! from the tables and, beyond their committed offset, from the bus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wardroom_bus::Bus;
use wardroom_domain::query::{LOOKBACK_MS, SeriesQuery};
use wardroom_domain::{Exemplar, Labels, SeriesId, TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_files::EvictedSeries;
use wardroom_head::{RangeSamples, SelectorFilter};
use wardroom_process::clock;

use super::bus_scan::{PAGE_SAMPLES, scan_page};
use super::cursor;
use super::query_error::SampleQueryError;
use super::series_data::{SeriesData, SeriesExemplars, SeriesMap, SeriesPoints, into_series_data};
use crate::lake::lake_state::{LakeState, LakeTables};
use crate::state::tenants::{LiveState, Tenant, Tenants};

/// Maximum number of samples read for one query with steps, and of samples in its result.
const MAX_STEP_SAMPLES: usize = 5_000_000;
/// Maximum number of exemplars in one result.
const MAX_EXEMPLARS: usize = 100_000;
/// Series read under one lock of the live state.
const SERIES_PER_LOCK: usize = 256;
/// Series and exemplars copied under one lock of the live state.
const COPIED_PER_LOCK: usize = 1024;
/// Ids copied under one lock of the registry, in some microseconds.
const IDS_PER_LOCK: usize = 16_384;
/// Lag of detection up to which a query is served from memory.
const MAX_LAG_RECORDS: u64 = 1024;
const MINUTE_MS: i64 = 60_000;

/// Reads samples from memory, tables and bus.
#[derive(Clone)]
pub struct SampleReader {
    /// The bus: records that are not in the tables yet.
    pub bus: Arc<dyn Bus>,
    /// Memory budget of decompression.
    pub budget: InflateBudget,
    /// The live series.
    pub tenants: Arc<Tenants>,
    /// The next offset of detection: the live series are complete up to it.
    pub next: Arc<AtomicU64>,
    /// The tables.
    pub lake: LakeState,
    /// Retention of evicted series in the index on disk.
    pub evicted_retention: Duration,
}

impl SampleReader {
    /// Returns one page and the cursor of the next. A query with steps returns one page.
    ///
    /// # Errors
    /// Returns an error if there are too many samples behind the steps or storage cannot be read.
    pub fn read_page(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        cursor: u64,
    ) -> Result<(Vec<SeriesData>, Option<u64>), SampleQueryError> {
        if query.step_ms.is_none() {
            let (found, next) = self.read_raw_page(tenant, query, cursor)?;
            return Ok((into_series_data(found), next));
        }
        let start = Timestamp::from_millis(query.start.millis().saturating_sub(LOOKBACK_MS));
        let raw_query = SeriesQuery { start, ..query.clone() };
        let (mut all, mut count, mut next_cursor) = (SeriesMap::new(), 0, Some(0));
        while let Some(next) = next_cursor {
            let (found, after) = self.read_raw_page(tenant, &raw_query, next)?;
            for (labels, page_points) in found {
                count += page_points.samples.len();
                all.entry(labels).or_default().samples.extend(page_points.samples);
            }
            if count > MAX_STEP_SAMPLES {
                return Err(SampleQueryError::TooManySamples { limit: MAX_STEP_SAMPLES });
            }
            next_cursor = after;
        }
        let mut steps = 0;
        for points in all.values_mut() {
            // Samples from the bus come in order of arrival.
            points.samples.sort_by_key(|sample| sample.ts_ms);
            points.samples = query.at_steps(&points.samples);
            // One sample is the newest at many steps if they are short.
            steps += points.samples.len();
            if steps > MAX_STEP_SAMPLES {
                return Err(SampleQueryError::TooManySamples { limit: MAX_STEP_SAMPLES });
            }
        }
        Ok((into_series_data(all), None))
    }

    fn read_raw_page(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        cursor: u64,
    ) -> Result<(SeriesMap, Option<u64>), SampleQueryError> {
        let mut offset = cursor;
        if cursor::starts_in_memory(cursor) {
            let found = self.read_live_page(tenant, query, cursor).map_err(SampleQueryError::storage)?;
            if let Some(found) = found {
                return Ok(found);
            }
            // The query continued in memory, which is not complete any more: start over with the tables and the bus.
            offset = 0;
        }
        let (mut found, offset) = match self.read_lake_page(tenant, query, offset)? {
            Some((found, next)) if cursor::is_in_lake(next) => return Ok((found, Some(next))),
            // The last page of the tables includes the first page of the bus, for callers that read only one page.
            Some(last_page) => last_page,
            None => (SeriesMap::new(), offset),
        };
        let read = |from: u64, limit: usize| self.bus.read(from.max(self.bus.start_offset()), limit);
        let scanned = scan_page(&read, &self.budget, tenant, query, offset);
        let (scanned_series, next) = scanned.map_err(SampleQueryError::storage)?;
        scanned_series.into_iter().for_each(|(labels, points)| found.entry(labels).or_default().extend(points));
        Ok((found, next))
    }

    /// Returns an error if the tables are enabled and unavailable.
    fn check_lake_available(&self) -> Result<(), SampleQueryError> {
        self.lake.unavailable_reason().map_or(Ok(()), |reason| Err(SampleQueryError::LakeUnavailable(reason)))
    }

    /// Reads a page from the tables. The next cursor is in the tables or, after the last page, the offset on the bus
    /// where the tables end. Returns `None` if there are no tables or the query continues on the bus.
    fn read_lake_page(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        cursor: u64,
    ) -> Result<Option<(SeriesMap, u64)>, SampleQueryError> {
        self.check_lake_available()?;
        let Some(tables) = self.lake.tables() else { return Ok(None) };
        let committed = tables.samples_progress.committed_offset();
        let before = match cursor {
            0 => committed,
            cursor if cursor::is_in_lake(cursor) => cursor::lake_end(cursor, committed),
            _ => return Ok(None),
        };
        if before == 0 {
            return Ok(None);
        }
        let mut found = SeriesMap::new();
        let mut position = i64::try_from(cursor::lake_position(cursor)).unwrap_or(i64::MAX);
        if !cursor::is_in_lake_histograms(cursor) {
            let read_future = tables.lake.read_samples(tenant, query, (position, before), PAGE_SAMPLES);
            let page = tokio::runtime::Handle::current().block_on(read_future).map_err(SampleQueryError::storage)?;
            let points = |(labels, samples)| (labels, SeriesPoints { samples, histograms: Vec::new() });
            found.extend(page.series.into_iter().map(points));
            if let Some(next) = page.next.and_then(|next| u64::try_from(next).ok()) {
                return Ok(Some((found, cursor::lake_series(next, before))));
            }
            position = 0;
        }
        // Queries with steps are for float samples only.
        if query.step_ms.is_some() {
            return Ok(Some((found, before)));
        }
        let next_minute = self.read_lake_histograms(tables, tenant, query, (position, before), &mut found)?;
        let next = next_minute.map_or(before, |minute| cursor::lake_histograms(minute, before));
        Ok(Some((found, next)))
    }

    /// Reads a page of native histograms from before an offset of the bus, starting with a minute; returns the minute
    /// of the next page. The last page includes histograms that are not in the tables yet.
    fn read_lake_histograms(
        &self,
        tables: &LakeTables,
        tenant: &TenantId,
        query: &SeriesQuery,
        (minute, before): (i64, u64),
        found: &mut SeriesMap,
    ) -> Result<Option<u64>, SampleQueryError> {
        let runtime = tokio::runtime::Handle::current();
        let start = query.start.millis().max(minute.saturating_mul(MINUTE_MS));
        let rest = SeriesQuery { start: Timestamp::from_millis(start), ..query.clone() };
        // Read before the tables: rows written meanwhile are read twice rather than missed.
        let visible = runtime.block_on(tables.lake.visible_event_offset());
        let mut visible = tables.events_progress.committed_offset().max(visible);
        let read_future = tables.lake.read_histograms(tenant, &rest, visible.min(before));
        let page = runtime.block_on(read_future).map_err(SampleQueryError::storage)?;
        for (labels, histogram) in page.found {
            found.entry(labels).or_default().histograms.push(histogram);
        }
        if let Some(next_ms) = page.next_ms {
            return Ok(u64::try_from(next_ms / MINUTE_MS).ok());
        }
        while visible < before {
            let read = |from: u64, limit: usize| {
                let remaining = usize::try_from(before.saturating_sub(from)).unwrap_or(limit);
                let found = self.bus.read(from.max(self.bus.start_offset()), limit.min(remaining));
                // Offsets may be missing, so the limit alone does not end the read at `before`.
                found.map(|records| records.into_iter().filter(|record| record.offset < before).collect())
            };
            let scanned = scan_page(&read, &self.budget, tenant, query, visible);
            let (scanned_series, next) = scanned.map_err(SampleQueryError::storage)?;
            for (labels, points) in scanned_series.into_iter().filter(|(_, points)| !points.histograms.is_empty()) {
                found.entry(labels).or_default().histograms.extend(points.histograms);
            }
            visible = next.unwrap_or(before);
        }
        Ok(None)
    }

    /// Returns the series that a query selects and that have samples in its time range, including evicted ones.
    ///
    /// # Errors
    /// Returns an error if the index of evicted series cannot be read.
    pub fn series(&self, tenant: &TenantId, query: &SeriesQuery) -> Result<Vec<Labels>, SampleQueryError> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let overlaps = |first_ms: i64, last_ms: i64| first_ms <= end_ms && last_ms >= start_ms;
        let read = |live: &LiveState, ids: &[SeriesId], from: u64| {
            let part = ids.iter().skip(usize::try_from(from).unwrap_or(usize::MAX)).take(COPIED_PER_LOCK);
            let in_range = part.map(|id| {
                let has_samples = live.recent.span_ms(*id).is_some_and(|(first, last)| overlaps(first, last));
                has_samples || live.native_newest_ms.contains_key(id)
            });
            let next = from + COPIED_PER_LOCK as u64;
            (in_range.collect::<Vec<_>>(), (next < ids.len() as u64).then_some(next))
        };
        let (selected, in_range) = self.read_selected(tenant, query, read);
        let in_range = selected.labels.into_iter().zip(in_range).filter(|(_, in_range)| *in_range);
        let mut found: Vec<Labels> = in_range.map(|(labels, _)| labels).collect();
        let evicted = self.tenants.with(tenant, |live| live.evicted.clone());
        if evicted.newest_ms() < start_ms {
            return Ok(found);
        }
        let evicted = evicted.read().map_err(SampleQueryError::storage)?;
        let known: BTreeSet<Labels> = found.iter().cloned().collect();
        let is_selected =
            |series: &EvictedSeries| overlaps(series.first_ms, series.last_ms) && query.selects(&series.labels);
        let evicted: BTreeSet<Labels> = evicted.into_iter().filter(is_selected).map(|series| series.labels).collect();
        found.extend(evicted.difference(&known).cloned());
        Ok(found)
    }

    /// Selects series and reads the live state of them in parts, so that detection waits for one part at most. `read`
    /// returns the part from a position on and the next position.
    fn read_selected<T>(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        read: impl Fn(&LiveState, &[SeriesId], u64) -> (Vec<T>, Option<u64>),
    ) -> (SelectedSeries, Vec<T>) {
        let state = self.tenants.get(tenant);
        'select: loop {
            let selected = select(&state, query, 0);
            let (mut all, mut from) = (Vec::new(), Some(0));
            while let Some(position) = from {
                let live = state.live_state();
                if live.generation != selected.generation {
                    // Series were renumbered meanwhile; select again (rare).
                    continue 'select;
                }
                let (part, next) = read(&live, &selected.ids, position);
                all.extend(part);
                from = next;
            }
            return (selected, all);
        }
    }

    /// Returns the exemplars of the series that a query selects, from the tables and from memory, without duplicates.
    ///
    /// # Errors
    /// Returns an error if there are too many exemplars, or if the tables are unavailable.
    pub fn exemplars(&self, tenant: &TenantId, query: &SeriesQuery) -> Result<Vec<SeriesExemplars>, SampleQueryError> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let (selected, live) = self.read_selected(tenant, query, |live, ids, from| {
            live.exemplars.select_part(ids, (start_ms, end_ms), from, COPIED_PER_LOCK)
        });
        let labels_of: BTreeMap<SeriesId, Labels> = selected.ids.into_iter().zip(selected.labels).collect();
        // Keyed by time, labels and value, since an exemplar may be both in the tables and in memory.
        let mut found: BTreeMap<Labels, BTreeMap<(i64, Labels, u64), Exemplar>> = BTreeMap::new();
        let mut insert = |series: &Labels, exemplar: Exemplar| {
            let key = (exemplar.ts_ms, exemplar.labels.clone(), exemplar.value.to_bits());
            found.entry(series.clone()).or_default().insert(key, exemplar);
        };
        self.check_lake_available()?;
        if let Some(tables) = self.lake.tables() {
            let read_future = tables.lake.read_exemplars(tenant, query, MAX_EXEMPLARS + 1);
            let stored = tokio::runtime::Handle::current().block_on(read_future).map_err(SampleQueryError::storage)?;
            if stored.len() > MAX_EXEMPLARS {
                return Err(SampleQueryError::TooManyExemplars { limit: MAX_EXEMPLARS });
            }
            stored.into_iter().for_each(|(series, exemplar)| insert(&series, exemplar));
        }
        for (id, exemplar) in live {
            labels_of.get(&id).into_iter().for_each(|series| insert(series, exemplar.clone()));
        }
        let with_series = |(series, all): (Labels, BTreeMap<_, Exemplar>)| SeriesExemplars {
            series,
            exemplars: all.into_values().collect(),
        };
        Ok(found.into_iter().map(with_series).collect())
    }

    /// Reads a page from memory; returns `None` if memory does not hold the whole result.
    fn read_live_page(
        &self,
        tenant: &TenantId,
        query: &SeriesQuery,
        cursor: u64,
    ) -> Result<Option<(SeriesMap, Option<u64>)>, wardroom_bus::Error> {
        let (start_ms, end_ms) = (query.start.millis(), query.end.millis());
        let detected_to = self.next.load(Ordering::Acquire);
        let lag = self.bus.end_offset().saturating_sub(detected_to);
        // The index of evicted series reaches back this far.
        let evicted_known_from_ms = clock::now().minus(self.evicted_retention).millis();
        let complete_from_ms = self.tenants.complete_from_ms.load(Ordering::Acquire).max(evicted_known_from_ms);
        if start_ms < complete_from_ms || lag > MAX_LAG_RECORDS {
            return Ok(None);
        }
        let state = self.tenants.get(tenant);
        let selected = select(&state, query, cursor::live_series_id(cursor));
        let SelectedSeries { ids, labels, generation, known } = selected;
        if !cursor::is_of_generation(cursor, generation) {
            return Ok(None);
        }
        let (mut found, mut count, mut next) = (SeriesMap::new(), 0, None);
        // Detection waits for the lock, so it is held for a few series at a time and never during disk I/O.
        let mut selected = ids.iter().zip(labels);
        while next.is_none() {
            let chunk: Vec<_> = selected.by_ref().take(SERIES_PER_LOCK).collect();
            if chunk.is_empty() {
                break;
            }
            let ranges = self.tenants.with(tenant, |live| {
                let range = |id: &SeriesId| {
                    let is_complete =
                        live.recent.complete_from_ms(*id) <= start_ms && !live.native_newest_ms.contains_key(id);
                    is_complete.then(|| live.recent.range(*id, start_ms, end_ms))
                };
                if live.generation != generation || live.evicted.newest_ms() >= start_ms {
                    return None;
                }
                let ranges: Option<Vec<RangeSamples>> = chunk.iter().map(|(id, _)| range(id)).collect();
                ranges.map(|ranges| (ranges, live.sealed.clone()))
            });
            let Some((ranges, sealed)) = ranges else { return Ok(None) };
            for ((id, labels), range) in chunk.into_iter().zip(ranges) {
                if count >= PAGE_SAMPLES {
                    next = Some(cursor::live_series(generation, id.0));
                    break;
                }
                let samples = range.read_all(&|address, buffer| sealed.read(address, buffer));
                // Blocks that cannot be read from disk are still on the bus.
                let Some(samples) = samples else { return Ok(None) };
                count += samples.len();
                found.insert(labels, SeriesPoints { samples, histograms: Vec::new() });
            }
        }
        // Records that were acknowledged but not evaluated yet.
        let read = |from: u64, limit: usize| self.bus.read(from, limit);
        let mut from = (lag > 0).then_some(detected_to);
        while let Some(offset) = from {
            let (scanned_series, after) = scan_page(&read, &self.budget, tenant, query, offset)?;
            for (labels, points) in scanned_series {
                // Known series get theirs on their own page; new ones come on the last page.
                let on_other_page =
                    state.registry().get(&labels).is_some_and(|id| id.index() < known) || next.is_some();
                if !on_other_page || found.contains_key(&labels) {
                    found.entry(labels).or_default().extend(points);
                }
            }
            from = after;
        }
        Ok(Some((found, next)))
    }
}

/// The series that a query selects.
struct SelectedSeries {
    /// Their ids, ascending.
    ids: Vec<SeriesId>,
    /// Their labels, in the same order.
    labels: Vec<Labels>,
    /// Generation of the ids.
    generation: u64,
    /// Number of series of the tenant; later ones are not selected.
    known: usize,
}

/// Returns the series that a query selects, from an id on. Intake and detection wait for the registry's lock, and this
/// thread may have a low priority: only ids are copied under it, and the matchers are applied without it.
fn select(state: &Tenant, query: &SeriesQuery, from: u64) -> SelectedSeries {
    let all = [Vec::new()];
    let selectors = if query.selectors.is_empty() { &all[..] } else { &query.selectors[..] };
    'select: loop {
        let (generation, series) = state.series_labels();
        let (first, known) = (usize::try_from(from).unwrap_or(usize::MAX), series.len());
        let mut is_selected = vec![false; known];
        for matchers in selectors {
            let mut filter = SelectorFilter::new(matchers);
            let mut next = Some(first);
            while let Some(first) = next.filter(|first| *first < known) {
                let registry = state.registry();
                if registry.generation() != generation {
                    continue 'select;
                }
                let candidates = registry.candidates(matchers, SeriesId(first as u32), IDS_PER_LOCK);
                drop(registry);
                next = candidates.last().map(|last| last.index() + 1);
                for id in candidates {
                    // Series that another selector has selected need no second look.
                    if let Some(selected) = is_selected.get_mut(id.index()).filter(|selected| !**selected) {
                        *selected = filter.matches(&series[id.index()]);
                    }
                }
            }
        }
        let ids = is_selected.iter().zip(0..).filter(|(selected, _)| **selected).map(|(_, id)| SeriesId(id));
        let ids: Vec<SeriesId> = ids.collect();
        let labels = ids.iter().map(|id| series[id.index()].clone()).collect();
        return SelectedSeries { ids, labels, generation, known };
    }
}
