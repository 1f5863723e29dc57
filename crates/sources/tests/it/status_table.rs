//! Bar 1d: what each sender is told for each cause of failure, so that it keeps what it should send again and drops
//! what can never be taken. Twelve causes, every protocol.

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

use super::{Label, NOW_MS, PbSample, TimeSeries, World, WriteRequest, capture, world, world_of, world_with};

/// One way in.
struct Column {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    encoding: &'static str,
    good: fn() -> Vec<u8>,
    /// One record of two is too old.
    partial: fn() -> Vec<u8>,
    grpc: bool,
}

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
const PB: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const GRPC: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

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

const OLD: &str = "1970-01-02T00:00:00Z";

const COLUMNS: [Column; 8] = [
    Column {
        name: "remote_write 1.0",
        path: "/api/v1/write",
        kind: PB,
        encoding: "snappy",
        good: || capture("first_scrape.snappy.pb"),
        partial: two_samples,
        grpc: false,
    },
    Column {
        name: "remote_write 2.0",
        path: "/api/v1/write",
        kind: V2,
        encoding: "snappy",
        good: || fixture("ordinary"),
        partial: || fixture("too_old"),
        grpc: false,
    },
    Column {
        name: "OTLP protobuf",
        path: "/v1/logs",
        kind: PB,
        encoding: "",
        good: || capture("otlp/001-logs.pb"),
        partial: pb_logs,
        grpc: false,
    },
    Column {
        name: "OTLP JSON",
        path: "/v1/logs",
        kind: JSON,
        encoding: "",
        good: || capture("otlp/009-logs-node.json"),
        partial: || text(otlp_logs()),
        grpc: false,
    },
    Column {
        name: "OTLP gRPC",
        path: GRPC,
        kind: "application/grpc",
        encoding: "",
        good: || frame(capture("otlp/001-logs.pb")),
        partial: || frame(pb_logs()),
        grpc: true,
    },
    Column {
        name: "JSON metrics",
        path: "/ingest/metrics",
        kind: JSON,
        encoding: "",
        good: || text(json!({ "metric_name": "a", "value": 1 })),
        partial: || {
            text(json!([{ "metric_name": "a", "value": 1 }, { "metric_name": "a", "value": 1, "timestamp": OLD }]))
        },
        grpc: false,
    },
    Column {
        name: "JSON logs",
        path: "/ingest/logs",
        kind: JSON,
        encoding: "",
        good: || text(json!({ "level": "INFO", "message": "m", "service": "s" })),
        partial: || {
            text(
                json!([{ "level": "INFO", "message": "m", "service": "s" }, { "level": "INFO", "message": "m", "service": "s", "timestamp": OLD }]),
            )
        },
        grpc: false,
    },
    Column {
        name: "JSON deployment",
        path: "/ingest/deployment",
        kind: JSON,
        encoding: "",
        good: || text(json!({ "service": "s", "version": "1" })),
        partial: || {
            text(json!([{ "service": "s", "version": "1" }, { "service": "s", "version": "1", "timestamp": OLD }]))
        },
        grpc: false,
    },
];

/// What a sender sees: the HTTP status, or that of gRPC, and whether it is told when to come again.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Http(u16, bool),
    Grpc(u16),
}

impl Column {
    async fn ask(&self, world: &World, token: &str, kind: &str, body: Body) -> Told {
        let mut request = Request::post(self.path).header("content-type", kind);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if !self.encoding.is_empty() {
            request = request.header("content-encoding", self.encoding);
        }
        let answer = world.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let status =
            |headers: &HeaderMap| headers.get("grpc-status").map(|code| code.to_str().unwrap().parse().unwrap());
        match status(&parts.headers).or_else(|| status(&trailers)) {
            Some(code) if self.grpc => Told::Grpc(code),
            _ => Told::Http(parts.status.as_u16(), parts.headers.contains_key("retry-after")),
        }
    }

    async fn good(&self, world: &World) -> Told {
        self.ask(world, &world.token, self.kind, Body::from((self.good)())).await
    }

    fn expect(&self, http: StatusCode, again: bool, grpc: u16) -> Told {
        if self.grpc { Told::Grpc(grpc) } else { Told::Http(http.as_u16(), again) }
    }
}

/// A body that never comes.
struct Never;

impl HttpBody for Never {
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
async fn each_cause_has_the_answer_that_its_sender_needs() {
    let (again, gone) = (true, false);
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let mut cells = 0;
    for column in &COLUMNS {
        let name = column.name;
        let mut check = |cause: &str, told: Told, expected: Told| {
            assert_eq!(told, expected, "{name}: {cause}");
            cells += 1;
        };
        for (cause, failure) in [
            ("disk full", Failure::Quota("the log is at its limit".into())),
            ("fsync fails", Failure::Fatal("fdatasync failed".into())),
            ("bus down", Failure::Fatal("bus open failed".into())),
            ("shutting down", Failure::Fatal("bus is closed".into())),
        ] {
            let broken = world(Some(failure));
            check(cause, column.good(&broken).await, column.expect(unavailable, again, 14));
        }
        let locked = world(None);
        locked.tokens.replace(None);
        // The guard stands before every protocol: a client of gRPC reads 503 as UNAVAILABLE and 401 as
        // UNAUTHENTICATED.
        check("state store down", column.good(&locked).await, Told::Http(503, again));
        let narrow = world_with(None, 1);
        column.good(&narrow).await;
        check("over quota", column.good(&narrow).await, column.expect(unavailable, again, 14));
        let open = world(None);
        let large = Body::from(vec![b' '; 17 << 20]);
        let told = column.ask(&open, &open.token, column.kind, large).await;
        check("over size", told, column.expect(StatusCode::PAYLOAD_TOO_LARGE, gone, 8));
        let told = column.ask(&open, &open.token, column.kind, Body::from(vec![0xff; 64])).await;
        check("bad body", told, column.expect(StatusCode::BAD_REQUEST, gone, 3));
        let told = column.ask(&open, &open.token, "text/csv", Body::from((column.good)())).await;
        check("bad type", told, Told::Http(415, gone));
        let told = column.ask(&open, &open.token, column.kind, Body::from((column.partial)())).await;
        let otlp = name.starts_with("OTLP");
        let status = if otlp { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        check("partial", told, column.expect(status, gone, 0));
        assert!(!open.kept.lock().unwrap().is_empty(), "{name}: the good part is kept");
        let told = column.ask(&open, "", column.kind, Body::from((column.good)())).await;
        check("unauthenticated", told, Told::Http(401, gone));
        let hurried = world_of(None, 0, EdgeConfig { body_timeout_seconds: 0, ..EdgeConfig::default() });
        let told = column.ask(&hurried, &hurried.token, column.kind, Body::new(Never)).await;
        check("timeout", told, column.expect(unavailable, again, 14));
    }
    assert_eq!(cells, 96);
}
