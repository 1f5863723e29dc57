//! Shared request parsing: the caller, bodies, parameters, and the format of a table.

use axum::extract::{Extension, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use wardroom_domain::trace_id::{TRACE_ID_DIGITS, normal_trace_id};
use wardroom_domain::{Identity, Timestamp, visible_text};
use wardroom_edge::Problem;

/// The authenticated caller; the guard of the port adds it to the request.
pub(crate) type Caller = Extension<Identity>;

/// A JSON body, whatever the `Content-Type`. An empty body reads as `{}`.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let text = String::from_request(request, state)
            .await
            .map_err(|rejection| Problem::new(rejection.status(), "bad_body", rejection.body_text()))?;
        let text = if text.trim().is_empty() { "{}" } else { text.as_str() };
        let body = serde_json::from_str(text);
        Ok(Self(body.map_err(|error| Problem::bad_request("bad_body", format!("body: {error}")))?))
    }
}

/// Parses an incident id such as `INC-42` into its number.
pub(crate) fn parse_incident_id(id: &str) -> Result<i64, Problem> {
    let number = id.strip_prefix("INC-").and_then(|digits| digits.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no_such_incident", format!("{id:?} is not of the form INC-42"))
    })
}

/// Parses a time parameter: RFC 3339 or seconds since the epoch.
pub(crate) fn parse_time(name: &'static str, text: &str) -> Result<Timestamp, Problem> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    if let Some(seconds) = seconds {
        return Ok(Timestamp::from_millis((seconds * 1000.0) as i64));
    }
    Timestamp::parse(text).map_err(|error| {
        Problem::bad_request("bad_time", format!("parameter {name}: {error}; use RFC 3339 or seconds since the epoch"))
    })
}

/// Parses a trace id in any spelling: capitals, or with leading zeros cut.
pub(crate) fn parse_trace_id(text: &str) -> Result<String, Problem> {
    normal_trace_id(text).ok_or_else(|| {
        let detail = format!("{text:?} is not a trace id: use 1 to {TRACE_ID_DIGITS} hexadecimal digits, not all zero");
        Problem::bad_request("bad_trace_id", detail)
    })
}

/// The error for an invalid `cursor` parameter.
pub(crate) fn bad_cursor() -> Problem {
    Problem::bad_request("bad_cursor", "parameter cursor: pass `next` of the previous page unchanged")
}

