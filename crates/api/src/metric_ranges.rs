//! `GET /api/v1/metrics`: samples of a range for a chart, reduced to one point a step by the server.

use std::collections::BTreeMap;

use axum::extract::RawQuery;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Labels, Matcher, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::problem_responses::{GuardErrors, ProblemDocument};
use crate::query_parameters::query_pairs;
use crate::request::{Caller, parse_step_ms, parse_time};
use crate::request_thread::{json_response, run_apart};
use crate::series_views::SeriesView;

/// Maximum number of points of a series.
const MAX_POINTS: i64 = 11_000;
/// Maximum number of series.
const MAX_SERIES: usize = 1000;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let backend = backend.clone();
    Routes::new().get("/api/v1/metrics", Access::Read, move |caller: Caller, query: RawQuery| {
        read_range(backend.clone(), caller, query)
    })
}

/// What a point says of the samples of its step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reduction {
    /// Their mean.
    #[default]
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The newest.
    Last,
    /// Their sum.
    Sum,
    /// Their number.
    Count,
}

/// Series of a range.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetricRange {
    /// One entry for each series with samples in the range.
    series: Vec<RangeSeries>,
    /// Length of a step, in seconds.
    step_seconds: f64,
}

/// One series of a range.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RangeSeries {
    /// Labels of the series.
    #[schema(value_type = BTreeMap<String, String>)]
    labels: Labels,
    /// `[seconds since the epoch at the start of the step, value]`; steps without samples have none.
    #[schema(value_type = Vec<Vec<f64>>)]
    points: Vec<(f64, f64)>,
}

/// The parameters of a request.
struct RangeQuery {
    series: SeriesQuery,
    step_ms: i64,
    reduction: Reduction,
}

/// Samples of a step so far.
#[derive(Clone, Copy, Debug)]
struct Step {
    sum: f64,
    count: f64,
    min: f64,
    max: f64,
    last: (i64, f64),
}

impl Step {
    const fn new(ts_ms: i64, value: f64) -> Self {
        Self { sum: value, count: 1.0, min: value, max: value, last: (ts_ms, value) }
    }

    fn add(&mut self, ts_ms: i64, value: f64) {
        self.sum += value;
        self.count += 1.0;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if ts_ms >= self.last.0 {
            self.last = (ts_ms, value);
        }
    }

    fn value(&self, reduction: Reduction) -> f64 {
        match reduction {
            Reduction::Avg => self.sum / self.count,
            Reduction::Min => self.min,
            Reduction::Max => self.max,
            Reduction::Last => self.last.1,
            Reduction::Sum => self.sum,
            Reduction::Count => self.count,
        }
    }
}

