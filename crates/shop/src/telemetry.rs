//! Export of telemetry: metrics by remote_write 1.0, logs and deployments as JSON; or metrics, logs and spans by OTLP
//! (`otlp.rs`).
//!
//! Requests that fail stay queued in order and are retried, as by a Prometheus agent.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::{Registry, proto::MetricType};
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::otlp::{self, Spans};

/// Queued requests; the oldest are dropped beyond that.
const MAX_QUEUED_REQUESTS: usize = 900;

/// Interval between checks of an empty queue.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Log lines of a service per second; further ones are dropped.
const MAX_LOG_LINES_PER_S: u32 = 20;

/// URLs of the receivers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Targets {
    pub(crate) remote_write: Option<String>,
    pub(crate) logs: Option<String>,
    pub(crate) deployments: Option<String>,
    /// Base URL for OTLP, instead of `remote_write` and `logs`.
    pub(crate) otlp: Option<String>,
    pub(crate) bearer_token_file: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Milliseconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "the shop is not part of the product and has its own clock")]
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_millis() as i64)
}

/// Formats ms since the epoch as RFC 3339.
pub(crate) fn rfc3339(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Civil date from days since the epoch, Howard Hinnant's algorithm.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (hour, minute, second, milli) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Encodes all metrics of a registry as one remote_write body.
fn remote_write_body(registry: &Registry, at_ms: i64) -> anyhow::Result<Vec<u8>> {
    let mut request = WriteRequest::default();
    let mut push = |name: String, labels: &[(String, String)], extra_label: Option<(&str, String)>, value: f64| {
        let mut all: Vec<Label> = vec![Label { name: "__name__".into(), value: name }];
        all.extend(labels.iter().map(|(name, value)| Label { name: name.clone(), value: value.clone() }));
        all.extend(extra_label.map(|(name, value)| Label { name: name.into(), value }));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        request.timeseries.push(TimeSeries { labels: all, samples: vec![Sample { value, timestamp: at_ms }] });
    };
    for family in registry.gather() {
        let name = family.name().to_owned();
        for metric in family.get_metric() {
            let labels: Vec<(String, String)> =
                metric.get_label().iter().map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect();
            match family.get_field_type() {
                MetricType::COUNTER => push(name.clone(), &labels, None, metric.get_counter().get_value()),
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
                        let le = Some(("le", bucket.upper_bound().to_string()));
                        push(format!("{name}_bucket"), &labels, le, bucket.cumulative_count() as f64);
                    }
                    let count = histogram.get_sample_count() as f64;
                    push(format!("{name}_bucket"), &labels, Some(("le", "+Inf".into())), count);
                    push(format!("{name}_count"), &labels, None, count);
                    push(format!("{name}_sum"), &labels, None, histogram.get_sample_sum());
                }
                _ => push(name.clone(), &labels, None, metric.get_gauge().get_value()),
            }
        }
    }
    Ok(snap::raw::Encoder::new().compress_vec(&request.encode_to_vec())?)
}

/// A queue of requests to one URL, sent in order.
pub(crate) struct Outbox {
    url: String,
    headers: Vec<(&'static str, String)>,
    token_file: Option<PathBuf>,
    queue: Arc<Mutex<VecDeque<Vec<u8>>>>,
}

impl Outbox {
    pub(crate) fn new(url: String, headers: Vec<(&'static str, String)>, token_file: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self { url, headers, token_file, queue: Arc::default() })
    }

    pub(crate) fn json(url: String, token_file: Option<PathBuf>) -> Arc<Self> {
        Self::new(url, vec![("Content-Type", "application/json".into())], token_file)
    }

    pub(crate) fn otlp(url: String, token_file: Option<PathBuf>) -> Arc<Self> {
        Self::new(url, vec![("Content-Type", "application/x-protobuf".into())], token_file)
    }

    pub(crate) fn metrics(url: String, token_file: Option<PathBuf>) -> Arc<Self> {
        let headers = vec![
            ("Content-Type", "application/x-protobuf".into()),
            ("Content-Encoding", "snappy".into()),
            ("X-Prometheus-Remote-Write-Version", "0.1.0".into()),
        ];
        Self::new(url, headers, token_file)
    }

    /// Adds a request to the queue.
    pub(crate) fn enqueue(&self, body: Vec<u8>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(body);
        while queue.len() > MAX_QUEUED_REQUESTS {
            queue.pop_front();
        }
    }

    /// Sends queued requests until the task is aborted. Requests are retried after a failure or a status of 5xx.
    pub(crate) async fn run(self: Arc<Self>) {
        let client = reqwest::Client::new();
        loop {
            let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).front().cloned();
            let Some(body) = next else {
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            };
            let mut request = client.post(&self.url).timeout(REQUEST_TIMEOUT).body(body);
            for (name, value) in &self.headers {
                request = request.header(*name, value);
            }
            if let Some(token) = self.token_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()) {
                request = request.bearer_auth(token.trim());
            }
            match request.send().await {
                Ok(response) if !response.status().is_server_error() => {
                    self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                }
                _ => tokio::time::sleep(RETRY_INTERVAL).await,
            }
        }
    }
}

