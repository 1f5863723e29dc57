//! OTLP: captured requests, every kind of data point, and comparison with a generated decoder.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};
use tower::ServiceExt;
use wardroom_domain::{Severity, SpanKind};
use wardroom_sources::{Decoded, RequestHead, SOURCES, Source};

use super::{NOW_MS, TestServer, budget, capture, test_server};

fn source(name: &str) -> &'static dyn Source {
    SOURCES.iter().copied().find(|source| source.name() == name).unwrap()
}

fn head(json: bool, gzip: bool) -> RequestHead {
    RequestHead {
        content_type: if json { "application/json" } else { "application/x-protobuf" }.into(),
        content_encoding: if gzip { "gzip" } else { "" }.into(),
        received_at: wardroom_domain::Timestamp::from_millis(NOW_MS),
    }
}

fn read(signal: &str, name: &str) -> Decoded {
    let head = head(name.ends_with("json"), name.ends_with("gz"));
    source(signal).decode(&head, &capture(&format!("otlp/{name}")), &budget()).unwrap()
}

/// Formats all records, one per line.
fn lines(decoded: &Decoded) -> Vec<String> {
    let labels = |index: usize| decoded.metrics.labels(index).unwrap();
    let mut lines: Vec<String> = Vec::new();
    for (index, samples) in decoded.metrics.iter() {
        lines.extend(samples.iter().map(|sample| format!("{} {} @{}", labels(index), sample.value, sample.ts_ms)));
    }
    for (index, found) in decoded.metrics.histograms() {
        let (positive, negative) = (&found.positive, &found.negative);
        lines.push(format!(
            "{} schema {} count {} sum {} zero {}/{} positive {:?} {:?} negative {:?} {:?} @{}",
            labels(*index as usize),
            found.schema,
            found.count,
            found.sum,
            found.zero_count,
            found.zero_threshold,
            positive.spans,
            positive.counts,
            negative.spans,
            negative.counts,
            found.ts_ms
        ));
    }
    for (index, found) in decoded.metrics.exemplars() {
        lines.push(format!("{} exemplar {} {} @{}", labels(*index as usize), found.labels, found.value, found.ts_ms));
    }
    lines.extend(decoded.metadata.iter().map(|metadata| format!("{metadata:?}")));
    lines.extend(decoded.logs.iter().map(|log| format!("{log:?}")));
    lines.extend(decoded.spans.iter().map(|span| format!("{span:?}")));
    lines
}

#[test]
fn decodes_captured_requests() {
    for (signal, name) in [
        ("otlp_metrics", "001-metrics-rotel.pb.gz"),
        ("otlp_metrics", "005-metrics-python.pb.gz"),
        ("otlp_metrics", "006-metrics-python.pb.gz"),
        ("otlp_metrics", "002-metrics.pb"),
        ("otlp_traces", "002-traces-rotel.pb.gz"),
        ("otlp_traces", "004-traces-python.pb.gz"),
        ("otlp_traces", "003-traces.pb"),
        ("otlp_traces", "008-traces-node.json"),
        ("otlp_logs", "003-logs-rotel.pb.gz"),
        ("otlp_logs", "007-logs-python.pb.gz"),
        ("otlp_logs", "001-logs.pb"),
        ("otlp_logs", "009-logs-node.json"),
    ] {
        insta::assert_snapshot!(format!("{signal}-{name}"), lines(&read(signal, name)).join("\n"));
    }
    let log = &read("otlp_logs", "009-logs-node.json").logs[0];
    assert_eq!((log.service.as_str(), log.message.as_str()), ("web-frontend", "upstream reset by peer"));
    assert_eq!((log.severity, log.labels.get("attempts")), (Severity::High, Some("3")));
    let span = &read("otlp_traces", "008-traces-node.json").spans[0];
    assert_eq!((span.kind, span.name.as_str(), span.failed), (SpanKind::Internal, "GET /cart", false));
    assert!((span.seconds() - 0.000_701_303).abs() < 1e-12);
}

