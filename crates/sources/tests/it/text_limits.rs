//! Limits on the texts that are kept of a record: long ones are refused, the other records of the request are stored.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;
use wardroom_domain::RefusalReason;

use super::{TestServer, test_server};

/// One byte more than the default limit of a label value.
const TOO_LONG: usize = 4097;

async fn post(server: &TestServer, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {}", server.token))
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

fn with(record: &Value, field: &str, value: Value) -> Value {
    let mut record = record.clone();
    record[field] = value;
    record
}

#[tokio::test]
async fn long_texts_are_refused_and_the_rest_of_the_request_is_stored() {
    let (long, short) = ("x".repeat(TOO_LONG), "x".repeat(TOO_LONG - 1));
    let log = json!({ "level": "INFO", "message": "m", "service": "a" });
    let deployment = json!({ "service": "a", "version": "1", "status": "success" });
    let long_name = json!({ "n".repeat(1025): "v" });
    let many: serde_json::Map<String, Value> = (0..65).map(|index| (format!("l{index}"), json!("v"))).collect();
    let cases = [
        ("/ingest/logs", with(&log, "service", json!(long)), "field service", "max-label-value-bytes"),
        ("/ingest/logs", with(&log, "labels", json!({ "v": long })), "label \"v\"", "max-label-value-bytes"),
        ("/ingest/logs", with(&log, "labels", long_name.clone()), "label name", "max-label-name-bytes"),
        ("/ingest/deployment", with(&deployment, "service", json!(long)), "field service", "max-label-value-bytes"),
        ("/ingest/deployment", with(&deployment, "version", json!(long)), "field version", "max-label-value-bytes"),
        ("/ingest/deployment", with(&deployment, "status", json!(long)), "field status", "max-label-value-bytes"),
        ("/ingest/deployment", with(&deployment, "metadata", json!({ "m": long })), "label \"m\"", "bytes"),
        ("/ingest/deployment", with(&deployment, "metadata", json!(many)), "more than 64 labels", "max-labels"),
    ];
    for (path, refused, field, setting) in cases {
        let server = test_server(None);
        let valid = if path == "/ingest/logs" { &log } else { &deployment };
        let (status, problem) = post(&server, path, &json!([valid, refused, valid])).await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("label_limit")), "{problem}");
        assert_eq!((&problem["accepted"], &problem["rejected"]), (&json!(2), &json!(1)), "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("record 1: ") && detail.contains(field) && detail.contains(setting), "{detail}");
        let appended = server.appended.lock().unwrap();
        assert_eq!(appended[0].batch.len(), 2);
        assert_eq!(appended[0].envelope.refused[0].reason, RefusalReason::LabelLimit);
    }
    let server = test_server(None);
    let fits = with(&log, "service", json!(short));
    assert_eq!(post(&server, "/ingest/logs", &fits).await.0, StatusCode::OK, "exactly the limit");
}

#[tokio::test]
async fn spans_beyond_a_limit_of_the_tenant_are_refused_with_the_reason() {
    let server = test_server(None);
    let now = (super::NOW_MS * 1_000_000).to_string();
    let span = |id: u8, name: &str, attribute: &str| {
        json!({ "traceId": "5b8efff798038103d269b633813fc60c", "spanId": format!("eee19b7ec3c1b1{id:02x}"), "kind": 3,
            "name": name, "startTimeUnixNano": now, "endTimeUnixNano": now,
            "attributes": [{ "key": attribute, "value": { "stringValue": "v" } }] })
    };
    let spans = [span(1, "ok", "a"), span(2, "over the limit", "a"), span(3, "ok", &"k".repeat(1025))];
    let body = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] });
    let (status, answer) = post(&server, "/v1/traces", &body).await;
    assert_eq!((status, &answer["partialSuccess"]["rejectedSpans"]), (StatusCode::OK, &json!("2")), "{answer}");
    let appended = server.appended.lock().unwrap();
    let reasons: Vec<_> = appended[0].envelope.refused.iter().map(|refusal| (refusal.first, refusal.reason)).collect();
    assert_eq!(reasons, [(2, RefusalReason::LabelLimit), (1, RefusalReason::EntityLimit)]);
    assert_eq!(appended[0].batch.spans.len(), 1);
}