/// Log of one service: written to standard output and queued for export.
#[derive(Clone)]
pub(crate) struct Log {
    service: String,
    /// Lines to export, with their times in ms.
    lines: Arc<Mutex<Vec<(i64, Value)>>>,
    /// The current second and the lines that may still be written in it.
    remaining: Arc<Mutex<(i64, u32)>>,
}

impl Log {
    pub(crate) fn new(service: &str) -> Self {
        Self { service: service.to_owned(), lines: Arc::default(), remaining: Arc::default() }
    }

    pub(crate) fn write(&self, level: &str, message: String, trace: &str) {
        let now = now_ms();
        {
            let mut remaining = self.remaining.lock().unwrap_or_else(PoisonError::into_inner);
            if remaining.0 != now / 1000 {
                *remaining = (now / 1000, MAX_LOG_LINES_PER_S);
            }
            if remaining.1 == 0 {
                return;
            }
            remaining.1 -= 1;
        }
        let line = json!({ "timestamp": rfc3339(now), "level": level, "message": message, "service": self.service,
            "labels": { "trace_id": trace } });
        print_line(&line);
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push((now, line));
    }

    /// The lines written since the last call.
    pub(crate) fn take(&self) -> Vec<(i64, Value)> {
        std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn print_line(line: &Value) {
    // A service goes on when the reader of its log has ended.
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// The export queues of one service.
pub(crate) struct Outboxes {
    metrics: Option<Arc<Outbox>>,
    logs: Option<Arc<Outbox>>,
    spans: Option<Arc<Outbox>>,
    otlp: bool,
}

impl Outboxes {
    /// Creates the queues and starts to send from them.
    pub(crate) fn new(targets: &Targets) -> Self {
        let token = || targets.bearer_token_file.clone();
        let outboxes = match &targets.otlp {
            Some(url) => {
                let to = |signal: &str| Some(Outbox::otlp(format!("{url}/v1/{signal}"), token()));
                Self { metrics: to("metrics"), logs: to("logs"), spans: to("traces"), otlp: true }
            }
            None => Self {
                metrics: targets.remote_write.clone().map(|url| Outbox::metrics(url, token())),
                logs: targets.logs.clone().map(|url| Outbox::json(url, token())),
                spans: None,
                otlp: false,
            },
        };
        for outbox in [&outboxes.metrics, &outboxes.logs, &outboxes.spans].into_iter().flatten() {
            tokio::spawn(Arc::clone(outbox).run());
        }
        outboxes
    }

    /// Queues the current metrics, and the logs and spans since the last call.
    pub(crate) fn enqueue(&self, service: &str, registries: &[&Registry], log: &Log, spans: Option<&Spans>) {
        let at_ms = now_ms();
        if let Some(outbox) = &self.metrics {
            if self.otlp {
                outbox.enqueue(otlp::metrics(registries, service, at_ms));
            } else {
                registries
                    .iter()
                    .filter_map(|registry| remote_write_body(registry, at_ms).ok())
                    .for_each(|body| outbox.enqueue(body));
            }
        }
        if let Some(outbox) = &self.logs {
            let lines = log.take();
            if !lines.is_empty() {
                outbox.enqueue(if self.otlp {
                    otlp::logs(&lines, service)
                } else {
                    Value::Array(lines.into_iter().map(|(_, line)| line).collect()).to_string().into_bytes()
                });
            }
        }
        if let (Some(outbox), Some(body)) = (&self.spans, spans.and_then(Spans::take)) {
            outbox.enqueue(body);
        }
    }
}
