//! Shared request parsing: the caller, bodies, parameters, and the format of a table.

use std::num::NonZeroU32;

use axum::body::Bytes;
use axum::extract::{Extension, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer};
use wardroom_domain::trace_id::{TRACE_ID_DIGITS, normal_trace_id};
use wardroom_domain::{Identity, Timestamp, visible_text};
use wardroom_edge::Problem;

use crate::query_parameters::query_pairs;
use crate::warnings::changed_limit;

/// Maximum number of rows of a named query, a trace or a log search.
pub(crate) const MAX_ROWS: u32 = 10_000;
/// Rows of a named query or a log search without `limit`.
pub(crate) const DEFAULT_ROWS: u32 = 100;
/// Maximum length of the reason of a decision, in bytes; it is in the timeline and in the audit log.
const MAX_REASON_BYTES: usize = 4096;

/// The authenticated caller; the guard of the port adds it to the request.
pub(crate) type Caller = Extension<Identity>;

/// A body of text; one that is not UTF-8 gets 400.
pub(crate) struct TextBody(pub(crate) String);

impl<S: Send + Sync> FromRequest<S> for TextBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let text = String::from_request(request, state).await;
        text.map(Self).map_err(|rejection| Problem::new(rejection.status(), "bad_body", rejection.body_text()))
    }
}

/// A JSON body, whatever the `Content-Type`, and the fields of it that were ignored. An empty body reads as `{}`.
pub(crate) struct JsonBody<T>(pub(crate) T, pub(crate) Vec<String>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let TextBody(text) = TextBody::from_request(request, state).await?;
        let text = if text.trim().is_empty() { "{}" } else { text.as_str() };
        check_object::<T>(text)?;
        let (mut ignored, mut reader) = (Vec::new(), serde_json::Deserializer::from_str(text));
        let body = serde_ignored::deserialize(&mut reader, |path| ignored.push(path.to_string()));
        let body = body.and_then(|body| reader.end().map(|()| body));
        Ok(Self(body.map_err(|error| Problem::bad_request("bad_body", format!("body: {error}")))?, ignored))
    }
}

/// Refuses JSON that is no object: structures are read from arrays, too, as values without names.
pub(crate) fn check_object<T: DeserializeOwned>(text: &str) -> Result<(), Problem> {
    if text.trim_start().starts_with('{') {
        return Ok(());
    }
    let mut fields: &[&str] = &[];
    // Fails always: it is called for the names only.
    let _named: Result<T, _> = T::deserialize(FieldNames(&mut fields));
    let fields = if fields.is_empty() { String::new() } else { format!(" with the fields {}", fields.join(", ")) };
    Err(Problem::bad_request("bad_body", format!("body: not a JSON object{fields}")))
}

/// Notes the names of a structure's fields.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Error::custom("no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The body of an operation that needs none.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(crate) struct EmptyBody {}

/// Checks the length of a reason, and removes the spaces around it.
pub(crate) fn check_reason(reason: String) -> Result<String, Problem> {
    if reason.len() > MAX_REASON_BYTES {
        let detail = format!("field reason: {} bytes; at most {MAX_REASON_BYTES}", reason.len());
        return Err(Problem::bad_request("bad_reason", detail));
    }
    Ok(reason.trim().to_owned())
}

/// Parses an incident id such as `INC-42` into its number.
pub(crate) fn parse_incident_id(id: &str) -> Result<i64, Problem> {
    let number = id.strip_prefix("INC-").and_then(|digits| digits.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no_such_incident", format!("{id:?} is not of the form INC-42"))
    })
}

/// Parses the header `If-Match`: the revision that an incident must have; `None` without the header, or if any will do.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
    let detail = "header If-Match: pass the ETag of the incident unchanged, such as \"3\"; of several none";
    revision.map(Some).ok_or_else(|| Problem::bad_request("bad_if_match", detail))
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

/// Parses a step in seconds, or with a unit: `15`, `0.5`, `15s`, `1m`, `2h`. Returns milliseconds.
pub(crate) fn parse_step_ms(text: &str) -> Result<NonZeroU32, Problem> {
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

/// The error for an invalid `cursor` parameter.
pub(crate) fn bad_cursor() -> Problem {
    Problem::bad_request("bad_cursor", "parameter cursor: pass `next` of the previous page unchanged")
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
    /// Reads the parameters of a query string, the format of the response, and what to warn about.
    pub(crate) fn parse(
        query: &str,
        headers: &HeaderMap,
        default_limit: u32,
    ) -> Result<(Self, TableFormat, Vec<String>), Problem> {
        let mut parsed = Self {
            name: String::new(),
            start: Timestamp::from_nanos(i64::MIN),
            end: Timestamp::from_nanos(i64::MAX),
            service: None,
            trace: None,
            filter: String::new(),
            error_rate: 0.05,
            p99_ms: 1000.0,
            limit: default_limit,
        };
        let mut warnings = Vec::new();
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
                    let limit = parse_count(&value).ok_or_else(|| bad("limit", &value, "whole number"))?;
                    parsed.limit = limit.clamp(1, MAX_ROWS);
                    warnings.extend(changed_limit(limit, parsed.limit));
                }
                "format" => format = TableFormat::parse(&value)?,
                _ => {}
            }
        }
        Ok((parsed, format, warnings))
    }
}

