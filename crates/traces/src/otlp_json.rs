//! Spans as OTLP/JSON, which every collector takes at `/v1/traces`.

use serde_json::{Value, json};

use crate::finished_span::FinishedSpan;

/// `SPAN_KIND_INTERNAL`, `SPAN_KIND_SERVER` and `SPAN_KIND_CLIENT`.
const KINDS: [u8; 3] = [1, 2, 3];
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;
/// HTTP status from which a server's span has failed.
const FIRST_FAILURE: u64 = 500;

/// Returns the body of a request with spans of a service.
pub(crate) fn request(service: &str, spans: &[FinishedSpan]) -> Value {
    let resource = [("service.name", service), ("service.version", env!("CARGO_PKG_VERSION"))];
    let resource: Vec<Value> = resource.into_iter().map(|(key, value)| attribute(key, value)).collect();
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": { "name": "wardroom" }, "spans": spans }],
    }] })
}

fn span(span: &FinishedSpan) -> Value {
    let mut attributes: Vec<Value> =
        span.attributes.iter().map(|(name, value)| attribute(semantic_name(name), value)).collect();
    if let Some(status) = span.status {
        let value = json!({ "intValue": status.to_string() });
        attributes.push(json!({ "key": "http.response.status_code", "value": value }));
    }
    let started = span.started_at.nanos();
    let ended = span.started_at.plus(span.duration).nanos();
    let mut value = json!({
        "traceId": format!("{:032x}", span.context.trace_id),
        "spanId": format!("{:016x}", span.context.span_id),
        "name": span.name,
        "kind": kind(span.name),
        "startTimeUnixNano": started.to_string(),
        "endTimeUnixNano": ended.to_string(),
        "attributes": attributes,
    });
    if let Some(parent) = span.parent {
        value["parentSpanId"] = format!("{parent:016x}").into();
    }
    if span.status.is_some_and(|status| status >= FIRST_FAILURE) {
        value["status"] = json!({ "code": ERROR });
    }
    value
}

/// The kind of a span, by its name: what answers another process, and what calls one.
fn kind(name: &str) -> u8 {
    let [internal, server, client] = KINDS;
    match name {
        "request" | "executor request" => server,
        "executor" | "query" => client,
        _ => internal,
    }
}

/// The name of a field in OpenTelemetry's conventions.
fn semantic_name(field: &str) -> &str {
    match field {
        "path" => "url.path",
        "method" => "http.request.method",
        other => other,
    }
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}