/// Splits a query string into percent-decoded pairs; a name may repeat.
pub(crate) fn query_pairs(query: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (percent_decode(name), percent_decode(value))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn percent_decode(text: &str) -> String {
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

/// A named query, or a log search, with its parameters.
#[derive(Clone, Debug)]
pub struct NamedQuery {
    /// The query's name; empty for a log search.
    pub name: String,
    /// Start of the range, inclusive.
    pub start: Timestamp,
    /// End of the range, exclusive.
    pub end: Timestamp,
    /// Restricts the result to one service.
    pub service: Option<String>,
    /// Restricts the result to one trace id.
    pub trace: Option<String>,
    /// Conditions on log lines.
    pub filter: String,
    /// Minimum share of failed requests, 0 to 1, for a service to be reported.
    pub error_rate: f64,
    /// Minimum 99th percentile latency, in milliseconds, for a service to be reported.
    pub p99_ms: f64,
    /// Maximum number of rows.
    pub limit: u32,
}

impl NamedQuery {
    /// Reads the parameters of a query string, and the format of the response.
    pub(crate) fn parse(query: &str, headers: &HeaderMap) -> Result<(Self, TableFormat), Problem> {
        let mut parsed = Self {
            name: String::new(),
            start: Timestamp::from_nanos(i64::MIN),
            end: Timestamp::from_nanos(i64::MAX),
            service: None,
            trace: None,
            filter: String::new(),
            error_rate: 0.05,
            p99_ms: 1000.0,
            limit: 100,
        };
        let bad = |name: &str, value: &str, expected: &str| {
            Problem::bad_request("bad_parameter", format!("parameter {name}: {value:?} is not a {expected}"))
        };
        let mut format = TableFormat::from_accept(headers);
        for (name, value) in query_pairs(query) {
            match name.as_str() {
                "start" => parsed.start = parse_time("start", &value)?,
                "end" => parsed.end = parse_time("end", &value)?,
                "service" => parsed.service = Some(value),
                "trace" => parsed.trace = Some(parse_trace_id(&value)?),
                "query" => parsed.filter = value,
                "error_rate" => parsed.error_rate = value.parse().map_err(|_| bad("error_rate", &value, "number"))?,
                "p99_ms" => parsed.p99_ms = value.parse().map_err(|_| bad("p99_ms", &value, "number"))?,
                "limit" => {
                    let limit: u32 = value.parse().map_err(|_| bad("limit", &value, "whole number"))?;
                    parsed.limit = limit.clamp(1, 10_000);
                }
                "format" => format = TableFormat::parse(&value)?,
                _ => {}
            }
        }
        Ok((parsed, format))
    }
}

/// Format of a result table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    /// A text table.
    Pretty,
    /// A JSON array of objects.
    Json,
    /// CSV with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl TableFormat {
    const ALL: [Self; 4] = [Self::Json, Self::Csv, Self::Arrow, Self::Pretty];

    const fn media_type(self) -> &'static str {
        match self {
            Self::Pretty => "text/plain; charset=utf-8",
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// Parses the `format` parameter.
    pub(crate) fn parse(name: &str) -> Result<Self, Problem> {
        let detail = || format!("parameter format: {name:?} is none of pretty, json, csv, arrow");
        serde_json::from_value(name.into()).map_err(|_| Problem::bad_request("bad_format", detail()))
    }

    /// Returns the first supported type of the `Accept` header; JSON if there is none.
    pub(crate) fn from_accept(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let accepted = accept.split(',').map(name);
        let supported = |accepted: String| Self::ALL.into_iter().find(|format| name(format.media_type()) == accepted);
        accepted.filter_map(supported).next().unwrap_or(Self::Json)
    }

    /// The response for a table in this format. The text table is for people, so it has no control characters.
    pub(crate) fn response(self, table: Vec<u8>) -> Response {
        let table = match self {
            Self::Pretty => visible_text(&String::from_utf8_lossy(&table)).into_owned().into_bytes(),
            Self::Json | Self::Csv | Self::Arrow => table,
        };
        ([(header::CONTENT_TYPE, self.media_type())], table).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_names_may_repeat_and_values_are_decoded() {
        let pairs = query_pairs("match[]=up%7Bjob%3D%22a+b%22%7D&match%5B%5D=x&start=1");
        let expected = [("match[]", "up{job=\"a b\"}"), ("match[]", "x"), ("start", "1")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn accept_header_selects_the_first_supported_format() {
        for (accept, format) in [
            ("", TableFormat::Json),
            ("*/*", TableFormat::Json),
            ("text/csv", TableFormat::Csv),
            ("text/html, application/vnd.apache.arrow.stream;q=0.9, text/csv", TableFormat::Arrow),
            ("TEXT/PLAIN", TableFormat::Pretty),
        ] {
            let headers = [(header::ACCEPT, accept.parse().unwrap())].into_iter().collect();
            assert_eq!(TableFormat::from_accept(&headers), format, "{accept}");
        }
    }

    #[test]
    fn trace_ids_are_read_in_every_spelling() {
        let parse = |query: &str| NamedQuery::parse(query, &HeaderMap::new()).map(|(query, _)| query.trace);
        let expected = Some(format!("{:0>32}", "1f2e"));
        for spelling in ["1f2e", "1F2E", "00001f2e", "0000000000000000000000000000001F2e"] {
            assert_eq!(parse(&format!("trace={spelling}")).unwrap(), expected, "{spelling}");
        }
        assert_eq!(parse("trace=xyz").unwrap_err().code(), "bad_trace_id");
    }

    #[test]
    fn incident_ids_have_the_prefix_and_a_positive_number() {
        assert_eq!(parse_incident_id("INC-42").unwrap(), 42);
        for wrong in ["42", "INC-0", "INC--1", "INC-x", ""] {
            assert_eq!(parse_incident_id(wrong).unwrap_err().code(), "no_such_incident", "{wrong}");
        }
    }
}