/// Every kind of data point, as JSON.
fn all_data_points() -> Value {
    let at = (NOW_MS as u64 * 1_000_000).to_string();
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let number = |value: Value| {
        let mut point = json!({ "timeUnixNano": at, "attributes": [attribute("http.route", "/a")] });
        point.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        point
    };
    let exemplar = json!({ "timeUnixNano": at, "asDouble": 0.3, "traceId": "0102030405060708090a0b0c0d0e0f10",
        "spanId": "0102030405060708", "filteredAttributes": [attribute("user", "u1")] });
    let histogram = json!({ "timeUnixNano": at, "count": "6", "sum": 2.5, "bucketCounts": ["1", 2, "3"],
        "explicitBounds": [0.1, 0.5], "exemplars": [exemplar], "attributes": [attribute("code", "200")] });
    let exponential = json!({ "timeUnixNano": at, "count": 10, "sum": 12.25, "scale": 9, "zeroCount": "1",
        "zeroThreshold": 0.001, "positive": { "offset": -3, "bucketCounts": ["1", "2", "3", "1"] },
        "negative": { "offset": 4, "bucketCounts": [2] } });
    let summary = json!({ "timeUnixNano": at, "count": "4", "sum": 8.0,
        "quantileValues": [{ "quantile": 0.5, "value": 1.5 }, { "quantile": 0.99, "value": 3 }] });
    let sum = |temporality: Value, monotonic: bool, points: Value| json!({ "aggregationTemporality": temporality, "isMonotonic": monotonic, "dataPoints": points });
    let delta = json!([number(json!({ "asInt": "7" }))]);
    json!({ "resourceMetrics": [{
        "resource": { "attributes": [attribute("service.name", "shop"), attribute("service.namespace", "eu"),
            attribute("service.instance.id", "i-1"), attribute("service.version", "1.2.3"),
            { "key": "tags", "value": { "arrayValue": { "values": [{ "intValue": "5" }, { "boolValue": true }] } } }] },
        "scopeMetrics": [{ "scope": { "name": "kit" }, "metrics": [
            { "name": "queue.depth", "unit": "{message}", "gauge": { "dataPoints":
                [number(json!({ "asDouble": 0.1 })), number(json!({ "asInt": -3 })), number(json!({ "flags": 1 })),
                 number(json!({ "asDouble": "NaN" }))] } },
            { "name": "http.requests", "unit": "1", "description": "Requests", "sum":
                sum(json!(2), true, json!([number(json!({ "asInt": "42", "exemplars": [exemplar] }))])) },
            { "name": "open", "sum": sum(json!("AGGREGATION_TEMPORALITY_CUMULATIVE"), false, json!([number(json!({ "asInt": 3.0 }))])) },
            { "name": "sent", "unit": "By", "sum": sum(json!(1), true, delta) },
            { "name": "http.duration", "unit": "s", "histogram":
                { "aggregationTemporality": 2, "dataPoints": [histogram] } },
            { "name": "size", "unit": "By", "exponentialHistogram":
                { "aggregationTemporality": 2, "dataPoints": [exponential] } },
            { "name": "rtt", "unit": "ms", "summary": { "dataPoints": [summary] } },
            { "name": "unknown to us", "someday": { "dataPoints": [{}] } },
        ] }],
    }] })
}

fn decode_json(signal: &str, body: &Value) -> Decoded {
    source(signal).decode(&head(true, false), body.to_string().as_bytes(), &budget()).unwrap()
}

#[test]
fn every_kind_of_data_point_becomes_the_series_that_prometheus_creates() {
    insta::assert_snapshot!("all_data_points", lines(&decode_json("otlp_metrics", &all_data_points())).join("\n"));
}

