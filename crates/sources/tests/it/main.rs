//! Tests of every source in the registry, with generated and captured requests.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

mod otlp;
mod remote_write_v2;
mod status_table;
mod text_limits;

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use prost::Message;
use tower::ServiceExt;
use wardroom_domain::error::Failure;
use wardroom_domain::sample::STALE_NAN_BITS;
use wardroom_domain::{AccessRole, Identity, Principal, RefusalReason, SeriesId, TenantId, Timestamp};
use wardroom_edge::{AuthMode, BodyBudget, Callers, Config as EdgeConfig, InflateBudget, KnownToken, Port, TokenTable};
use wardroom_sources::{AcceptedRequest, ByteRateLimiter, Config, Intake, RequestHead, SOURCES, Source, replay};

/// 2026-11-21, when the captures were taken.
const NOW_MS: i64 = 1_795_255_200_000;

fn budget() -> InflateBudget {
    InflateBudget::new(64 << 20, 32 << 20)
}

fn head(source: &dyn Source) -> RequestHead {
    let (content_type, content_encoding) = match source.name() {
        "prometheus_remote_write" => ("application/x-protobuf", "snappy"),
        name if name.starts_with("otlp_") => ("application/x-protobuf", "gzip"),
        _ => ("application/json", ""),
    };
    RequestHead {
        content_type: content_type.into(),
        content_encoding: content_encoding.into(),
        received_at: Timestamp::from_millis(NOW_MS),
    }
}

fn capture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/it/captures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A router over all sources. Appended requests are collected, or fail with the given failure.
struct TestServer {
    router: axum::Router,
    tokens: TokenTable,
    budget: InflateBudget,
    token: String,
    appended: Arc<Mutex<Vec<AcceptedRequest>>>,
}

fn test_server(failure: Option<Failure>) -> TestServer {
    test_server_with_rate_limit(failure, 0)
}

fn test_server_with_rate_limit(failure: Option<Failure>, bytes_per_second: u64) -> TestServer {
    test_server_with(failure, bytes_per_second, EdgeConfig::default())
}

fn test_server_with(failure: Option<Failure>, bytes_per_second: u64, edge: EdgeConfig) -> TestServer {
    let budget = budget();
    let appended: Arc<Mutex<Vec<AcceptedRequest>>> = Arc::default();
    let recorded = Arc::clone(&appended);
    let intake = Intake {
        config: Config::default(),
        edge,
        budget: budget.clone(),
        bodies: BodyBudget::new(64 << 20),
        rate_limiter: Arc::new(ByteRateLimiter::new(bytes_per_second)),
        resolve: Arc::new(|_, keys, labels| {
            let denied = (0..keys.len()).filter_map(|index| match labels(index) {
                Ok(labels) if labels.name() == "over_the_limit" => {
                    Some((index, (RefusalReason::SeriesLimit, "x".into())))
                }
                Ok(_) => None,
                Err(denial) => Some((index, denial)),
            });
            let ids = (0..keys.len() as u32).map(SeriesId).collect();
            wardroom_sources::ResolvedSeries { ids, generation: 0, refused: denied.collect() }
        }),
        admit: Arc::new(|_, events| {
            let is_over = |span: &wardroom_domain::Span| span.name == "over the limit";
            let first = events.logs.len() + events.deployments.len();
            let over = events.spans.iter().enumerate().filter(|(_, span)| is_over(span));
            over.map(|(index, _)| (first + index, (RefusalReason::EntityLimit, "x".into()))).collect()
        }),
        append: Arc::new(move |request| {
            let (recorded, failure) = (Arc::clone(&recorded), failure.clone());
            Box::pin(async move {
                if let Some(failure) = failure {
                    return Err(failure);
                }
                let mut appended = recorded.lock().unwrap();
                appended.push(request);
                Ok(appended.len() as u64)
            })
        }),
        now: Arc::new(|| Timestamp::from_millis(NOW_MS)),
    };
    let tokens = TokenTable::new(AuthMode::On);
    let (token, sha256) = wardroom_edge::generate_token();
    let identity =
        Identity { tenant: TenantId::new("acme").unwrap(), principal: Principal::wardroom(), role: AccessRole::Sender };
    tokens.replace(Some(vec![KnownToken { sha256, identity, expires_at: None }]));
    let port = Port {
        config: Arc::default(),
        tokens: tokens.clone(),
        callers: Callers::default(),
        on_rejection: Arc::new(|_| {}),
        now: Arc::new(|| Timestamp::from_millis(NOW_MS)),
    };
    TestServer { router: port.router(wardroom_sources::routes(&intake)), tokens, budget, token, appended }
}

