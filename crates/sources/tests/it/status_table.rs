//! The response of every protocol to each of twelve causes of failure: it must make the sender retry what can succeed
//! later and drop what cannot.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use prost::Message;
use serde_json::{Value, json};
use tower::ServiceExt;
use wardroom_domain::error::Failure;
use wardroom_edge::Config as EdgeConfig;

use super::{
    Label, NOW_MS, PbSample, TestServer, TimeSeries, WriteRequest, capture, test_server, test_server_with,
    test_server_with_rate_limit,
};

/// One protocol with its requests.
struct Protocol {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    encoding: &'static str,
    valid: fn() -> Vec<u8>,
    /// One record of two is too old.
    partial: fn() -> Vec<u8>,
    grpc: bool,
}

const REMOTE_WRITE_V2_TYPE: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
const PROTOBUF_TYPE: &str = "application/x-protobuf";
const JSON_TYPE: &str = "application/json";
const GRPC_LOGS_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/it/remote_write_v2/{name}.snappy.pb", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn two_samples() -> Vec<u8> {
    let labels = vec![Label { name: "__name__".into(), value: "m".into() }];
    let samples = [1, NOW_MS].map(|timestamp| PbSample { value: 1.0, timestamp }).to_vec();
    let plain = WriteRequest { timeseries: vec![TimeSeries { labels, samples }] }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&plain).unwrap()
}

fn text(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn otlp_logs() -> Value {
    let record = |ms: i64| json!({ "timeUnixNano": (ms * 1_000_000).to_string(), "body": { "stringValue": "x" } });
    json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record(1), record(NOW_MS)] }] }] })
}