/// Parses a whole number; one that is too large for the type reads as its largest.
fn parse_count(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u32::MAX))
}

/// Format of a result table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
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
    pub(crate) fn response(self, table: Bytes) -> Response {
        let table = match self {
            Self::Pretty => visible_text(&String::from_utf8_lossy(&table)).into_owned().into(),
            Self::Json | Self::Csv | Self::Arrow => table,
        };
        ([(header::CONTENT_TYPE, self.media_type())], table).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let parse = |query: &str| NamedQuery::parse(query, &HeaderMap::new(), 100).map(|(query, ..)| query.trace);
        let expected = Some(format!("{:0>32}", "1f2e"));
        for spelling in ["1f2e", "1F2E", "00001f2e", "00000000000000000000000000001F2e"] {
            assert_eq!(parse(&format!("trace={spelling}")).unwrap(), expected, "{spelling}");
        }
        assert_eq!(parse("trace=xyz").unwrap_err().code(), "bad_trace_id");
    }

    #[test]
    fn a_limit_out_of_range_is_changed_with_a_warning() {
        let parse = |query: &str| {
            let (query, _, warnings) = NamedQuery::parse(query, &HeaderMap::new(), 100).unwrap();
            (query.limit, warnings.len())
        };
        assert_eq!(["", "limit=7", "limit=10001", "limit=0"].map(parse), [(100, 0), (7, 0), (10_000, 1), (1, 1)]);
        assert_eq!(parse("limit=99999999999"), (10_000, 1));
        for wrong in ["limit=", "limit=-1", "limit=1.5", "limit=x"] {
            assert_eq!(
                NamedQuery::parse(wrong, &HeaderMap::new(), 100).unwrap_err().code(),
                "bad_parameter",
                "{wrong}"
            );
        }
    }

    #[test]
    fn fields_that_no_one_reads_are_listed() {
        let read = |body: &'static str| {
            let request = Request::builder().method("POST").uri("/").body(body.into()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(JsonBody::<EmptyBody>::from_request(request, &()));
            read.map(|JsonBody(_, ignored)| ignored).map_err(|problem| problem.code())
        };
        assert_eq!(read("").unwrap(), Vec::<String>::new());
        assert_eq!(read(r#"{"force":true,"a":{"b":1}}"#).unwrap(), ["force", "a"]);
        assert_eq!(read("{} x").unwrap_err(), "bad_body");
        assert_eq!(read("[").unwrap_err(), "bad_body");
    }

    #[test]
    fn a_body_that_is_no_object_is_refused_with_the_names_of_the_fields() {
        #[derive(Debug, Deserialize)]
        struct Verdict {
            verdict: String,
            cause: Option<String>,
        }
        let check = |text: &str| check_object::<Verdict>(text).map_err(|problem| problem.detail().to_owned());
        for text in ["[]", " [\"noise\",\"x\"]", "null", "1", "\"x\"", "x"] {
            let detail = "body: not a JSON object with the fields verdict, cause";
            assert_eq!(check(text), Err(detail.to_owned()), "{text}");
        }
        assert_eq!(check(" \n{\"verdict\":1}"), Ok(()));
        assert_eq!(check_object::<EmptyBody>("[]").unwrap_err().detail(), "body: not a JSON object");
        let read: Verdict = serde_json::from_str("[\"noise\",null]").unwrap();
        assert!(read.verdict == "noise" && read.cause.is_none(), "which the check prevents");
    }

    #[test]
    fn a_text_that_is_not_utf8_is_refused_with_a_problem() {
        let read = |body: &'static [u8]| {
            let request = Request::builder().method("POST").uri("/").body(body.into()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(TextBody::from_request(request, &()));
            read.map(|TextBody(text)| text).map_err(|problem| (problem.code(), problem.detail().contains("UTF-8")))
        };
        assert_eq!(read("SELECT 'ä'".as_bytes()), Ok("SELECT 'ä'".to_owned()));
        assert_eq!(read(b"SELECT '\xff'"), Err(("bad_body", true)));
    }

    #[test]
    fn incident_ids_have_the_prefix_and_a_positive_number() {
        assert_eq!(parse_incident_id("INC-42").unwrap(), 42);
        for wrong in ["42", "INC-0", "INC--1", "INC-x", ""] {
            assert_eq!(parse_incident_id(wrong).unwrap_err().code(), "no_such_incident", "{wrong}");
        }
    }

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