impl TestServer {
    async fn post(&self, source: &dyn Source, body: Vec<u8>) -> StatusCode {
        self.send(source, body, &self.token).await.0
    }

    /// Returns the status and whether the response has `Retry-After`.
    async fn send(&self, source: &dyn Source, body: Vec<u8>, token: &str) -> (StatusCode, bool) {
        let head = head(source);
        let mut request = Request::post(source.path())
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", format!("{}; charset=utf-8", head.content_type));
        if !head.content_encoding.is_empty() {
            request = request.header("content-encoding", head.content_encoding);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        (response.status(), response.headers().contains_key("retry-after"))
    }
}

/// Returns a request that the source must accept.
fn valid_request(source: &dyn Source) -> Vec<u8> {
    match source.name() {
        "prometheus_remote_write" => capture("first_scrape.snappy.pb"),
        "json_metrics" => br#"{"metric_name":"a","value":1.5,"labels":{"service":"s"}}"#.to_vec(),
        "json_logs" => br#"[{"level":"ERROR","message":"m","service":"s"}]"#.to_vec(),
        "json_deployment" => br#"{"service":"s","version":"v1","status":"success"}"#.to_vec(),
        "otlp_metrics" => capture("otlp/005-metrics-python.pb.gz"),
        "otlp_logs" => capture("otlp/007-logs-python.pb.gz"),
        "otlp_traces" => capture("otlp/004-traces-python.pb.gz"),
        other => panic!("no valid request for {other}: add one"),
    }
}

/// Requirements on every source, enumerated from the registry.
#[tokio::test]
async fn every_source_meets_the_common_requirements() {
    for source in SOURCES {
        let server = test_server(None);
        let name = source.name();
        assert!(server.post(*source, valid_request(*source)).await.is_success(), "{name}: a valid request");
        {
            let appended = server.appended.lock().unwrap();
            let first = &appended[0];
            assert_eq!(first.envelope.tenant.as_str(), "acme", "{name}: the tenant is the credential's");
            assert_eq!(first.envelope.protocol, name);
            assert_eq!(first.body, valid_request(*source), "{name}: the body is appended as received");
            let replayed = replay(&first.envelope, &first.body, &budget()).unwrap();
            assert_eq!(replayed.len(), first.batch.len(), "{name}: replay gives the same records");
        }
        let mut truncated = valid_request(*source);
        truncated.truncate(truncated.len() / 2);
        assert_eq!(server.post(*source, truncated).await, StatusCode::BAD_REQUEST, "{name}: truncated");
        assert_eq!(server.post(*source, vec![0xff; 40]).await, StatusCode::BAD_REQUEST, "{name}: random bytes");
        assert_eq!(server.appended.lock().unwrap().len(), 1, "{name}: a refused request is not stored");
        let anonymous = Request::post(source.path()).body(Body::empty()).unwrap();
        assert_eq!(server.router.clone().oneshot(anonymous).await.unwrap().status(), 401, "{name}: no credential");
        for failure in [Failure::Retryable("x".into()), Failure::Quota("x".into()), Failure::Fatal("x".into())] {
            let failing_server = test_server(Some(failure.clone()));
            assert_eq!(
                failing_server.post(*source, valid_request(*source)).await,
                503,
                "{name}: {failure:?} must be retried by senders"
            );
        }
    }
}

/// The status decides whether a sender retries or drops the data.
#[tokio::test]
async fn every_failure_has_the_status_that_makes_senders_retry_or_drop() {
    let (retry, drop_data) = (true, false);
    for source in SOURCES {
        let name = source.name();
        // Full or failing disks, a full bus, overload. Never 429 or 500: senders drop the data on those.
        for failure in [Failure::Retryable("x".into()), Failure::Quota("x".into()), Failure::Fatal("x".into())] {
            let response = test_server(Some(failure.clone())).send(*source, valid_request(*source), "").await;
            assert_eq!(response, (StatusCode::UNAUTHORIZED, drop_data), "{name}: an empty credential");
            let failing_server = test_server(Some(failure.clone()));
            let response = failing_server.send(*source, valid_request(*source), &failing_server.token).await;
            assert_eq!(response, (StatusCode::SERVICE_UNAVAILABLE, retry), "{name}: {failure:?}");
        }
        let limited_server = test_server_with_rate_limit(None, 1);
        assert!(
            limited_server.post(*source, valid_request(*source)).await.is_success(),
            "{name}: the first request passes"
        );
        let response = limited_server.send(*source, valid_request(*source), &limited_server.token).await;
        assert_eq!(response, (StatusCode::SERVICE_UNAVAILABLE, retry), "{name}: a tenant over its rate limit");
        assert_eq!(
            limited_server.appended.lock().unwrap().len(),
            1,
            "{name}: a request over the rate limit is not stored"
        );
        let server = test_server(None);
        let response = server.send(*source, valid_request(*source), "wr_unknown").await;
        assert_eq!(response, (StatusCode::UNAUTHORIZED, drop_data), "{name}: an unknown token");
        let response = server.send(*source, vec![b' '; 17 << 20], &server.token).await;
        assert_eq!(response, (StatusCode::PAYLOAD_TOO_LARGE, drop_data), "{name}: a body over the limit");
        let mut other = Request::post(source.path()).header("authorization", format!("Bearer {}", server.token));
        other = other.header("content-type", "text/csv");
        let response = server.router.clone().oneshot(other.body(Body::from("a")).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{name}: an unsupported media type");
        {
            let permits: Vec<_> = (0..2).map(|_| server.budget.reserve(32 << 20).unwrap()).collect();
            let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut compressed, &valid_request(*source)).unwrap();
            let compressed = compressed.finish().unwrap();
            let mut head = head(*source);
            let body = if head.content_encoding.is_empty() { compressed } else { valid_request(*source) };
            if head.content_encoding.is_empty() {
                head.content_encoding = "gzip".into();
            }
            let failed = source.decode(&head, &body, &server.budget).err();
            assert!(matches!(failed, Some(Failure::Retryable(_))), "{name}: the budget is exhausted: {failed:?}");
            drop(permits);
            assert!(source.decode(&head, &body, &server.budget).is_ok(), "{name}: the budget is released");
        }
        server.tokens.replace(None);
        let response = server.send(*source, valid_request(*source), &server.token).await;
        assert_eq!(response, (StatusCode::SERVICE_UNAVAILABLE, retry), "{name}: the token store cannot be read");
    }
}

/// Small bodies that would need hundreds of megabytes when decoded.
#[tokio::test]
async fn too_many_small_records_are_refused_before_they_are_decoded() {
    let repeat = |unit: &[u8], head: RequestHead| {
        let body = unit.repeat(300_000);
        (SOURCES[0], head, snap::raw::Encoder::new().compress_vec(&body).unwrap())
    };
    let first = head(SOURCES[0]);
    let second = RequestHead {
        content_type: "application/x-protobuf;proto=io.prometheus.write.v2.request".into(),
        ..first.clone()
    };
    let array = |source: &'static dyn Source, unit: &str| {
        (source, head(source), format!("[{}{unit}]", format!("{unit},").repeat(300_000)).into_bytes())
    };
    for (source, head, body) in [
        // A series with one empty sample; an empty symbol.
        repeat(&[0x0a, 0x02, 0x12, 0x00], first),
        repeat(&[0x22, 0x00], second),
        array(SOURCES[1], "{}"),
        array(SOURCES[2], "[]"),
        array(SOURCES[3], "0"),
    ] {
        let failed = source.decode(&head, &body, &budget()).err();
        let text = format!("{failed:?}");
        assert!(matches!(failed, Some(Failure::Rejected { reason: "too_large", .. })), "{}: {text}", source.name());
        assert!(text.contains("250000"), "{text}");
    }
}

