//! Invalid input on the ingest endpoints: status, problem code, the field named in the detail, and partial acceptance.

use serde_json::{Value, json};
use wardroom_testing::{Server, remote_write};

use crate::server;
use wardroom_testing::now_ms;

const PROTOBUF_HEADERS: [(&str, &str); 2] =
    [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
const JSON_HEADERS: [(&str, &str); 1] = [("Content-Type", "application/json")];

/// Posts a body and checks status, problem code and a word of the detail.
fn check(server: &Server, path: &str, headers: &[(&str, &str)], body: &[u8], expected: (u16, &str, &str)) -> Value {
    let (status, kind, text) = server.post(path, &server.sender_token, headers, body).unwrap();
    let problem: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {status} {text}"));
    assert_eq!(kind, "application/problem+json", "{path}");
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!((status, problem["code"].as_str().unwrap()), (expected.0, expected.1), "{path}: {detail}");
    assert!(detail.contains(expected.2), "{path}: {detail:?} does not mention {:?}", expected.2);
    problem
}

#[test]
fn remote_write_rejects_invalid_requests() {
    let (_dir, server) = server();
    let path = "/api/v1/write";
    let valid_body = remote_write::body(vec![remote_write::series(&[("__name__", "up")], 1.0, now_ms())]);
    check(&server, path, &PROTOBUF_HEADERS, &valid_body[..valid_body.len() - 3], (400, "malformed", "snappy"));
    check(&server, path, &PROTOBUF_HEADERS, b"\xff\xff\xff\xff\xff", (400, "malformed", "snappy"));
    check(&server, path, &PROTOBUF_HEADERS, &remote_write::compress(b"\x0a\x7f"), (400, "malformed", "truncated"));
    check(&server, path, &JSON_HEADERS, &valid_body, (415, "unsupported_type", "Content-Type"));
    // Six bytes that claim to decompress to 4 GiB.
    check(&server, path, &PROTOBUF_HEADERS, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00], (413, "too_large", "decompresses"));
    let huge = "x".repeat(10 << 20);
    check(
        &server,
        path,
        &PROTOBUF_HEADERS,
        &remote_write::body(vec![remote_write::series(&[("__name__", "up"), ("big", &huge)], 1.0, now_ms())]),
        (400, "label_limit", "\"big\""),
    );
    let mut utf8 = remote_write::series(&[("__name__", "up"), ("l", "AAAA")], 1.0, now_ms());
    utf8.labels[1].name = "l".into();
    let plain = body_with_invalid_utf8(utf8);
    check(&server, path, &PROTOBUF_HEADERS, &remote_write::compress(&plain), (400, "malformed", "UTF-8"));
    check(
        &server,
        path,
        &PROTOBUF_HEADERS,
        &remote_write::body(vec![remote_write::series(&[("a", "b")], 1.0, now_ms())]),
        (400, "bad_labels", "__name__"),
    );
}

/// Returns a request whose label value is not valid UTF-8.
fn body_with_invalid_utf8(series: remote_write::TimeSeries) -> Vec<u8> {
    let body = remote_write::body(vec![series]);
    let mut plain = snap::raw::Decoder::new();
    let length = snap::raw::decompress_len(&body).unwrap();
    let mut out = vec![0; length];
    plain.decompress(&body, &mut out).unwrap();
    let index = out.windows(4).position(|window| window == b"AAAA").unwrap();
    out[index] = 0xff;
    out
}

