//! JSON ingest: metrics, logs and deployments; one object or an array of objects per request.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wardroom_domain::error::Failure;
use wardroom_domain::labels::NAME_LABEL;
use wardroom_domain::{Deployment, Labels, LogEntry, RefusalReason, Sample, Severity, Timestamp};
use wardroom_edge::{InflateBudget, Problem, WARNING_HEADER};

use crate::decode::decoded::Decoded;
use crate::decode::failures::{MAX_RECORDS, inflate_failure, malformed, too_many};
use crate::decode::refusals::{RefusalCause, push_refusal};
use crate::source::{RequestHead, RequestOutcome, Source};

/// `POST /ingest/metrics`.
pub(crate) const METRICS: JsonIngest<MetricPoint> = JsonIngest::new("json_metrics", "/ingest/metrics");
/// `POST /ingest/logs`.
pub(crate) const LOGS: JsonIngest<LogRecord> = JsonIngest::new("json_logs", "/ingest/logs");
/// `POST /ingest/deployment`.
pub(crate) const DEPLOYMENT: JsonIngest<DeploymentEvent> = JsonIngest::new("json_deployment", "/ingest/deployment");

/// The source of one record type.
pub(crate) struct JsonIngest<T> {
    name: &'static str,
    path: &'static str,
    record: std::marker::PhantomData<fn() -> T>,
}

impl<T> JsonIngest<T> {
    const fn new(name: &'static str, path: &'static str) -> Self {
        Self { name, path, record: std::marker::PhantomData }
    }
}

/// A record type of the JSON ingest.
trait Record: DeserializeOwned {
    /// The fields of a record.
    const FIELDS: &'static [&'static str];

    /// Adds the record to the decoded request.
    ///
    /// # Errors
    /// Returns which field is not valid.
    fn add_to(self, received_at: Timestamp, decoded: &mut Decoded) -> Result<(), RefusalCause>;
}

impl<T: Record> Source for JsonIngest<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn path(&self) -> &'static str {
        self.path
    }

    fn check_head(&self, head: &RequestHead) -> Result<(), String> {
        if head.content_type != "application/json" {
            return Err("Content-Type must be application/json".into());
        }
        if !["", "identity", "gzip"].contains(&head.content_encoding.as_str()) {
            return Err("Content-Encoding must be absent or gzip".into());
        }
        Ok(())
    }

    fn decode(&self, head: &RequestHead, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure> {
        if head.content_encoding != "gzip" {
            return read_records::<T>(body, head.received_at);
        }
        let plain = budget.gunzip(body).map_err(inflate_failure)?;
        read_records::<T>(plain.bytes(), head.received_at)
    }

    fn success_response(&self, _: &RequestHead, outcome: &RequestOutcome) -> Response {
        let warning = ignored_fields_warning(&outcome.ignored_fields, T::FIELDS);
        let Some(warning) = warning else {
            return outcome.partial_failure().map_or_else(|| Json(json!({})).into_response(), Problem::into_response);
        };
        let mut response = match outcome.partial_failure() {
            Some(problem) => problem.with("warnings", vec![warning.clone()]).into_response(),
            None => Json(json!({ "warnings": [warning] })).into_response(),
        };
        if let Ok(value) = HeaderValue::try_from(warning) {
            response.headers_mut().insert(WARNING_HEADER, value);
        }
        response
    }
}

/// Names the fields that were ignored, in ASCII; `None` if there are none.
fn ignored_fields_warning(ignored: &BTreeSet<String>, known: &[&str]) -> Option<String> {
    if ignored.is_empty() {
        return None;
    }
    let shown = |name: &String| name.escape_default().to_string();
    let names: Vec<String> = ignored.iter().map(shown).collect();
    Some(format!("unknown field ignored: {}; known: {}", names.join(", "), known.join(", ")))
}

