//! JSON ingest: metrics, logs and deployments; one object or an array of objects per request.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use wardroom_domain::error::Failure;
use wardroom_domain::labels::NAME_LABEL;
use wardroom_domain::{Deployment, Labels, LogEntry, RefusalReason, Sample, Severity, Timestamp};
use wardroom_edge::InflateBudget;

use crate::decode::decoded::Decoded;
use crate::decode::failures::{MAX_RECORDS, inflate_failure, malformed, too_many};
use crate::decode::refusals::{RefusalCause, push_refusal};
use crate::source::{RequestHead, Source};

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
}

fn read_records<T: Record>(body: &[u8], received_at: Timestamp) -> Result<Decoded, Failure> {
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed(format!("the body is not UTF-8 at byte {}", error.valid_up_to())))?;
    let records = Records::read(text)?;
    let mut decoded = Decoded::default();
    for (position, record) in (0_u32..).zip(records.0) {
        let mut reader = serde_json::Deserializer::from_str(record.get());
        let added = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Ok(record) => record.add_to(received_at, &mut decoded),
            Err(error) => {
                let reason =
                    if out_of_range(error.inner()) { RefusalReason::BadValue } else { RefusalReason::Malformed };
                Err((reason, format!("field {}: {}", error.path(), error.inner())))
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
