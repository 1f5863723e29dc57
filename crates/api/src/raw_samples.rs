//! `GET /api/v1/samples`: raw samples of the whole retention.

use std::num::NonZeroU32;

use axum::extract::RawQuery;
use axum::response::Response;
use serde_json::json;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Matcher, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::query_parameters::query_pairs;
use crate::request::{Caller, bad_cursor, parse_time};
use crate::request_thread::{json_response, parse_apart, run_apart};

/// Maximum number of steps of one query, the same as in Prometheus.
const MAX_STEPS: u64 = 11_000;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let backend = backend.clone();
    Routes::new().get("/api/v1/samples", Access::Read, move |caller: Caller, query: RawQuery| {
        list(backend.clone(), caller, query)
    })
}

async fn list(backend: Backend, caller: Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (series_query, cursor) = parse_apart(query.unwrap_or_default(), |query| parse_query(query)).await??;
    let (series, next) = (backend.samples)(caller.tenant.clone(), series_query, cursor).await?;
    run_apart(move || json_response(&json!({ "series": series, "next": next.map(|next| next.to_string()) }))).await
}

/// Parses the parameters; returns the query and the cursor.
fn parse_query(query: &str) -> Result<(SeriesQuery, u64), Problem> {
    let (start, end) = (Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX));
    let (mut series_query, mut cursor) = (SeriesQuery { selectors: Vec::new(), start, end, step_ms: None }, 0);
    for (name, value) in query_pairs(query) {
        match name.as_str() {
            "match[]" => {
                Matcher::parse_selector(&value)
                    .and_then(|selector| series_query.add_selector(selector))
                    .map_err(|error| Problem::bad_request("bad_match", format!("parameter match[]: {error}")))?;
            }
            "start" => series_query.start = parse_time("start", &value)?,
            "end" => series_query.end = parse_time("end", &value)?,
            "step" => series_query.step_ms = Some(parse_step_ms(&value)?),
            "cursor" => cursor = value.parse().map_err(|_| bad_cursor())?,
            _ => {}
        }
    }
    if series_query.steps() > MAX_STEPS {
        let detail = format!("parameter step: at most {MAX_STEPS} steps; give start and end, or a longer step");
        return Err(Problem::bad_request("bad_step", detail));
    }
    Ok((series_query, cursor))
}

/// Parses a step in seconds, or with a unit: `15`, `0.5`, `15s`, `1m`, `2h`. Returns milliseconds.
fn parse_step_ms(text: &str) -> Result<NonZeroU32, Problem> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => f64::NAN,
    };
    let ms = number.parse::<f64>().map_or(f64::NAN, |number| number * seconds * 1000.0);
    let whole = (1.0..=f64::from(u32::MAX)).contains(&ms).then_some(ms as u32).and_then(NonZeroU32::new);
    whole.ok_or_else(|| Problem::bad_request("bad_step", "parameter step: seconds, or a number with ms, s, m, h or d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_is_seconds_or_has_a_unit() {
        for (text, ms) in [("15", 15_000), ("0.5", 500), ("15s", 15_000), ("1m", 60_000), ("250ms", 250)] {
            assert_eq!(parse_step_ms(text).unwrap().get(), ms);
        }
        for text in ["", "0", "-1", "x", "1y", "NaN", "1e300"] {
            assert!(parse_step_ms(text).is_err(), "{text}");
        }
    }
}