fn read_records<T: Record>(body: &[u8], received_at: Timestamp) -> Result<Decoded, Failure> {
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
    let records = Records::read(text)?;
    let mut decoded = Decoded::default();
    for (position, record) in (0_u32..).zip(records.0) {
        // Structures are read from arrays, too: values without names, which would change their meaning with the order.
        if !record.get().starts_with('{') {
            let detail = format!("not an object with the fields {}", T::FIELDS.join(", "));
            push_refusal(&mut decoded.refused, position, RefusalReason::Malformed, detail);
            continue;
        }
        let mut reader = serde_json::Deserializer::from_str(record.get());
        let mut on_ignored = |path: serde_ignored::Path<'_>| decoded.ignored_field(&path);
        let reader = serde_ignored::Deserializer::new(&mut reader, &mut on_ignored);
        let added = match serde_path_to_error::deserialize::<_, T>(reader) {
            Ok(record) => record.add_to(received_at, &mut decoded),
            Err(error) => {
                let reason =
                    if out_of_range(error.inner()) { RefusalReason::BadValue } else { RefusalReason::Malformed };
                // The path of the record itself, if a field is missing.
                let is_record = error.path().iter().next().is_none();
                let field = if is_record { String::new() } else { format!("field {}: ", error.path()) };
                Err((reason, format!("{field}{}", error.inner())))
            }
        };
        match added {
            Ok(()) => decoded.positions.push(position),
            Err((reason, detail)) => push_refusal(&mut decoded.refused, position, reason, detail),
        }
    }
    Ok(decoded)
}

/// The records of a body, each as raw text, because parsed values of `{},{},…` need thirty times the memory.
struct Records<'a>(Vec<&'a RawValue>);

impl<'a> Records<'a> {
    fn read(text: &'a str) -> Result<Self, Failure> {
        if !text.trim_start().starts_with('[') {
            return serde_json::from_str(text).map(|record| Self(vec![record])).map_err(|error| not_json(text, &error));
        }
        let records: Self = serde_json::from_str(text).map_err(|error| not_json(text, &error))?;
        if records.0.len() > MAX_RECORDS { Err(too_many("records")) } else { Ok(records) }
    }
}

impl<'de> Deserialize<'de> for Records<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Records(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Records<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while self.0.len() <= MAX_RECORDS {
            match list.next_element()? {
                Some(record) => self.0.push(record),
                None => return Ok(self),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self)
    }
}

fn out_of_range(error: &serde_json::Error) -> bool {
    error.to_string().contains("out of range")
}

fn not_json(text: &str, error: &serde_json::Error) -> Failure {
    let near = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let start = error.column().saturating_sub(20);
    let near: String = near.chars().skip(start).take(40).collect();
    let is_value_error = ["NaN", "Infinity"].iter().any(|word| near.contains(word)) || out_of_range(error);
    if is_value_error {
        let detail = format!(
            "field value: JSON has no NaN, infinities or numbers above 1.8e308; omit the record or send it by \
             remote_write ({error})"
        );
        return Failure::Rejected { reason: "bad_value", detail };
    }
    malformed(format!("the body is not JSON: {error}"))
}

/// A record of `/ingest/metrics`.
#[derive(Debug, Deserialize)]
pub(crate) struct MetricPoint {
    timestamp: Option<Timestamp>,
    metric_name: String,
    value: f64,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Record for MetricPoint {
    const FIELDS: &'static [&'static str] = &["timestamp", "metric_name", "value", "labels"];

    fn add_to(self, received_at: Timestamp, decoded: &mut Decoded) -> Result<(), RefusalCause> {
        if self.metric_name.is_empty() {
            return Err((RefusalReason::BadLabels, "field metric_name: must not be empty".into()));
        }
        if !self.value.is_finite() {
            return Err((RefusalReason::BadValue, "field value: must be a finite number".into()));
        }
        let mut pairs: Vec<(String, String)> = self.labels.into_iter().filter(|(name, _)| name != NAME_LABEL).collect();
        pairs.push((NAME_LABEL.to_owned(), self.metric_name));
        let ts_ms = self.timestamp.unwrap_or(received_at).millis();
        decoded.metrics.push(Ok(Labels::new(pairs)), &[Sample { ts_ms, value: self.value }]);
        Ok(())
    }
}

/// A record of `/ingest/logs`.
#[derive(Debug, Deserialize)]
pub(crate) struct LogRecord {
    timestamp: Option<Timestamp>,
    level: String,
    message: String,
    service: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Record for LogRecord {
    const FIELDS: &'static [&'static str] = &["timestamp", "level", "message", "service", "labels"];

    fn add_to(self, received_at: Timestamp, decoded: &mut Decoded) -> Result<(), RefusalCause> {
        if self.service.is_empty() {
            return Err((RefusalReason::BadLabels, "field service: must not be empty".into()));
        }
        decoded.logs.push(LogEntry {
            at: self.timestamp.unwrap_or(received_at),
            severity: Severity::from_level(&self.level),
            message: self.message,
            service: self.service,
            labels: Labels::new(self.labels.into_iter().collect()),
        });
        Ok(())
    }
}

/// A record of `/ingest/deployment`.
#[derive(Debug, Deserialize)]
pub(crate) struct DeploymentEvent {
    timestamp: Option<Timestamp>,
    service: String,
    version: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
}

