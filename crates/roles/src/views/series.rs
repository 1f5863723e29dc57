//! Samples, exemplars and their errors as views.

use wardroom_api::{ExemplarsView, SeriesView};
use wardroom_domain::TenantId;
use wardroom_domain::query::SeriesQuery;
use wardroom_edge::Problem;
use wardroom_pipeline::query::dump::{DumpError, dump_series};
use wardroom_pipeline::query::query_error::SampleQueryError;
use wardroom_pipeline::query::series_data::{SeriesData, SeriesExemplars};

/// Converts the samples of a series.
pub(crate) fn series_view(series: SeriesData) -> SeriesView {
    SeriesView::new(series.labels, series.samples, &series.histograms)
}

/// Converts the exemplars of a series.
pub(crate) fn exemplars_view(series: SeriesExemplars) -> ExemplarsView {
    ExemplarsView::new(series.series, series.exemplars)
}

/// Converts an error of a query.
pub(crate) fn query_problem(error: SampleQueryError) -> Problem {
    let detail = error.to_string();
    match error {
        SampleQueryError::TooManySamples { .. } => Problem::bad_request("too_many_samples", detail),
        SampleQueryError::TooManyExemplars { .. } => Problem::bad_request("too_many_exemplars", detail),
        SampleQueryError::LakeUnavailable(_) => Problem::unavailable("lake_unavailable", detail),
        SampleQueryError::Storage(_) => Problem::unavailable("storage_unavailable", detail),
    }
}

/// Returns every retained sample of a data folder that a query selects; the folder is only read.
///
/// # Errors
/// Returns an error if the bus or the tables cannot be read.
pub async fn dump(
    config: &wardroom_pipeline::Config,
    data: &std::path::Path,
    tenant: &TenantId,
    query: &SeriesQuery,
) -> Result<Vec<SeriesView>, DumpError> {
    Ok(dump_series(config, data, tenant, query).await?.into_iter().map(series_view).collect())
}
