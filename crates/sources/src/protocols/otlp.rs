//! OTLP: metrics, logs and traces over HTTP (protobuf or JSON, gzip) and gRPC.
//!
//! ```text
//! JSON ──► converted to protobuf ─┐
//! protobuf ───────────────────────┴──► decoded in place ──► samples, log lines, spans
//! ```
//!
//! Metrics get Prometheus names (`prometheus_names.rs`), so a metric has the same name whichever protocol it is sent
//! by. Formats and status codes: <https://opentelemetry.io/docs/specs/otlp/>.

mod attributes;
mod json_numbers;
mod json_to_protobuf;
mod logs;
mod metric_info;
mod metrics;
mod prometheus_names;
mod resources;
mod series_labels;
mod traces;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use wardroom_domain::error::Failure;
use wardroom_edge::{InflateBudget, InflatedBody, Problem};

use crate::decode::decoded::Decoded;
use crate::decode::failures::{inflate_failure, malformed, too_many};
use crate::decode::protobuf::{DecodeError, write_bytes_field, write_varint};
use crate::grpc_status::grpc_code;
use crate::source::{RequestHead, RequestOutcome, Source};

/// `POST /v1/metrics`.
pub(crate) const METRICS: OtlpSignal = OtlpSignal {
    name: "otlp_metrics",
    path: "/v1/metrics",
    grpc_path: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    root: &json_to_protobuf::METRICS,
    read: metrics::read_request,
    rejected_field: "rejectedDataPoints",
};
/// `POST /v1/logs`.
pub(crate) const LOGS: OtlpSignal = OtlpSignal {
    name: "otlp_logs",
    path: "/v1/logs",
    grpc_path: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    root: &json_to_protobuf::LOGS,
    read: logs::read_request,
    rejected_field: "rejectedLogRecords",
};
/// `POST /v1/traces`.
pub(crate) const TRACES: OtlpSignal = OtlpSignal {
    name: "otlp_traces",
    path: "/v1/traces",
    grpc_path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    root: &json_to_protobuf::TRACES,
    read: traces::read_request,
    rejected_field: "rejectedSpans",
};

/// The source of one signal.
pub(crate) struct OtlpSignal {
    name: &'static str,
    path: &'static str,
    grpc_path: &'static str,
    /// The root message, for JSON.
    root: &'static json_to_protobuf::Fields,
    read: fn(InflatedBody, &RequestHead) -> Result<Decoded, DecodeError>,
    /// Name of the JSON field with the number of refused records in the response.
    rejected_field: &'static str,
}

const JSON_CONTENT_TYPE: &str = "application/json";
const PROTOBUF_CONTENT_TYPE: &str = "application/x-protobuf";

impl OtlpSignal {
    /// Returns the warning about a request whose fields are all unknown; empty if there is none.
    fn unknown_fields_warning(&self, outcome: &RequestOutcome) -> String {
        if outcome.ignored_fields.is_empty() {
            return String::new();
        }
        let names: Vec<&str> = outcome.ignored_fields.iter().map(String::as_str).collect();
        let known = self.root.names();
        format!("the request has no records: unknown field ignored: {}; known: {known}", names.join(", "))
    }
}

