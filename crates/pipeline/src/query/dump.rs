//! Reads every retained sample of a data folder, with or without a server running on it.

use std::path::Path;

use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{TenantId, Timestamp};
use wardroom_edge::InflateBudget;
use wardroom_lake::Lake;

use super::bus_scan::{PAGE_SAMPLES, scan_page};
use super::series_data::{SeriesData, into_series_data};
use crate::config::Config;
use crate::consumer_groups;

/// Why a data folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// Reading the bus failed.
    #[error(transparent)]
    Bus(#[from] wardroom_bus::Error),
    /// Reading the tables failed.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
}

/// Returns every retained sample that a query selects. Tables and bus are opened read-only. A series may come in
/// several entries, and data points that are both in the tables and on the bus come twice.
///
/// # Errors
/// Returns an error if the bus or the tables cannot be read.
pub async fn dump_series(
    config: &Config,
    data: &Path,
    tenant: &TenantId,
    query: &SeriesQuery,
) -> Result<Vec<SeriesData>, DumpError> {
    let bus = wardroom_bus::ReadOnlyBus::open(&data.join("bus"))?;
    let budget = InflateBudget::new(config.edge.inflate_budget_bytes, config.edge.max_inflated_bytes);
    let (mut all, mut from) = (Vec::new(), Some(0));
    if let Some(lake) = Lake::open_series_read_only(&config.lake, data).await? {
        let (mut next_series, before) = (Some(0), lake.committed_offset().await?.unwrap_or_default());
        while let Some(next) = next_series {
            let page = lake.read_samples(tenant, query, (next, before), PAGE_SAMPLES).await?;
            let with_samples = |(labels, samples)| SeriesData { labels, samples, histograms: Vec::new() };
            all.extend(page.series.into_iter().map(with_samples));
            next_series = page.next;
        }
        let (mut rest, mut has_more) = (query.clone(), true);
        while has_more {
            let page = lake.read_histograms(tenant, &rest, u64::MAX).await?;
            let with_histogram =
                |(labels, histogram)| SeriesData { labels, samples: Vec::new(), histograms: vec![histogram] };
            all.extend(page.found.into_iter().map(with_histogram));
            has_more = page.next_ms.is_some();
            rest.start = page.next_ms.map_or(rest.start, Timestamp::from_millis);
        }
        // From the lower of both committed offsets; callers drop duplicates by time.
        from = Some(before.min(bus.committed(consumer_groups::LAKE_EVENTS)?.unwrap_or_default()));
    }
    while let Some(next) = from {
        let (page, after) = scan_page(&|from, limit| bus.read(from, limit), &budget, tenant, query, next)?;
        all.extend(into_series_data(page));
        from = after;
    }
    Ok(all)
}