impl Record for DeploymentEvent {
    const FIELDS: &'static [&'static str] = &["timestamp", "service", "version", "status", "metadata"];

    fn add_to(self, received_at: Timestamp, decoded: &mut Decoded) -> Result<(), RefusalCause> {
        if self.service.is_empty() {
            return Err((RefusalReason::BadLabels, "field service: must not be empty".into()));
        }
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        decoded.deployments.push(Deployment {
            at: self.timestamp.unwrap_or(received_at),
            service: self.service,
            version: self.version,
            status: self.status,
            metadata: Labels::new(self.metadata.into_iter().map(|(name, value)| (name, text(value))).collect()),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(body: &str) -> Decoded {
        read_records::<LogRecord>(body.as_bytes(), Timestamp::from_millis(0)).unwrap()
    }

    fn respond(decoded: Decoded) -> (u16, Option<String>) {
        let outcome = RequestOutcome {
            accepted: decoded.len(),
            refused: decoded.refused,
            ignored_fields: decoded.ignored_fields,
            ..RequestOutcome::default()
        };
        let (content_type, received_at) = ("application/json".to_owned(), Timestamp::from_millis(0));
        let head = RequestHead { content_type, content_encoding: String::new(), received_at };
        let response = LOGS.success_response(&head, &outcome);
        let warning = response.headers().get(WARNING_HEADER).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), warning)
    }

    #[test]
    fn unknown_fields_are_ignored_with_a_warning() {
        let known = r#"{"level":"INFO","message":"m","service":"a","labels":{"any":"name"}}"#;
        assert_eq!(respond(decode(known)), (200, None));
        let unknown = r#"[{"level":"INFO","message":"m","service":"a","sevrice":"b","x\u001b":{"y":[1]}}]"#;
        let (status, warning) = respond(decode(unknown));
        assert_eq!(status, 200);
        let expected = "unknown field ignored: sevrice, x\\u{1b}; known: timestamp, level, message, service, labels";
        assert_eq!(warning.as_deref(), Some(expected));
        let (status, warning) = respond(decode(r#"{"levle":"INFO","message":"m","service":"a"}"#));
        assert!(status == 400 && warning.is_some(), "a misspelt field that is required");
        let many: Vec<String> = (0..1000).map(|n| format!("\"{n:x<300}\":1")).collect();
        let many = format!(r#"{{"level":"INFO","message":"m","service":"a",{}}}"#, many.join(","));
        assert_eq!(decode(&many).ignored_fields.len(), crate::decode::decoded::MAX_IGNORED_FIELDS);
    }

    #[test]
    fn a_record_is_an_object() {
        let body = r#"[["2026-01-01T00:00:00Z","ERROR","m","s",{}], null, 5, "x", [],
            {"level":"INFO","message":"m","service":"a"}]"#;
        let decoded = decode(body);
        assert_eq!((decoded.logs.len(), decoded.positions.as_slice()), (1, &[5][..]));
        let refused = &decoded.refused;
        assert!(refused.iter().all(|refusal| refusal.reason == RefusalReason::Malformed), "{refused:?}");
        let expected = "not an object with the fields timestamp, level, message, service, labels";
        assert_eq!(refused.first().map(|refusal| refusal.detail.as_str()), Some(expected));
        assert_eq!(respond(decoded).0, 400);
        let missing = decode(r#"{"level":"INFO","message":"m"}"#);
        assert!(missing.refused[0].detail.starts_with("missing field `service`"), "{:?}", missing.refused);
        let wrong = decode(r#"{"level":"INFO","message":"m","service":"a","labels":{"b":1}}"#);
        assert!(wrong.refused[0].detail.starts_with("field labels.b: invalid type"), "{:?}", wrong.refused);
        for body in ["5", "null", "\"x\"", " \n 5", "[[]]"] {
            assert_eq!(respond(decode(body)).0, 400, "{body}");
        }
        assert_eq!(respond(decode(" \n {\"level\":\"INFO\",\"message\":\"m\",\"service\":\"a\"} ")), (200, None));
        let deployment = br#"[[null,"a","v1","success",{}]]"#;
        let decoded = read_records::<DeploymentEvent>(deployment, Timestamp::from_millis(0)).unwrap();
        assert_eq!((decoded.deployments.len(), decoded.refused.len()), (0, 1));
        let point = br#"[[null,"m",1.0,{}]]"#;
        let decoded = read_records::<MetricPoint>(point, Timestamp::from_millis(0)).unwrap();
        assert_eq!((decoded.len(), decoded.refused.len()), (0, 1));
    }
}
