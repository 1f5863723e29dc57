//! `GET /api/v1/samples`: raw samples of everything that is retained.

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
    let (mut selectors, mut start, mut end, mut cursor) =
        (Vec::new(), Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX), 0);
    for (name, value) in pairs(query.as_deref().unwrap_or_default()) {
        match name.as_str() {
            "match[]" => {
                let selector = Matcher::parse_selector(&value)
                    .map_err(|error| Problem::bad_request("bad_match", format!("parameter match[]: {error}")))?;
                selectors.push(selector);
            }
            "start" => start = moment("start", &value)?,
            "end" => end = moment("end", &value)?,
            "cursor" => {
                cursor = value.parse().map_err(|_| {
                    Problem::bad_request("bad_cursor", "parameter cursor: use `next` of the page before, as it was")
                })?;
            }
            _ => {}
        }
    }
    let (series, next) = (backend.samples)(who.tenant.clone(), SeriesQuery { selectors, start, end }, cursor).await?;
    Ok(Json(json!({ "series": series, "next": next.map(|next| next.to_string()) })))
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
    fn names_may_repeat_and_values_are_decoded() {
        let got = pairs("match[]=up%7Bjob%3D%22a+b%22%7D&match%5B%5D=x&start=1");
        let expected = [("match[]", "up{job=\"a b\"}"), ("match[]", "x"), ("start", "1")];
        assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
