//! Raw samples of everything that is retained, read from the bus.

use std::collections::BTreeMap;

use wardroom_api::SeriesView;
use wardroom_bus::Bus;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Labels, Sample, TenantId};
use wardroom_edge::{InflateBudget, Problem};

/// Samples that one page holds, about.
const PAGE: usize = 50_000;

/// One page of samples from this offset of the bus on, and the offset of the next page.
pub(crate) fn samples(
    bus: &dyn Bus,
    budget: &InflateBudget,
    tenant: &TenantId,
    query: &SeriesQuery,
    from: u64,
) -> Result<(Vec<SeriesView>, Option<u64>), Problem> {
    let read = |from: u64, limit: usize| bus.read(from.max(bus.start()), limit);
    let (found, next) = page(&read, budget, tenant, query, from)
        .map_err(|error| Problem::unavailable("storage_unavailable", error.to_string()))?;
    Ok((view(found), next))
}

type Read<'a> = dyn Fn(u64, usize) -> Result<Vec<wardroom_bus::Record>, wardroom_bus::Error> + 'a;
type Found = BTreeMap<Labels, Vec<Sample>>;

fn page(
    read: &Read<'_>,
    budget: &InflateBudget,
    tenant: &TenantId,
    query: &SeriesQuery,
    from: u64,
) -> Result<(Found, Option<u64>), wardroom_bus::Error> {
    let mut found: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    let (mut held, mut next) = (0, from);
    while held < PAGE {
        let records = read(next, 256)?;
        let Some(last) = records.last() else { return Ok((found, None)) };
        next = last.offset + 1;
        for record in records.iter().filter(|record| record.envelope.tenant == *tenant) {
            let batch = match wardroom_sources::replay(&record.envelope, &record.body, budget) {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(offset = record.offset, %error, "bus record cannot be decoded");
                    continue;
                }
            };
            let (start, end) = (query.start.millis(), query.end.millis());
            for series in batch.series {
                if query.matchers.iter().all(|matcher| matcher.matches(&series.labels)) {
                    let within = series.samples.into_iter().filter(|sample| (start..=end).contains(&sample.ts_ms));
                    let samples = found.entry(series.labels).or_default();
                    let before = samples.len();
                    samples.extend(within);
                    held += samples.len() - before;
                }
            }
        }
    }
    Ok((found, Some(next)))
}

/// Samples of one series: (ms, value as text, bits as hex).
pub type Points = Vec<(i64, String, String)>;

/// Every retained sample of a data folder that no server holds open, or that one holds: the bus is only
/// read.
///
/// # Errors
/// The disk's.
pub fn dump(
    data: &std::path::Path,
    tenant: &TenantId,
    query: &SeriesQuery,
) -> Result<Vec<(Labels, Points)>, wardroom_bus::Error> {
    let config = crate::Config::default();
    let bus = wardroom_bus::ReadOnlyBus::open(&data.join("bus"))?;
    let budget = InflateBudget::new(config.edge.inflate_budget_bytes, config.edge.max_inflated_bytes);
    let (mut all, mut from) = (Vec::new(), Some(0));
    while let Some(next) = from {
        let (page, after) = page(&|from, limit| bus.read(from, limit), &budget, tenant, query, next)?;
        all.extend(view(page).into_iter().map(|series| (series.labels, series.samples)));
        from = after;
    }
    Ok(all)
}

fn view(found: BTreeMap<Labels, Vec<Sample>>) -> Vec<SeriesView> {
    let shown = |sample: Sample| (sample.ts_ms, go_g(sample.value), format!("{:016x}", sample.value.to_bits()));
    found
        .into_iter()
        .filter(|(_, samples)| !samples.is_empty())
        .map(|(labels, samples)| SeriesView { labels, samples: samples.into_iter().map(shown).collect() })
        .collect()
}

/// A number as Go's `%g` writes it: shortest digits that round-trip, an exponent below 1e-4 and from
/// 1e6 on.
fn go_g(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if value == 0.0 || (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_written_as_go_writes_them() {
        let cases = [
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (123_456.5, "123456.5"),
            (1_234_567.0, "1.234567e+06"),
            (1.5e300, "1.5e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(super::go_g(value), text);
        }
    }
}