/// Every second sample of a large request is too old: the time must be linear in the size of the request.
#[tokio::test]
async fn many_refusals_in_one_request_take_linear_time() {
    let sample = |index: i64| PbSample { value: index as f64, timestamp: if index % 2 == 0 { NOW_MS } else { 1 } };
    let labels = vec![Label { name: "__name__".into(), value: "m".into() }];
    let series = TimeSeries { labels, samples: (0..200_000).map(sample).collect() };
    let plain = WriteRequest { timeseries: vec![series] }.encode_to_vec();
    let server = test_server(None);
    let started = std::time::Instant::now();
    let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    assert_eq!(server.post(SOURCES[0], body).await, StatusCode::BAD_REQUEST);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    let appended = server.appended.lock().unwrap();
    assert_eq!(appended[0].batch.metrics.samples.len(), 100_000);
    assert!(appended[0].batch.metrics.samples.iter().all(|sample| sample.value % 2.0 == 0.0));
    assert_eq!(replay(&appended[0].envelope, &appended[0].body, &budget()).unwrap().len(), 100_000);
}

#[test]
fn decodes_captured_prometheus_requests() {
    let source = SOURCES[0];
    let read = |name: &str| source.decode(&head(source), &capture(name), &budget()).unwrap();
    let scrape = read("first_scrape.snappy.pb");
    assert_eq!((scrape.metrics.keys().len(), scrape.len()), (436, 436));
    let described = read("metadata.snappy.pb");
    assert_eq!(described.len(), 0);
    let known = |family: &str| described.metadata.iter().find(|metadata| metadata.family == family).unwrap().clone();
    assert_eq!(known("go_goroutines").kind, "gauge");
    assert!(known("go_goroutines").help.contains("goroutines"));
    let stale = read("500series_exemplars_stale.snappy.pb");
    let bits = stale.metrics.samples().iter().map(|sample| sample.value.to_bits());
    assert_eq!((stale.len(), bits.filter(|bits| *bits == STALE_NAN_BITS).count()), (498, 2));
    let small = read("small_exemplars_nan_inf.snappy.pb");
    let values: Vec<f64> = small.metrics.samples().iter().map(|sample| sample.value).collect();
    assert!(values.iter().any(|value| value.is_nan()) && values.contains(&f64::INFINITY));
}