#[test]
fn valid_records_of_a_partly_invalid_request_are_accepted() {
    let (_dir, server) = server();
    let now = now_ms();
    let series = vec![
        remote_write::series(&[("__name__", "kept")], 1.5, now),
        remote_write::series(&[("__name__", "old")], 1.0, now - 49 * 3_600_000),
        remote_write::series(&[("__name__", "new")], 1.0, now + 11 * 60_000),
        remote_write::series(&[("__name__", "kept_too")], f64::NAN, now),
    ];
    let problem =
        check(&server, "/api/v1/write", &PROTOBUF_HEADERS, &remote_write::body(series), (400, "too_old", "h old"));
    assert_eq!((&problem["accepted"], &problem["rejected"]), (&json!(2), &json!(2)));
    let (_, text) = server.get("/api/v1/samples", &server.responder_token).unwrap();
    let page: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = page["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|series| series["labels"]["__name__"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["kept", "kept_too"]);
    let (_, metrics) = server.get("/metrics", "").unwrap();
    let latency = "wardroom_intake_latency_seconds_bucket{protocol=\"prometheus_remote_write\",le=\"+Inf\"}";
    assert!(metrics.contains(latency), "no latency histogram: {metrics}");
    for reason in ["too_old", "too_new"] {
        let line = metrics.lines().find(|line| line.contains("rejected_records_total") && line.contains(reason));
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{reason}: {line:?}");
    }
}

#[test]
fn json_ingest_errors_name_the_field() {
    let (_dir, server) = server();
    let metrics = "/ingest/metrics";
    check(&server, metrics, &JSON_HEADERS, br#"{"metric_name":"a","value":1.0"#, (400, "malformed", "JSON"));
    check(&server, metrics, &JSON_HEADERS, br#"{"metric_name":"a","value":"x"}"#, (400, "malformed", "field value"));
    check(&server, metrics, &JSON_HEADERS, br#"{"metric_name":"a","value":NaN}"#, (400, "bad_value", "field value"));
    check(&server, metrics, &JSON_HEADERS, br#"{"metric_name":"a","value":1e999}"#, (400, "bad_value", "field value"));
    check(&server, metrics, &JSON_HEADERS, br#"{"metric_name":"","value":1}"#, (400, "bad_labels", "metric_name"));
    check(&server, metrics, &JSON_HEADERS, b"{\"metric_name\":\"\xff\"}", (400, "malformed", "UTF-8"));
    let old = json!({ "metric_name": "a", "value": 1, "timestamp": "2020-01-01T00:00:00Z" }).to_string();
    check(&server, metrics, &JSON_HEADERS, old.as_bytes(), (400, "too_old", "h old"));
    let big = json!({ "metric_name": "a", "value": 1, "labels": { "big": "x".repeat(10 << 20) } }).to_string();
    check(&server, metrics, &JSON_HEADERS, big.as_bytes(), (400, "label_limit", "\"big\""));
    check(
        &server,
        "/ingest/logs",
        &JSON_HEADERS,
        br#"{"level":"ERROR","message":7,"service":"a"}"#,
        (400, "malformed", "message"),
    );
    check(
        &server,
        "/ingest/logs",
        &JSON_HEADERS,
        br#"{"level":"ERROR","message":"m","service":""}"#,
        (400, "bad_labels", "service"),
    );
    check(&server, "/ingest/deployment", &JSON_HEADERS, br#"{"service":"a"}"#, (400, "malformed", "version"));
    let gzip = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    check(&server, metrics, &gzip, &gzip_bomb(), (413, "too_large", "decompresses"));
    check(&server, metrics, &[("Content-Type", "text/plain")], b"{}", (415, "unsupported_type", "Content-Type"));
    let (status, _, _) =
        server.post(metrics, &server.sender_token, &JSON_HEADERS, br#"[{"metric_name":"a","value":1}]"#).unwrap();
    assert_eq!(status, 200);
    let deep = "[".repeat(10_000);
    check(&server, metrics, &JSON_HEADERS, deep.as_bytes(), (400, "malformed", "JSON"));
    let large = vec![b' '; 17 << 20];
    check(&server, metrics, &JSON_HEADERS, &large, (413, "body_too_large", "edge.max-body-bytes"));
}

/// 64 MiB of spaces, compressed to 64 KiB of gzip.
fn gzip_bomb() -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![b' '; 1 << 20];
    for _ in 0..64 {
        encoder.write_all(&block).unwrap();
    }
    encoder.finish().unwrap()
}
