//! OTLP export for `--otlp`: metrics, logs and spans. The metrics of outgoing calls are left out, so that the spans
//! alone contain which service calls which, as with services that are instrumented by an OpenTelemetry SDK only.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prometheus::Registry;
use prometheus::proto::MetricType;
use prost::Message;
use serde_json::Value;

/// Spans that are queued until the next export; further ones are dropped.
const MAX_QUEUED_SPANS: usize = 20_000;
/// `AGGREGATION_TEMPORALITY_CUMULATIVE` of OTLP.
const CUMULATIVE_TEMPORALITY: i32 = 2;

/// The side of a call that a span describes, with its number in OTLP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SpanKind {
    Server = 2,
    Client = 3,
}

/// Trace of a request, and the span that serves it.
#[derive(Clone, Debug)]
pub(crate) struct TraceContext {
    /// 32 hexadecimal digits.
    pub(crate) trace: String,
    pub(crate) span: u64,
}

/// A finished span.
pub(crate) struct FinishedSpan<'a> {
    pub(crate) kind: SpanKind,
    pub(crate) trace: &'a str,
    pub(crate) span: u64,
    /// Span id of the parent; 0 for none.
    pub(crate) parent: u64,
    pub(crate) name: String,
    pub(crate) duration: std::time::Duration,
    pub(crate) status: u16,
    /// Port of the called service, for client spans.
    pub(crate) port: Option<u16>,
}

/// The spans of one service.
#[derive(Clone)]
pub(crate) struct Spans {
    service: String,
    queued: Arc<Mutex<Vec<Span>>>,
}

impl Spans {
    pub(crate) fn new(service: &str) -> Self {
        Self { service: service.to_owned(), queued: Arc::default() }
    }

    /// Queues a span that ended at `now_ms`.
    pub(crate) fn record(&self, finished: FinishedSpan<'_>, now_ms: i64) {
        let end_time_unix_nano = now_ms as u64 * 1_000_000;
        let trace = u128::from_str_radix(finished.trace, 16).unwrap_or_default();
        let mut attributes = vec![number("http.response.status_code", i64::from(finished.status))];
        if let Some(port) = finished.port {
            attributes.extend([text("server.address", "127.0.0.1"), number("server.port", i64::from(port))]);
        }
        let failed = finished.status >= if matches!(finished.kind, SpanKind::Client) { 400 } else { 500 };
        let span = Span {
            trace_id: trace.to_be_bytes().to_vec(),
            span_id: finished.span.to_be_bytes().to_vec(),
            parent_span_id: if finished.parent == 0 { Vec::new() } else { finished.parent.to_be_bytes().to_vec() },
            name: finished.name,
            kind: finished.kind as i32,
            start_time_unix_nano: end_time_unix_nano.saturating_sub(finished.duration.as_nanos() as u64),
            end_time_unix_nano,
            attributes,
            status: failed.then(|| Status { code: 2, ..Status::default() }),
            ..Span::default()
        };
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        if queued.len() < MAX_QUEUED_SPANS {
            queued.push(span);
        }
    }

    /// Encodes the spans since the last call as one request; `None` if there are none.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let spans = std::mem::take(&mut *self.queued.lock().unwrap_or_else(PoisonError::into_inner));
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let group = ResourceSpans { resource: resource(&self.service), scope_spans, ..ResourceSpans::default() };
        let empty = group.scope_spans.iter().all(|scope| scope.spans.is_empty());
        (!empty).then(|| ExportTraceServiceRequest { resource_spans: vec![group] }.encode_to_vec())
    }
}

/// Encodes all metrics of some registries, except those of outgoing calls.
pub(crate) fn metrics(registries: &[&Registry], service: &str, at_ms: i64) -> Vec<u8> {
    let time_unix_nano = at_ms as u64 * 1_000_000;
    let mut metrics = Vec::new();
    for family in registries.iter().flat_map(|registry| registry.gather()) {
        let (mut numbers, mut histograms) = (Vec::new(), Vec::new());
        for metric in family.get_metric().iter().filter(|metric| !is_client_metric(metric)) {
            let labels = metric.get_label().iter().filter(|pair| pair.name() != "service");
            let attributes = labels.map(|pair| text(pair.name(), pair.value())).collect();
            let value = match family.get_field_type() {
                MetricType::HISTOGRAM => {
                    histograms.push(histogram(metric.get_histogram(), attributes, time_unix_nano));
                    continue;
                }
                MetricType::COUNTER => metric.get_counter().get_value(),
                _ => metric.get_gauge().get_value(),
            };
            let value = Some(number_data_point::Value::AsDouble(value));
            numbers.push(NumberDataPoint { attributes, time_unix_nano, value, ..NumberDataPoint::default() });
        }
        let data = match family.get_field_type() {
            MetricType::HISTOGRAM => {
                Data::Histogram(Histogram { data_points: histograms, aggregation_temporality: CUMULATIVE_TEMPORALITY })
            }
            MetricType::COUNTER => Data::Sum(Sum {
                data_points: numbers,
                aggregation_temporality: CUMULATIVE_TEMPORALITY,
                is_monotonic: true,
            }),
            _ => Data::Gauge(Gauge { data_points: numbers }),
        };
        metrics.push(Metric { name: family.name().to_owned(), data: Some(data), ..Metric::default() });
    }
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let group = ResourceMetrics { resource: resource(service), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![group] }.encode_to_vec()
}

/// Encodes log lines that [`Log`](crate::telemetry::Log) wrote, with their times in ms.
pub(crate) fn logs(lines: &[(i64, Value)], service: &str) -> Vec<u8> {
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let record = |(at_ms, line): &(i64, Value)| {
        let level = field(line, "level");
        let trace =
            u128::from_str_radix(line["labels"]["trace_id"].as_str().unwrap_or_default(), 16).unwrap_or_default();
        LogRecord {
            time_unix_nano: *at_ms as u64 * 1_000_000,
            severity_number: match level.as_str() {
                "ERROR" => 17,
                "WARN" => 13,
                _ => 9,
            },
            severity_text: level,
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(field(line, "message"))) }),
            trace_id: trace.to_be_bytes().to_vec(),
            ..LogRecord::default()
        }
    };
    let scope_logs = vec![ScopeLogs { log_records: lines.iter().map(record).collect(), ..ScopeLogs::default() }];
    let group = ResourceLogs { resource: resource(service), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![group] }.encode_to_vec()
}

/// Whether a metric describes outgoing calls.
fn is_client_metric(metric: &prometheus::proto::Metric) -> bool {
    metric.get_label().iter().any(|pair| pair.name() == "peer_service")
}

/// Converts a histogram: Prometheus counts cumulatively, OTLP per bucket.
fn histogram(
    source: &prometheus::proto::Histogram,
    attributes: Vec<KeyValue>,
    time_unix_nano: u64,
) -> HistogramDataPoint {
    let buckets: Vec<_> = source.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()).collect();
    let mut below = 0;
    let mut bucket_counts: Vec<u64> = buckets
        .iter()
        .map(|bucket| {
            let bucket_count = bucket.cumulative_count() - below;
            below = bucket.cumulative_count();
            bucket_count
        })
        .collect();
    bucket_counts.push(source.get_sample_count() - below);
    HistogramDataPoint {
        attributes,
        time_unix_nano,
        count: source.get_sample_count(),
        sum: Some(source.get_sample_sum()),
        bucket_counts,
        explicit_bounds: buckets.iter().map(|bucket| bucket.upper_bound()).collect(),
        ..HistogramDataPoint::default()
    }
}

fn resource(service: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![text("service.name", service)], ..Resource::default() })
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