#[test]
fn protobuf_and_json_decode_to_the_same_records() {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use opentelemetry_proto::tonic::metrics::v1::{
        Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, number_data_point,
    };
    use opentelemetry_proto::tonic::resource::v1::Resource;
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) }),
        ..KeyValue::default()
    };
    let time_unix_nano = NOW_MS as u64 * 1_000_000;
    let gauge = NumberDataPoint {
        attributes: vec![attribute("http.route", "/a")],
        time_unix_nano,
        value: Some(number_data_point::Value::AsDouble(0.1)),
        ..NumberDataPoint::default()
    };
    let histogram = HistogramDataPoint {
        attributes: vec![attribute("code", "200")],
        time_unix_nano,
        count: 6,
        sum: Some(2.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.1, 0.5],
        ..HistogramDataPoint::default()
    };
    let metric = |name: &str, unit: &str, data: Data| Metric {
        name: name.into(),
        unit: unit.into(),
        data: Some(data),
        ..Metric::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes: vec![attribute("service.name", "shop")], ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![
                    metric("queue.depth", "", Data::Gauge(Gauge { data_points: vec![gauge] })),
                    metric(
                        "http.duration",
                        "s",
                        Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 2 }),
                    ),
                ],
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    let expected = source("otlp_metrics").decode(&head(false, false), &request.encode_to_vec(), &budget()).unwrap();
    let at = time_unix_nano;
    let pair = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let decoded = decode_json(
        "otlp_metrics",
        &json!({ "resourceMetrics": [{
        "resource": { "attributes": [pair("service.name", "shop")] },
        "scopeMetrics": [{ "metrics": [
            { "name": "queue.depth", "gauge": { "dataPoints":
                [{ "timeUnixNano": at, "asDouble": 0.1, "attributes": [pair("http.route", "/a")] }] } },
            { "name": "http.duration", "unit": "s", "histogram": { "aggregation_temporality": 2, "data_points": [{ "time_unix_nano": at,
                "count": 6, "sum": 2.5, "bucketCounts": [1, 2, 3], "explicitBounds": [0.1, 0.5],
                "attributes": [pair("code", "200")] }] } },
        ] }] }] }),
    );
    assert_eq!(lines(&decoded), lines(&expected));
    assert_eq!(decoded.len(), 7, "a gauge, three buckets, count, sum, target_info");
}