#[tokio::test]
async fn replay_leaves_out_series_refused_by_the_limit() {
    let server = test_server(None);
    let body =
        br#"[{"metric_name":"a","value":1},{"metric_name":"over_the_limit","value":2},{"metric_name":"b","value":3}]"#;
    assert_eq!(server.post(SOURCES[1], body.to_vec()).await, StatusCode::BAD_REQUEST);
    let appended = server.appended.lock().unwrap();
    assert_eq!(appended[0].batch.len(), 2);
    let replayed = replay(&appended[0].envelope, &appended[0].body, &budget()).unwrap();
    let names: Vec<String> = (0..2).map(|index| replayed.metrics.labels(index).unwrap().name().to_owned()).collect();
    assert_eq!(names, ["a", "b"]);
}

/// `prometheus.WriteRequest` for an independent decoder.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<PbSample>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PbSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// A series: labels as text, samples as (ms, bits).
type Plain = (Vec<(String, String)>, Vec<(i64, u64)>);

/// Decodes a body with the source under test: labels and samples of each series with samples.
fn decode_with_wardroom(plain: &[u8]) -> Option<Vec<Plain>> {
    let body = snap::raw::Encoder::new().compress_vec(plain).unwrap();
    let decoded = SOURCES[0].decode(&head(SOURCES[0]), &body, &budget()).ok()?;
    let samples = decoded.metrics.iter().map(|(index, samples)| {
        let labels = decoded.metrics.labels(index).ok()?;
        let pairs = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some((pairs, samples.iter().map(|sample| (sample.ts_ms, sample.value.to_bits())).collect()))
    });
    samples.collect()
}