/// Samples of a range, reduced to one point a step.
///
/// A point stands for the samples from the start of its step until before the next; values that are no number are left
/// out.
#[utoipa::path(
    get, path = "/api/v1/metrics", operation_id = "readMetrics", tag = "metrics",
    params(("match[]" = Vec<String>, Query, description = "Selectors, in Prometheus' syntax"),
        ("start" = String, Query, description = "Start, inclusive: RFC 3339 or seconds since the epoch"),
        ("end" = String, Query, description = "End, exclusive: RFC 3339 or seconds since the epoch"),
        ("step" = Option<String>, Query, description = "Such as `15`, `15s` or `1m`; by default a 250th of the range"),
        ("reduce" = Option<Reduction>, Query, description = "What a point is; `avg` by default")),
    responses((status = 200, description = "At most 1000 series", body = MetricRange),
        (status = 400, description = "`bad_match`, `bad_time`, `bad_step`, `bad_parameter`, `too_many_series` or \
            `too_many_samples`", body = ProblemDocument, content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn read_range(
    backend: Backend,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = run_apart(move || parse(&query.unwrap_or_default())).await??;
    let mut found: BTreeMap<Labels, BTreeMap<i64, Step>> = BTreeMap::new();
    let mut cursor = 0;
    loop {
        let (page, next) = (backend.samples)(caller.tenant.clone(), query.series.clone(), cursor).await?;
        let (start_ms, end_ms, step_ms) = (query.series.start.millis(), query.series.end.millis(), query.step_ms);
        found = run_apart(move || {
            page.into_iter().for_each(|series| add(&mut found, series, (start_ms, end_ms, step_ms)));
            found
        })
        .await?;
        if found.len() > MAX_SERIES {
            let detail = format!("parameter match[]: more than {MAX_SERIES} series; select fewer");
            return Err(Problem::bad_request("too_many_series", detail));
        }
        let Some(next) = next else { break };
        cursor = next;
    }
    run_apart(move || {
        let (start_ms, reduction) = (query.series.start.millis(), query.reduction);
        let point = |(step, samples): (i64, Step)| {
            ((start_ms + step * query.step_ms) as f64 / 1000.0, samples.value(reduction))
        };
        let series = found.into_iter();
        let series =
            series.map(|(labels, steps)| RangeSeries { labels, points: steps.into_iter().map(point).collect() });
        let range = MetricRange { series: series.collect(), step_seconds: query.step_ms as f64 / 1000.0 };
        json_response(&serde_json::to_value(range).unwrap_or_default())
    })
    .await
}

/// Adds samples to the steps of their series.
fn add(
    found: &mut BTreeMap<Labels, BTreeMap<i64, Step>>,
    series: SeriesView,
    (start_ms, end_ms, step_ms): (i64, i64, i64),
) {
    let steps = found.entry(series.labels).or_default();
    for (ts_ms, text, _) in series.samples {
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
        let Some(value) = value.filter(|_| (start_ms..end_ms).contains(&ts_ms)) else { continue };
        steps
            .entry((ts_ms - start_ms) / step_ms)
            .and_modify(|step| step.add(ts_ms, value))
            .or_insert_with(|| Step::new(ts_ms, value));
    }
}

fn parse(query: &str) -> Result<RangeQuery, Problem> {
    let (mut start, mut end, mut step_ms, mut reduction) = (None, None, None, Reduction::default());
    let mut series = SeriesQuery {
        selectors: Vec::new(),
        start: Timestamp::from_nanos(0),
        end: Timestamp::from_nanos(0),
        step_ms: None,
    };
    for (name, value) in query_pairs(query) {
        match name.as_str() {
            "match[]" => Matcher::parse_selector(&value)
                .and_then(|selector| series.add_selector(selector))
                .map_err(|error| Problem::bad_request("bad_match", format!("parameter match[]: {error}")))?,
            "start" => start = Some(parse_time("start", &value)?),
            "end" => end = Some(parse_time("end", &value)?),
            "step" => step_ms = Some(i64::from(parse_step_ms(&value)?.get())),
            "reduce" => {
                let detail = || format!("parameter reduce: {value:?} is none of avg, min, max, last, sum, count");
                reduction = serde_json::from_value(value.as_str().into())
                    .map_err(|_| Problem::bad_request("bad_parameter", detail()))?;
            }
            _ => {}
        }
    }
    let missing = |name| Problem::bad_request("bad_parameter", format!("parameter {name}: required"));
    if series.selectors.is_empty() {
        return Err(missing("match[]"));
    }
    (series.start, series.end) = (start.ok_or_else(|| missing("start"))?, end.ok_or_else(|| missing("end"))?);
    let span_ms = series.end.millis().saturating_sub(series.start.millis());
    if span_ms <= 0 {
        return Err(Problem::bad_request("bad_time", "parameter end: must be after start"));
    }
    let step_ms = step_ms.unwrap_or_else(|| (span_ms / 250).max(1));
    if span_ms / step_ms > MAX_POINTS {
        let detail = format!("parameter step: at most {MAX_POINTS} steps; use a longer step or a shorter range");
        return Err(Problem::bad_request("bad_step", detail));
    }
    Ok(RangeQuery { series, step_ms, reduction })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_stands_for_the_samples_of_its_step() {
        let labels = Labels::of(&[("__name__", "up")]);
        let samples = [(1000, "1"), (4000, "5"), (9999, "3"), (10_000, "7"), (12_000, "NaN"), (30_000, "9")];
        let samples = samples.map(|(ts_ms, value)| (ts_ms, value.to_owned(), String::new())).to_vec();
        let mut found = BTreeMap::new();
        let series = |samples| SeriesView { labels: labels.clone(), samples, histograms: Vec::new() };
        add(&mut found, series(samples), (0, 30_000, 10_000));
        // A second page may have older samples.
        add(&mut found, series(vec![(500, "11".to_owned(), String::new())]), (0, 30_000, 10_000));
        let values = |reduction| found[&labels].values().map(|step| step.value(reduction)).collect::<Vec<_>>();
        assert_eq!(found[&labels].keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(values(Reduction::Avg), [5.0, 7.0]);
        assert_eq!(values(Reduction::Min), [1.0, 7.0]);
        assert_eq!(values(Reduction::Max), [11.0, 7.0]);
        assert_eq!(values(Reduction::Last), [3.0, 7.0]);
        assert_eq!(values(Reduction::Sum), [20.0, 7.0]);
        assert_eq!(values(Reduction::Count), [4.0, 1.0]);
    }

    #[test]
    fn a_range_is_checked() {
        let parsed = parse("match[]=up&start=0&end=1000").map(|query| query.step_ms);
        assert_eq!(parsed.unwrap(), 4000, "a 250th of the range");
        for (query, code) in [
            ("start=0&end=1", "bad_parameter"),
            ("match[]=up&end=1", "bad_parameter"),
            ("match[]=up&start=5&end=5", "bad_time"),
            ("match[]=up&start=0&end=100000&step=1", "bad_step"),
            ("match[]=up&start=0&end=10&reduce=p99", "bad_parameter"),
            ("match[]={&start=0&end=10", "bad_match"),
        ] {
            let problem = parse(query).map(|query| query.step_ms).unwrap_err();
            assert_eq!(problem.code(), code, "{query}");
        }
    }
}