/// One cumulative counter in each scope.
fn scopes(scopes: Value, attributes: Value) -> Value {
    let point = json!({ "timeUnixNano": NOW_MS as u64 * 1_000_000, "asInt": "100", "attributes": attributes });
    let metric = json!({ "name": "calls", "sum":
        { "aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [point] } });
    let groups: Vec<Value> = scopes
        .as_array()
        .unwrap()
        .iter()
        .map(|scope| json!({ "scope": scope, "schemaUrl": scope["schema"], "metrics": [metric] }))
        .collect();
    json!({ "resourceMetrics": [{ "resource": { "attributes": [pair("service.name", "shop"), pair("host.name", "h1")] },
        "scopeMetrics": groups }] })
}

fn pair(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Returns the label sets of all series but `target_info`, and asserts that their keys differ if they do.
fn label_sets(decoded: &Decoded) -> Vec<String> {
    let keys = decoded.metrics.keys();
    let sets: Vec<String> = (0..keys.len()).map(|index| decoded.metrics.labels(index).unwrap().to_string()).collect();
    for (a, b) in (0..keys.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
        assert!(sets[a] == sets[b] || keys[a] != keys[b], "one key for {} and {}", sets[a], sets[b]);
    }
    sets.into_iter().filter(|set| !set.contains("target_info")).collect()
}

#[test]
fn the_scope_is_part_of_the_series() {
    let all = json!([
        { "name": "http.a", "version": "1.0" },
        { "name": "http.a", "version": "2.0" },
        { "name": "http.a", "version": "2.0", "schema": "https://example.org/1" },
        { "name": "http.a", "attributes": [pair("zone", "a"), pair("name", "ignored")] },
        { "name": "http.a", "attributes": [pair("zone", "b")] },
        {},
    ]);
    let series = |labels: &str| {
        format!(r#"{{__name__="calls_total", host_name="h1", job="shop", {labels}service_name="shop"}}"#)
    };
    let expected = [
        series(r#"otel_scope_name="http.a", otel_scope_version="1.0", "#),
        series(r#"otel_scope_name="http.a", otel_scope_version="2.0", "#),
        series(
            r#"otel_scope_name="http.a", otel_scope_schema_url="https://example.org/1", otel_scope_version="2.0", "#,
        ),
        series(r#"otel_scope_name="http.a", otel_scope_zone="a", "#),
        series(r#"otel_scope_name="http.a", otel_scope_zone="b", "#),
        series(""),
    ];
    let decoded = decode_json("otlp_metrics", &scopes(all, json!([])));
    assert_eq!(label_sets(&decoded), expected);
    let info = decoded.metrics.labels(6).unwrap();
    assert_eq!(info.to_string(), r#"{__name__="target_info", host_name="h1", job="shop", service_name="shop"}"#);
}

#[test]
fn attributes_that_distinguish_series_are_kept() {
    let labels =
        |attributes: Value| label_sets(&decode_json("otlp_metrics", &scopes(json!([{}]), attributes))).remove(0);
    let joined = labels(json!([pair("a.b", "1"), pair("a_b", "2"), pair("a/b", "0")]));
    assert!(joined.contains(r#"a_b="1;0;2""#), "in the order of the keys: {joined}");
    assert_eq!(labels(json!([pair("a_b", "2"), pair("a/b", "0"), pair("a.b", "1")])), joined);
    let own =
        labels(json!([pair("host.name", "h2"), pair("job", "cron"), pair("", "x"), pair("otel.scope.name", "y")]));
    let expected = r#"{__name__="calls_total", exported_job="cron", host_name="h2", job="shop", otel_scope_name="y", service_name="shop"}"#;
    assert_eq!(own, expected);
}

#[test]
fn each_resource_labels_its_own_histograms() {
    let resource = |service: &str| {
        let point = json!({ "timeUnixNano": NOW_MS as u64 * 1_000_000, "count": 1, "sum": 1, "scale": 0,
            "positive": { "offset": 0, "bucketCounts": [1] } });
        let metric =
            json!({ "name": "size", "exponentialHistogram": { "aggregationTemporality": 2, "dataPoints": [point] } });
        json!({ "resource": { "attributes": [pair("service.name", service)] },
            "scopeMetrics": [{ "scope": { "name": "s" }, "metrics": [metric] }] })
    };
    let decoded =
        decode_json("otlp_metrics", &json!({ "resourceMetrics": [resource("a"), resource("b"), resource("c")] }));
    let jobs: Vec<String> = decoded
        .metrics
        .histograms()
        .iter()
        .map(|(index, _)| decoded.metrics.labels(*index as usize).unwrap().get("job").unwrap().to_owned())
        .collect();
    assert_eq!(jobs, ["a", "b", "c"]);
    let infos = label_sets(&decoded).len();
    assert_eq!(decoded.metrics.keys().len() - infos, 3, "a target_info for each resource with native histograms only");
}

/// The forms of numbers, bytes and ids that proto3 JSON and OTLP allow.
#[test]
fn every_legal_form_of_json_is_read() {
    let nanos = 1_795_255_199_123_456_789_u64;
    let log = |time: &str, more: &str| {
        let body =
            format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":{time}{more}}}]}}]}}]}}"#);
        source("otlp_logs")
            .decode(&head(true, false), body.as_bytes(), &budget())
            .unwrap_or_else(|error| panic!("{body}: {error:?}"))
            .logs
            .remove(0)
    };
    for time in [
        format!("{nanos}"),
        format!("\"{nanos}\""),
        "1795255199.123456789e9".into(),
        "\"1795255199.123456789E+9\"".into(),
        format!("{nanos}.0"),
        format!("[{nanos}]"),
    ] {
        assert_eq!(log(&time, "").at.nanos(), nanos as i64, "{time}");
    }
    let value = |value: &str| {
        log("1", &format!(r#","attributes":[{{"key":"k","value":{value}}}]"#)).labels.get("k").map(str::to_owned)
    };
    for (json, expected) in [
        (r#"{"intValue":5.0}"#, Some("5")),
        (r#"{"intValue":"-1e3"}"#, Some("-1000")),
        (r#"{"intValue":-9223372036854775808}"#, Some("-9223372036854775808")),
        (r#"{"bytesValue":"+/8="}"#, Some("+/8=")),
        (r#"{"bytesValue":"+/8"}"#, Some("+/8=")),
        (r#"{"bytesValue":"-_8="}"#, Some("+/8=")),
        (r#"{"bytesValue":"-_8"}"#, Some("+/8=")),
        (r#"{"doubleValue":"NaN"}"#, Some("NaN")),
        (r#"{"doubleValue":"-Infinity"}"#, Some("-inf")),
        (r#"{"doubleValue":5}"#, Some("5")),
        (r#"{"doubleValue":"1e-2"}"#, Some("0.01")),
        (r#"{"int_value":"7"}"#, Some("7")),
        (r#"{"stringValue":null}"#, None),
        ("null", None),
        ("{}", None),
    ] {
        assert_eq!(value(json).as_deref(), expected, "{json}");
    }
    let more = r#","severityNumber":"SEVERITY_NUMBER_ERROR2","traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"ABC","flags":null,"eventName":"browser.page_view","new":{"a":[1,{"b":null}]}"#;
    let record = log("1", more);
    assert_eq!(record.severity, Severity::High);
    let labels = ["trace_id", "span_id", "otel.event.name"].map(|name| record.labels.get(name));
    assert_eq!(labels, [Some("5b8efff798038103d269b633813fc60c"), Some("0000000000000abc"), Some("browser.page_view")]);
    assert_eq!(log("1", r#","severityText":"SEVERE""#).severity, Severity::High);
    for wrong in [
        r#""timeUnixNano":1.5"#,
        r#""timeUnixNano":1e20"#,
        r#""timeUnixNano":"soon""#,
        r#""timeUnixNano":true"#,
        r#""timeUnixNano":{}"#,
        r#""timeUnixNano":"SPAN_KIND_SERVER""#,
        r#""severityNumber":"LOUD""#,
        r#""traceId":"5B8EFFF798038103D269B633813FC60C0""#,
        r#""traceId":"xyz""#,
        r#""body":{"bytesValue":"*"}"#,
    ] {
        let body = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{wrong}}}]}}]}}]}}"#);
        let failed = source("otlp_logs").decode(&head(true, false), body.as_bytes(), &budget()).err();
        let field = wrong.split('"').nth(if wrong.contains("body") { 3 } else { 1 }).unwrap();
        assert!(format!("{failed:?}").contains(field), "{wrong}: {failed:?}");
    }
}

#[test]
fn repeated_numbers_of_histograms_are_read_packed_or_not() {
    let number = |field: u8, bits: u64| [&[field << 3 | 1][..], &bits.to_le_bytes()].concat();
    let nest = |field: u8, inner: &[u8]| [&[field << 3 | 2, u8::try_from(inner.len()).unwrap()], inner].concat();
    let (counts, bounds) = ([2_u64, 3, 0], [0.1_f64.to_bits(), 0.5_f64.to_bits()]);
    let packed = |field: u8, numbers: &[u64]| {
        nest(field, &numbers.iter().flat_map(|bits| bits.to_le_bytes()).collect::<Vec<u8>>())
    };
    let unpacked =
        |field: u8, numbers: &[u64]| numbers.iter().flat_map(|bits| number(field, *bits)).collect::<Vec<u8>>();
    let decode = |data: u8, lists: &[u8]| {
        let point =
            [&number(3, NOW_MS as u64 * 1_000_000)[..], &number(4, 5), &number(5, 1.25_f64.to_bits()), lists].concat();
        let metric = [nest(1, b"h"), nest(data, &[nest(1, &point), vec![0x10, 2]].concat())].concat();
        let body = nest(1, &nest(2, &nest(2, &metric)));
        lines(&source("otlp_metrics").decode(&head(false, false), &body, &budget()).unwrap())
    };
    let expected = decode(9, &[packed(6, &counts), packed(7, &bounds)].concat());
    assert_eq!(expected.len(), 5, "{expected:?}");
    for lists in [
        [unpacked(6, &counts), unpacked(7, &bounds)].concat(),
        [packed(6, &counts[..1]), packed(7, &bounds[..1]), packed(6, &counts[1..]), packed(7, &bounds[1..])].concat(),
        [unpacked(6, &counts[..1]), unpacked(7, &bounds), packed(6, &counts[1..]), packed(6, &[])].concat(),
    ] {
        assert_eq!(decode(9, &lists), expected);
    }
    let buckets = |inner: &[u8]| decode(10, &nest(8, inner));
    let expected = buckets(&[0x12, 3, 1, 2, 2]);
    assert!(expected[0].contains("[1.0, 2.0, 2.0]"), "{expected:?}");
    assert_eq!(buckets(&[0x10, 1, 0x10, 2, 0x10, 2]), expected);
    assert_eq!(buckets(&[0x12, 1, 1, 0x12, 0, 0x10, 2, 0x12, 1, 2]), expected);
}

/// Sends a POST and returns status, headers and body.
async fn post(server: &TestServer, path: &str, kind: &str, body: Vec<u8>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {}", server.token))
        .header("content-type", kind)
        .body(Body::from(body))
        .unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, to_bytes(body, 1 << 20).await.unwrap().to_vec())
}

#[tokio::test]
async fn refused_records_are_reported_as_partial_success() {
    let at = |ms: i64| (ms * 1_000_000).to_string();
    let point = |ms: i64| json!({ "timeUnixNano": at(ms), "count": 3, "sum": 1.0, "bucketCounts": [1, 2], "explicitBounds": [1] });
    let body = json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [{ "name": "d", "histogram":
        { "aggregationTemporality": 2, "dataPoints": [point(1), point(NOW_MS), point(2)] } }] }] }] });
    let first = test_server(None);
    let (status, _, response) = post(&first, "/v1/metrics", "application/json", body.to_string().into_bytes()).await;
    let response: Value = serde_json::from_slice(&response).unwrap();
    assert_eq!((status, &response["partialSuccess"]["rejectedDataPoints"]), (StatusCode::OK, &json!("2")));
    assert!(response["partialSuccess"]["errorMessage"].as_str().unwrap().contains("more than 48 h old"), "{response}");
    assert_eq!(first.appended.lock().unwrap()[0].batch.len(), 4, "two buckets, count and sum of one data point");

    let zero = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [
        { "traceId": "00000000000000000000000000000000", "spanId": "0102030405060708", "endTimeUnixNano": at(NOW_MS) }] }] }] });
    let (status, _, response) =
        post(&test_server(None), "/v1/traces", "application/json", zero.to_string().into_bytes()).await;
    let response: Value = serde_json::from_slice(&response).unwrap();
    assert_eq!((status, &response["partialSuccess"]["rejectedSpans"]), (StatusCode::OK, &json!("1")));
    let (status, headers, response) = post(&test_server(None), "/v1/logs", "application/x-protobuf", Vec::new()).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "application/x-protobuf"));
    assert!(response.is_empty(), "a full success has an empty body");
}

#[tokio::test]
async fn failures_are_status_messages_with_retry_after_if_retryable() {
    let failing_server = test_server(Some(wardroom_domain::error::Failure::Fatal("the disk is full".into())));
    let body = all_data_points().to_string().into_bytes();
    let (status, headers, response) = post(&failing_server, "/v1/metrics", "application/json", body).await;
    let response: Value = serde_json::from_slice(&response).unwrap();
    assert_eq!((status, headers.contains_key("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, true));
    assert_eq!((&response["code"], &response["message"]), (&json!(14), &json!("the disk is full")));
    let (status, headers, response) = post(&failing_server, "/v1/logs", "application/x-protobuf", vec![0xff; 9]).await;
    assert_eq!((status, headers.contains_key("retry-after")), (StatusCode::BAD_REQUEST, false));
    assert_eq!(response[..2], [0x08, 3], "google.rpc.Status, INVALID_ARGUMENT");
    for (body, words) in [
        ("{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\"timeUnixNano\":\"soon\"}]}]}]}", "timeUnixNano"),
        ("[1]", "OTLP/JSON"),
    ] {
        let (status, _, response) = post(&failing_server, "/v1/logs", "application/json", body.into()).await;
        let response: Value = serde_json::from_slice(&response).unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(response["message"].as_str().unwrap().contains(words), "{response}");
    }
}

#[tokio::test]
async fn grpc_has_the_same_message_and_a_grpc_status() {
    let frame = |message: &[u8]| [&[0_u8][..], &(message.len() as u32).to_be_bytes(), message].concat();
    let path = source("otlp_logs").grpc_path().unwrap();
    let message = capture("otlp/001-logs.pb");
    let server = test_server(None);
    let (status, headers, response) = post(&server, path, "application/grpc", frame(&message)).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "application/grpc"));
    assert_eq!(response, frame(&[]));
    assert_eq!(server.appended.lock().unwrap()[0].body, message, "the bus has the message, not the frame");
    assert_eq!(server.appended.lock().unwrap()[0].batch.logs.len(), read("otlp_logs", "001-logs.pb").logs.len());
    let failing_server = test_server(Some(wardroom_domain::error::Failure::Quota("full".into())));
    let (_, headers, _) = post(&failing_server, path, "application/grpc", frame(&message)).await;
    assert_eq!(headers["grpc-status"], "14", "UNAVAILABLE is retried");
    let (_, headers, _) = post(&failing_server, path, "application/grpc", frame(&[0xff; 9])).await;
    assert_eq!(headers["grpc-status"], "3", "INVALID_ARGUMENT is not");
    let (_, headers, _) = post(&failing_server, path, "application/grpc", message).await;
    assert_eq!(headers["grpc-status"], "3", "an incomplete frame");
}

/// Small bodies that would need hundreds of megabytes when decoded.
#[test]
fn too_many_small_records_are_refused() {
    let nest = |fields: &[u8], inner: Vec<u8>| {
        fields.iter().rev().fold(inner, |inner, field| {
            let mut outer = vec![field << 3 | 2];
            let mut length = inner.len();
            while length > 0x7f {
                outer.push(length as u8 | 0x80);
                length >>= 7;
            }
            outer.push(length as u8);
            outer.extend(inner);
            outer
        })
    };
    let points = [0x0a, 0x00].repeat(300_000);
    let records = [0x12, 0x00].repeat(300_000);
    for (signal, body) in [
        ("otlp_metrics", nest(&[1, 2, 2, 5], points.clone())),
        ("otlp_metrics", nest(&[1, 2, 2, 9], points.clone())),
        ("otlp_metrics", nest(&[1, 2, 2, 10], points.clone())),
        ("otlp_metrics", nest(&[1, 2, 2, 11], points)),
        ("otlp_logs", nest(&[1, 2], records.clone())),
        ("otlp_traces", nest(&[1, 2], records)),
    ] {
        let failed = source(signal).decode(&head(false, false), &body, &budget()).err();
        assert!(format!("{failed:?}").contains("too_large"), "{signal}: {failed:?}");
    }
    let value = format!("{}1{}", r#"{"arrayValue":{"values":["#.repeat(2000), "]}}".repeat(2000));
    let deep = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{value}}}]}}]}}]}}"#);
    // Nested lists of a number are read as text first, without a limit on nesting.
    let lists = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let lists = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":{lists}}}]}}]}}]}}"#);
    for body in [deep, lists] {
        let failed = source("otlp_logs").decode(&head(true, false), body.as_bytes(), &budget()).err();
        let failed = format!("{failed:?}");
        assert!(failed.contains("malformed") && failed.len() < 1000, "{failed}");
    }
}

