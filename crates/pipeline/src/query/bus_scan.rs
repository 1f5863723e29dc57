//! Scans the bus for the data points of selected series.

use std::collections::BTreeMap;

use wardroom_bus::{Error, Record};
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Labels, NativeHistogram, TenantId};
use wardroom_edge::InflateBudget;

use super::series_data::SeriesMap;

/// Data points of one page (approximate).
pub(super) const PAGE_SAMPLES: usize = 50_000;
/// Records read at once.
const READ_RECORDS: usize = 256;

/// Reads records from an offset, up to a limit.
type ReadRecords<'a> = dyn Fn(u64, usize) -> Result<Vec<Record>, Error> + 'a;

/// Scans the bus from an offset on, for one page. Returns the data points and the offset to continue at; `None` at the
/// end of the bus.
pub(super) fn scan_page(
    read: &ReadRecords<'_>,
    budget: &InflateBudget,
    tenant: &TenantId,
    query: &SeriesQuery,
    from: u64,
) -> Result<(SeriesMap, Option<u64>), Error> {
    let mut found = SeriesMap::new();
    // Most requests carry the same series, so labels are parsed and matched once per series key.
    let mut selected: BTreeMap<u128, Option<Labels>> = BTreeMap::new();
    let (mut count, mut next) = (0, from);
    while count < PAGE_SAMPLES {
        let records = read(next, READ_RECORDS)?;
        let Some(last) = records.last() else { return Ok((found, None)) };
        next = last.offset + 1;
        for record in records.iter().filter(|record| record.envelope.tenant == *tenant) {
            let decoded = match wardroom_sources::replay(&record.envelope, &record.body, budget) {
                Ok(decoded) => decoded,
                Err(error) => {
                    tracing::error!(offset = record.offset, %error, "decoding a bus record failed; skipping it");
                    continue;
                }
            };
            let (start, end) = (query.start.millis(), query.end.millis());
            for (index, samples) in decoded.metrics.iter() {
                let metrics = &decoded.metrics;
                let read = || metrics.labels(index).ok().filter(|labels| query.selects(labels));
                let labels = selected.entry(metrics.keys()[index]).or_insert_with(read);
                if let Some(labels) = labels {
                    let samples = samples.iter().filter(|sample| (start..=end).contains(&sample.ts_ms));
                    let list = &mut found.entry(labels.clone()).or_default().samples;
                    let before = list.len();
                    list.extend(samples);
                    count += list.len() - before;
                }
            }
            let in_range = |histogram: &NativeHistogram| (start..=end).contains(&histogram.ts_ms);
            for (index, histogram) in decoded.metrics.histograms().iter().filter(|(_, histogram)| in_range(histogram)) {
                let labels = selected.get(&decoded.metrics.keys()[*index as usize]);
                if let Some(Some(labels)) = labels {
                    found.entry(labels.clone()).or_default().histograms.push(histogram.clone());
                    count += histogram.positive.counts.len();
                }
            }
        }
    }
    Ok((found, Some(next)))
}
