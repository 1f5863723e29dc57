//! OpenTelemetry's protocol: metrics, logs and traces over HTTP (protobuf or JSON, gzip) and gRPC.
//!
//! ```text
//! JSON ──► the same message as protobuf ─┐
//! protobuf ──────────────────────────────┴──► read in place ──► samples, log lines, spans
//! ```
//!
//! Metrics get the names that Prometheus gives them (`otlp/names.rs`), so that one estate has one vocabulary
//! whichever way its readings come. Formats and status codes:
//! <https://opentelemetry.io/docs/specs/otlp/>.

mod attributes;
mod json;
mod logs;
mod metrics;
mod names;
mod traces;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use wardroom_domain::error::Failure;
use wardroom_edge::{InflateBudget, Inflated, Problem};

use crate::grpc;
use crate::protobuf::{Broken, put_bytes, put_varint};
use crate::source::{inflate_failure, malformed, too_many};
use crate::{Decoded, Outcome, RequestHead, Source};

/// `POST /v1/metrics`.
pub(crate) const METRICS: Otlp = Otlp {
    name: "otlp_metrics",
    path: "/v1/metrics",
    grpc_path: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    root: &json::METRICS,
    read: metrics::read_request,
    rejected: "rejectedDataPoints",
};
/// `POST /v1/logs`.
pub(crate) const LOGS: Otlp = Otlp {
    name: "otlp_logs",
    path: "/v1/logs",
    grpc_path: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    root: &json::LOGS,
    read: logs::read_request,
    rejected: "rejectedLogRecords",
};
/// `POST /v1/traces`.
pub(crate) const TRACES: Otlp = Otlp {
    name: "otlp_traces",
    path: "/v1/traces",
    grpc_path: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    root: &json::TRACES,
    read: traces::read_request,
    rejected: "rejectedSpans",
};

/// One signal.
pub(crate) struct Otlp {
    name: &'static str,
    path: &'static str,
    grpc_path: &'static str,
    root: &'static json::Fields,
    read: fn(Inflated, &RequestHead) -> Result<Decoded, Broken>,
    /// What the answer calls the records that were left out.
    rejected: &'static str,
}

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

impl Source for Otlp {
    fn name(&self) -> &'static str {
        self.name
    }

    fn path(&self) -> &'static str {
        self.path
    }

    fn grpc_path(&self) -> Option<&'static str> {
        Some(self.grpc_path)
    }

    fn check(&self, head: &RequestHead) -> Result<(), String> {
        if head.content_type != PROTOBUF && head.content_type != JSON {
            return Err(format!("Content-Type must be {PROTOBUF} or {JSON}"));
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
            let mut plain = budget.room(body.len()).map_err(inflate_failure)?;
            plain.room().copy_from_slice(body);
            plain
        };
        let plain = if head.content_type == JSON { json::to_protobuf(plain, self.root, budget)? } else { plain };
        (self.read)(plain, head).map_err(|broken| match broken {
            Broken::TooMany => too_many("data points, log records or spans"),
            broken => malformed(broken.to_string()),
        })
    }

    /// Always 200: a sender that gets 400 drops the request and tells nobody how much of it was taken.
    fn answer(&self, head: &RequestHead, outcome: &Outcome) -> Response {
        let rejected = outcome.rejected();
        let first = outcome.refused.first();
        let message = first.map(|first| format!("record {}: {}", first.first, first.detail)).unwrap_or_default();
        if head.content_type == JSON {
            let body = match rejected {
                0 => json!({}),
                _ => json!({ "partialSuccess": { self.rejected: rejected.to_string(), "errorMessage": message } }),
            };
            return body_of(StatusCode::OK, JSON, body.to_string().into_bytes());
        }
        let mut body = Vec::new();
        if rejected > 0 {
            let mut partial = vec![0x08];
            put_varint(&mut partial, rejected);
            put_bytes(&mut partial, 2, message.as_bytes());
            put_bytes(&mut body, 1, &partial);
        }
        body_of(StatusCode::OK, PROTOBUF, body)
    }

    /// `google.rpc.Status`, as the protocol wants it, with the words of our problem documents.
    fn refuse(&self, head: &RequestHead, problem: Problem) -> Response {
        let (status, code) = (problem.status(), grpc::code_of(problem.status()));
        let mut response = if head.content_type == JSON {
            let body = json!({ "code": code, "message": problem.detail() });
            body_of(status, JSON, body.to_string().into_bytes())
        } else {
            let mut body = vec![0x08, code];
            put_bytes(&mut body, 2, problem.detail().as_bytes());
            body_of(status, PROTOBUF, body)
        };
        let retry = problem.into_response().headers_mut().remove(header::RETRY_AFTER);
        response.headers_mut().extend(retry.map(|retry| (header::RETRY_AFTER, retry)));
        response
    }
}

fn body_of(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