proptest! {
    /// Damaged messages that both decoders accept have the same number of records.
    #[test]
    fn damaged_messages_are_decoded_alike_or_refused(index in 0_usize..4000, bits in 1_u8.., truncate_at in prop::option::of(0_usize..4000)) {
        let damage = |name: &str| {
            let mut plain = capture(name);
            let index = index % plain.len();
            plain[index] ^= bits;
            plain.truncate(truncate_at.unwrap_or(usize::MAX));
            plain
        };
        let decoded = |signal: &str, body: &[u8]| source(signal).decode(&head(false, false), body, &budget()).ok();
        let body = damage("otlp/001-logs.pb");
        if let (Some(decoded), Ok(expected)) = (decoded("otlp_logs", &body), ExportLogsServiceRequest::decode(&body[..])) {
            let groups = expected.resource_logs.iter().flat_map(|group| &group.scope_logs);
            prop_assert_eq!(decoded.logs.len(), groups.map(|group| group.log_records.len()).sum::<usize>());
        }
        let body = damage("otlp/003-traces.pb");
        if let (Some(decoded), Ok(expected)) = (decoded("otlp_traces", &body), ExportTraceServiceRequest::decode(&body[..])) {
            let groups = expected.resource_spans.iter().flat_map(|group| &group.scope_spans);
            let found = decoded.spans.len() + decoded.refused.iter().map(|refusal| (refusal.last - refusal.first + 1) as usize).sum::<usize>();
            prop_assert_eq!(found, groups.map(|group| group.spans.len()).sum::<usize>());
        }
        let body = damage("otlp/002-metrics.pb");
        if let (Some(decoded), Ok(expected)) = (decoded("otlp_metrics", &body), ExportMetricsServiceRequest::decode(&body[..])) {
            let metrics = expected.resource_metrics.iter().flat_map(|group| &group.scope_metrics).flat_map(|group| &group.metrics);
            let numbers = metrics.map(|metric| match &metric.data {
                Some(Data::Gauge(gauge)) => gauge.data_points.len(),
                Some(Data::Sum(sum)) => sum.data_points.len(),
                _ => 0,
            });
            let single = (0..decoded.metrics.keys().len()).filter_map(|index| decoded.metrics.labels(index).ok())
                .filter(|labels| !labels.name().ends_with("_bucket") && !labels.name().ends_with("_sum"))
                .filter(|labels| !labels.name().ends_with("_count") && labels.name() != "target_info").count();
            prop_assert!(single <= numbers.sum::<usize>() + decoded.metrics.histograms().len() + 9);
        }
    }

    /// A changed byte never panics, and text that is not JSON is refused.
    #[test]
    fn damaged_json_is_decoded_or_refused(index in 0_usize..4000, byte: u8, truncate_at in prop::option::of(0_usize..4000)) {
        for (signal, mut body) in [
            ("otlp_metrics", all_data_points().to_string().into_bytes()),
            ("otlp_logs", capture("otlp/009-logs-node.json")),
            ("otlp_traces", capture("otlp/008-traces-node.json")),
        ] {
            let index = index % body.len();
            body[index] = byte;
            body.truncate(truncate_at.unwrap_or(usize::MAX));
            let decoded = source(signal).decode(&head(true, false), &body, &budget()).is_ok();
            prop_assert!(!decoded || serde_json::from_slice::<Value>(&body).is_ok());
        }
    }
}