#[test]
fn labels_and_samples_may_be_in_any_order() {
    let label = |name: &str| Label { name: name.into(), value: "v".into() }.encode_to_vec();
    let sample = |value: f64| PbSample { value, timestamp: 5 }.encode_to_vec();
    let mut series = Vec::new();
    for (tag, part) in [(0x0a, label("b")), (0x12, sample(1.0)), (0x0a, label("a")), (0x12, sample(2.0))] {
        series.extend([tag, part.len() as u8]);
        series.extend(part);
    }
    let mut plain = vec![0x0a, series.len() as u8];
    plain.extend(series);
    let pair = |name: &str| (name.to_owned(), "v".to_owned());
    let samples = [1.0_f64, 2.0].map(|value| (5, value.to_bits())).to_vec();
    assert_eq!(decode_with_wardroom(&plain), Some(vec![(vec![pair("a"), pair("b")], samples)]));
}

proptest! {
    /// The zero-copy decoder agrees with a generated decoder.
    #[test]
    fn decoder_agrees_with_prost(
        series in prop::collection::vec(
            (prop::collection::btree_map("[a-z_]{1,6}", ".{1,9}", 0..5), prop::collection::vec((any::<u64>(), any::<i64>()), 0..4)),
            0..9,
        ),
    ) {
        let series: Vec<TimeSeries> = series.into_iter().map(|(labels, samples)| TimeSeries {
            labels: labels.into_iter().map(|(name, value)| Label { name, value }).collect(),
            samples: samples.into_iter().map(|(bits, timestamp)| PbSample { value: f64::from_bits(bits), timestamp }).collect(),
        }).collect();
        let expected: Vec<_> = series.iter().filter(|series| !series.samples.is_empty()).map(|series| (
            series.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect::<Vec<_>>(),
            series.samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())).collect::<Vec<_>>(),
        )).collect();
        let plain = WriteRequest { timeseries: series }.encode_to_vec();
        prop_assert_eq!(decode_with_wardroom(&plain), Some(expected));
    }

    /// Damaged messages that both decoders accept have the same number of samples.
    #[test]
    fn damaged_messages_are_decoded_like_prost_or_refused(index in 0_usize..4000, bits in 1_u8.., truncate_at in prop::option::of(0_usize..4000)) {
        let body = capture("small_exemplars_nan_inf.snappy.pb");
        let mut plain = vec![0; snap::raw::decompress_len(&body).unwrap()];
        snap::raw::Decoder::new().decompress(&body, &mut plain).unwrap();
        let index = index % plain.len();
        plain[index] ^= bits;
        plain.truncate(truncate_at.unwrap_or(usize::MAX));
        if let (Some(decoded), Ok(expected)) = (decode_with_wardroom(&plain), WriteRequest::decode(&plain[..])) {
            let samples: usize = expected.timeseries.iter().map(|series| series.samples.len()).sum();
            prop_assert_eq!(decoded.iter().map(|(_, samples)| samples.len()).sum::<usize>(), samples);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        for source in SOURCES {
            let _outcome = source.decode(&head(*source), &bytes, &budget());
            let compressed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
            let _outcome = source.decode(&head(*source), &compressed, &budget());
        }
    }
}