impl Source for OtlpSignal {
    fn name(&self) -> &'static str {
        self.name
    }

    fn path(&self) -> &'static str {
        self.path
    }

    fn grpc_path(&self) -> Option<&'static str> {
        Some(self.grpc_path)
    }

    fn check_head(&self, head: &RequestHead) -> Result<(), String> {
        if head.content_type != PROTOBUF_CONTENT_TYPE && head.content_type != JSON_CONTENT_TYPE {
            return Err(format!("Content-Type must be {PROTOBUF_CONTENT_TYPE} or {JSON_CONTENT_TYPE}"));
        }
        if !["", "identity", "gzip"].contains(&head.content_encoding.as_str()) {
            return Err("Content-Encoding must be absent or gzip".into());
        }
        Ok(())
    }

    fn decode(&self, head: &RequestHead, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure> {
        let plain = if head.content_encoding == "gzip" {
            budget.gunzip(body).map_err(inflate_failure)?
        } else {
            let mut plain = budget.allocate(body.len()).map_err(inflate_failure)?;
            plain.bytes_mut().copy_from_slice(body);
            plain
        };
        let (plain, unknown) = if head.content_type == JSON_CONTENT_TYPE {
            json_to_protobuf::convert(plain, self.root, budget)?
        } else {
            (plain, Vec::new())
        };
        let mut decoded = (self.read)(plain, head).map_err(|error| match error {
            DecodeError::TooManyRecords => too_many("data points, log records or spans"),
            error => malformed(error.to_string()),
        })?;
        unknown.iter().for_each(|name| decoded.ignored_field(name));
        Ok(decoded)
    }

    /// Always 200 with a partial success: on a 400 a sender drops the request without reporting the accepted records.
    /// One that rejects nothing is a warning, as the specification allows: the request has no field that is known.
    fn success_response(&self, head: &RequestHead, outcome: &RequestOutcome) -> Response {
        let rejected = outcome.rejected();
        let first = outcome.refused.first();
        let message = first.map(|first| format!("record {}: {}", first.first, first.detail));
        let message = message.unwrap_or_else(|| self.unknown_fields_warning(outcome));
        if head.content_type == JSON_CONTENT_TYPE {
            let body = if message.is_empty() {
                json!({})
            } else {
                json!({ "partialSuccess": { self.rejected_field: rejected.to_string(), "errorMessage": message } })
            };
            return response_with_body(StatusCode::OK, JSON_CONTENT_TYPE, body.to_string().into_bytes());
        }
        let mut body = Vec::new();
        if rejected > 0 {
            let mut partial = vec![0x08];
            write_varint(&mut partial, rejected);
            write_bytes_field(&mut partial, 2, message.as_bytes());
            write_bytes_field(&mut body, 1, &partial);
        }
        response_with_body(StatusCode::OK, PROTOBUF_CONTENT_TYPE, body)
    }

    /// A `google.rpc.Status`, as OTLP requires, with the detail of the problem as message.
    fn error_response(&self, head: &RequestHead, problem: Problem) -> Response {
        let (status, code) = (problem.status(), grpc_code(problem.status()));
        let mut response = if head.content_type == JSON_CONTENT_TYPE {
            let body = json!({ "code": code, "message": problem.detail() });
            response_with_body(status, JSON_CONTENT_TYPE, body.to_string().into_bytes())
        } else {
            let mut body = vec![0x08, code];
            write_bytes_field(&mut body, 2, problem.detail().as_bytes());
            response_with_body(status, PROTOBUF_CONTENT_TYPE, body)
        };
        let retry = problem.into_response().headers_mut().remove(header::RETRY_AFTER);
        response.headers_mut().extend(retry.map(|retry| (header::RETRY_AFTER, retry)));
        response
    }
}

fn response_with_body(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use wardroom_domain::Timestamp;

    use super::*;

    #[tokio::test]
    async fn a_request_of_unknown_fields_gets_a_warning() {
        let head = RequestHead {
            content_type: JSON_CONTENT_TYPE.to_owned(),
            content_encoding: String::new(),
            received_at: Timestamp::from_millis(0),
        };
        let budget = InflateBudget::new(1 << 20, 1 << 20);
        let known = r#"{"resourceLogs":[{"scopelogs":[],"foo":1}],"bar":1}"#;
        for body in ["{}", r#"{"resourceLogs":[]}"#, r#"{"x":1,"resource_logs":null}"#, known, r#"{"resourceLogz":[]}"#]
        {
            let mut decoded = LOGS.decode(&head, body.as_bytes(), &budget).unwrap();
            let ignored_fields = std::mem::take(&mut decoded.ignored_fields);
            let response =
                LOGS.success_response(&head, &RequestOutcome { ignored_fields, ..RequestOutcome::default() });
            assert_eq!(response.status(), StatusCode::OK);
            let answer = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            let warning = "the request has no records: unknown field ignored: resourceLogz; known: resourceLogs";
            let expected = match body.contains("resourceLogz") {
                true => json!({ "partialSuccess": { "rejectedLogRecords": "0", "errorMessage": warning } }),
                false => json!({}),
            };
            assert_eq!(answer, expected, "{body}");
        }
    }
}
