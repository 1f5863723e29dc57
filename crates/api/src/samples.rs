//! `GET /api/v1/samples`: raw samples of everything that is retained.

use std::num::NonZeroU32;

use axum::Json;
use axum::extract::RawQuery;
use serde_json::{Value, json};
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Matcher, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::anomalies::moment;
use crate::backend::Backend;
use crate::incidents::Who;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let backend = backend.clone();
    Routes::new()
        .get("/api/v1/samples", Access::Read, move |who: Who, query: RawQuery| list(backend.clone(), who, query))
}

async fn list(backend: Backend, who: Who, RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    let (mut selectors, mut cursor, mut step_ms) = (Vec::new(), 0, None);
    let (mut start, mut end) = (Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX));
    for (name, value) in pairs(query.as_deref().unwrap_or_default()) {
        match name.as_str() {
            "match[]" => {
                let selector = Matcher::parse_selector(&value)
                    .map_err(|error| Problem::bad_request("bad_match", format!("parameter match[]: {error}")))?;
                selectors.push(selector);
            }
            "start" => start = moment("start", &value)?,
            "end" => end = moment("end", &value)?,
            "step" => step_ms = Some(step_of(&value)?),
            "cursor" => {
                cursor = value.parse().map_err(|_| {
                    Problem::bad_request("bad_cursor", "parameter cursor: use `next` of the page before, as it was")
                })?;
            }
            _ => {}
        }
    }
    let query = SeriesQuery { selectors, start, end, step_ms };
    if query.steps() > MOST_STEPS {
        let detail = format!("parameter step: at most {MOST_STEPS} steps; give start and end, or a longer step");
        return Err(Problem::bad_request("bad_step", detail));
    }
    let (series, next) = (backend.samples)(who.tenant.clone(), query, cursor).await?;
    Ok(Json(json!({ "series": series, "next": next.map(|next| next.to_string()) })))
}

/// Steps of one question, as Prometheus limits them.
const MOST_STEPS: u64 = 11_000;

/// Seconds as a number, or with a unit: `15`, `0.5`, `15s`, `1m`, `2h`.
fn step_of(text: &str) -> Result<NonZeroU32, Problem> {
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

/// The pairs of a query string, percent-decoded; a name may come several times.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name), decode(value))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                let value = std::str::from_utf8(&hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                out.extend(value);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_seconds_or_has_a_unit() {
        for (text, ms) in [("15", 15_000), ("0.5", 500), ("15s", 15_000), ("1m", 60_000), ("250ms", 250)] {
            assert_eq!(step_of(text).unwrap().get(), ms);
        }
        for text in ["", "0", "-1", "x", "1y", "NaN", "1e300"] {
            assert!(step_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_may_repeat_and_values_are_decoded() {
        let got = pairs("match[]=up%7Bjob%3D%22a+b%22%7D&match%5B%5D=x&start=1");
        let expected = [("match[]", "up{job=\"a b\"}"), ("match[]", "x"), ("start", "1")];
        assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