fn pb_logs() -> Vec<u8> {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    let record = |ms: i64| LogRecord { time_unix_nano: ms as u64 * 1_000_000, ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record(1), record(NOW_MS)], ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn frame(message: Vec<u8>) -> Vec<u8> {
    [&[0_u8][..], &(message.len() as u32).to_be_bytes(), &message].concat()
}

const OLD_TIMESTAMP: &str = "1970-01-02T00:00:00Z";

const PROTOCOLS: [Protocol; 8] = [
    Protocol {
        name: "remote_write 1.0",
        path: "/api/v1/write",
        kind: PROTOBUF_TYPE,
        encoding: "snappy",
        valid: || capture("first_scrape.snappy.pb"),
        partial: two_samples,
        grpc: false,
    },
    Protocol {
        name: "remote_write 2.0",
        path: "/api/v1/write",
        kind: REMOTE_WRITE_V2_TYPE,
        encoding: "snappy",
        valid: || fixture("ordinary"),
        partial: || fixture("too_old"),
        grpc: false,
    },
    Protocol {
        name: "OTLP protobuf",
        path: "/v1/logs",
        kind: PROTOBUF_TYPE,
        encoding: "",
        valid: || capture("otlp/001-logs.pb"),
        partial: pb_logs,
        grpc: false,
    },
    Protocol {
        name: "OTLP JSON",
        path: "/v1/logs",
        kind: JSON_TYPE,
        encoding: "",
        valid: || capture("otlp/009-logs-node.json"),
        partial: || text(otlp_logs()),
        grpc: false,
    },
    Protocol {
        name: "OTLP gRPC",
        path: GRPC_LOGS_PATH,
        kind: "application/grpc",
        encoding: "",
        valid: || frame(capture("otlp/001-logs.pb")),
        partial: || frame(pb_logs()),
        grpc: true,
    },
    Protocol {
        name: "JSON metrics",
        path: "/ingest/metrics",
        kind: JSON_TYPE,
        encoding: "",
        valid: || text(json!({ "metric_name": "a", "value": 1 })),
        partial: || {
            text(
                json!([{ "metric_name": "a", "value": 1 }, { "metric_name": "a", "value": 1, "timestamp": OLD_TIMESTAMP }]),
            )
        },
        grpc: false,
    },
    Protocol {
        name: "JSON logs",
        path: "/ingest/logs",
        kind: JSON_TYPE,
        encoding: "",
        valid: || text(json!({ "level": "INFO", "message": "m", "service": "s" })),
        partial: || {
            text(
                json!([{ "level": "INFO", "message": "m", "service": "s" }, { "level": "INFO", "message": "m", "service": "s", "timestamp": OLD_TIMESTAMP }]),
            )
        },
        grpc: false,
    },
    Protocol {
        name: "JSON deployment",
        path: "/ingest/deployment",
        kind: JSON_TYPE,
        encoding: "",
        valid: || text(json!({ "service": "s", "version": "1" })),
        partial: || {
            text(
                json!([{ "service": "s", "version": "1" }, { "service": "s", "version": "1", "timestamp": OLD_TIMESTAMP }]),
            )
        },
        grpc: false,
    },
];

/// The response as the sender sees it: the HTTP status with whether there is `Retry-After`, or the gRPC status.
#[derive(Debug, PartialEq, Eq)]
enum SenderResponse {
    Http(u16, bool),
    Grpc(u16),
}

impl Protocol {
    async fn send(&self, server: &TestServer, token: &str, kind: &str, body: Body) -> SenderResponse {
        let mut request = Request::post(self.path).header("content-type", kind);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !self.encoding.is_empty() {
            request = request.header("content-encoding", self.encoding);
        }
        let http_response = server.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = http_response.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let status =
            |headers: &HeaderMap| headers.get("grpc-status").map(|code| code.to_str().unwrap().parse().unwrap());
        match status(&parts.headers).or_else(|| status(&trailers)) {
            Some(code) if self.grpc => SenderResponse::Grpc(code),
            _ => SenderResponse::Http(parts.status.as_u16(), parts.headers.contains_key("retry-after")),
        }
    }

    async fn valid(&self, server: &TestServer) -> SenderResponse {
        self.send(server, &server.token, self.kind, Body::from((self.valid)())).await
    }

    fn expect(&self, http: StatusCode, retry: bool, grpc: u16) -> SenderResponse {
        if self.grpc { SenderResponse::Grpc(grpc) } else { SenderResponse::Http(http.as_u16(), retry) }
    }
}

/// A body that never arrives.
struct PendingBody;

impl HttpBody for PendingBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn every_failure_cause_has_the_right_response_in_every_protocol() {
    let (retry, no_retry) = (true, false);
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let mut cells = 0;
    for protocol in &PROTOCOLS {
        let name = protocol.name;
        let mut check = |cause: &str, response: SenderResponse, expected: SenderResponse| {
            assert_eq!(response, expected, "{name}: {cause}");
            cells += 1;
        };
        for (cause, failure) in [
            ("disk full", Failure::Quota("the log is at its limit".into())),
            ("fsync fails", Failure::Fatal("fdatasync failed".into())),
            ("bus down", Failure::Fatal("bus open failed".into())),
            ("shutting down", Failure::Fatal("bus is closed".into())),
        ] {
            let failing_server = test_server(Some(failure));
            check(cause, protocol.valid(&failing_server).await, protocol.expect(unavailable, retry, 14));
        }
        let without_tokens = test_server(None);
        without_tokens.tokens.replace(None);
        // The access check responds over HTTP for every protocol: gRPC clients map 503 to UNAVAILABLE and 401 to
        // UNAUTHENTICATED.
        check("state store down", protocol.valid(&without_tokens).await, SenderResponse::Http(503, retry));
        let limited_server = test_server_with_rate_limit(None, 1);
        protocol.valid(&limited_server).await;
        check("over quota", protocol.valid(&limited_server).await, protocol.expect(unavailable, retry, 14));
        let server = test_server(None);
        let large = Body::from(vec![b' '; 17 << 20]);
        let response = protocol.send(&server, &server.token, protocol.kind, large).await;
        check("over size", response, protocol.expect(StatusCode::PAYLOAD_TOO_LARGE, no_retry, 8));
        let response = protocol.send(&server, &server.token, protocol.kind, Body::from(vec![0xff; 64])).await;
        check("bad body", response, protocol.expect(StatusCode::BAD_REQUEST, no_retry, 3));
        let response = protocol.send(&server, &server.token, "text/csv", Body::from((protocol.valid)())).await;
        check("bad type", response, SenderResponse::Http(415, no_retry));
        let response = protocol.send(&server, &server.token, protocol.kind, Body::from((protocol.partial)())).await;
        let otlp = name.starts_with("OTLP");
        let status = if otlp { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        check("partial", response, protocol.expect(status, no_retry, 0));
        assert!(!server.appended.lock().unwrap().is_empty(), "{name}: the valid part is appended");
        let response = protocol.send(&server, "", protocol.kind, Body::from((protocol.valid)())).await;
        check("unauthenticated", response, SenderResponse::Http(401, no_retry));
        let impatient = test_server_with(None, 0, EdgeConfig { body_timeout_seconds: 0, ..EdgeConfig::default() });
        let response = protocol.send(&impatient, &impatient.token, protocol.kind, Body::new(PendingBody)).await;
        check("timeout", response, protocol.expect(unavailable, retry, 14));
    }
    assert_eq!(cells, 96);
}
