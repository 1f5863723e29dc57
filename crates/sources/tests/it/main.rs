//! Every source of the registry against what each must do, and against real requests.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

mod otlp;
mod remote_write_v2;
mod status_table;

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use prost::Message;
use tower::ServiceExt;
use wardroom_domain::batch::STALE_NAN_BITS;
use wardroom_domain::error::Failure;
use wardroom_domain::{AccessRole, Identity, Principal, RefusalReason, SeriesId, TenantId, Timestamp};
use wardroom_edge::{AuthMode, Config as EdgeConfig, InflateBudget, KnownToken, Port, TokenTable};
use wardroom_sources::{Accepted, ByteQuota, Config, Intake, RequestHead, SOURCES, Source, replay};

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

/// A port over all sources whose appends are kept, or fail.
struct World {
    router: axum::Router,
    tokens: TokenTable,
    budget: InflateBudget,
    token: String,
    kept: Arc<Mutex<Vec<Accepted>>>,
}

fn world(failure: Option<Failure>) -> World {
    world_with(failure, 0)
}

fn world_with(failure: Option<Failure>, quota: u64) -> World {
    world_of(failure, quota, EdgeConfig::default())
}

fn world_of(failure: Option<Failure>, quota: u64, edge: EdgeConfig) -> World {
    let budget = budget();
    let kept: Arc<Mutex<Vec<Accepted>>> = Arc::default();
    let into = Arc::clone(&kept);
    let intake = Intake {
        config: Config::default(),
        edge,
        budget: budget.clone(),
        quota: Arc::new(ByteQuota::new(quota)),
        resolve: Arc::new(|_, keys, labels| {
            let denied = (0..keys.len()).filter_map(|at| match labels(at) {
                Ok(labels) if labels.name() == "over_the_limit" => Some((at, (RefusalReason::SeriesLimit, "x".into()))),
                Ok(_) => None,
                Err(denial) => Some((at, denial)),
            });
            let ids = (0..keys.len() as u32).map(SeriesId).collect();
            wardroom_sources::Resolved { ids, generation: 0, denied: denied.collect() }
        }),
        append: Arc::new(move |accepted| {
            let (into, failure) = (Arc::clone(&into), failure.clone());
            Box::pin(async move {
                if let Some(failure) = failure {
                    return Err(failure);
                }
                let mut kept = into.lock().unwrap();
                kept.push(accepted);
                Ok(kept.len() as u64)
            })
        }),
        now: Arc::new(|| Timestamp::from_millis(NOW_MS)),
    };
    let tokens = TokenTable::new(AuthMode::On);
    let (token, sha256) = wardroom_edge::mint_token();
    let identity =
        Identity { tenant: TenantId::new("acme").unwrap(), principal: Principal::wardroom(), role: AccessRole::Sender };
    tokens.replace(Some(vec![KnownToken { sha256, identity, expires_at: None }]));
    let port =
        Port { tokens: tokens.clone(), refused: Arc::new(|_| {}), now: Arc::new(|| Timestamp::from_millis(NOW_MS)) };
    World { router: port.router(wardroom_sources::routes(&intake)), tokens, budget, token, kept }
}

impl World {
    async fn post(&self, source: &dyn Source, body: Vec<u8>) -> StatusCode {
        self.ask(source, body, &self.token).await.0
    }

    /// Status, and whether the sender is told when to come again.
    async fn ask(&self, source: &dyn Source, body: Vec<u8>, token: &str) -> (StatusCode, bool) {
        let head = head(source);
        let mut request = Request::post(source.path())
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", format!("{}; charset=utf-8", head.content_type));
        if !head.content_encoding.is_empty() {
            request = request.header("content-encoding", head.content_encoding);
        }
        let request = request.body(Body::from(body)).unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        (answer.status(), answer.headers().contains_key("retry-after"))
    }
}

/// A request of each source that must be taken.
fn good(source: &dyn Source) -> Vec<u8> {
    match source.name() {
        "prometheus_remote_write" => capture("first_scrape.snappy.pb"),
        "json_metrics" => br#"{"metric_name":"a","value":1.5,"labels":{"service":"s"}}"#.to_vec(),
        "json_logs" => br#"[{"level":"ERROR","message":"m","service":"s"}]"#.to_vec(),
        "json_deployment" => br#"{"service":"s","version":"v1","status":"success"}"#.to_vec(),
        "otlp_metrics" => capture("otlp/005-metrics-python.pb.gz"),
        "otlp_logs" => capture("otlp/007-logs-python.pb.gz"),
        "otlp_traces" => capture("otlp/004-traces-python.pb.gz"),
        other => panic!("{other} has no good request: add one"),
    }
}

/// The compliance helper: what holds for every source, from the registry, not from memory.
#[tokio::test]
async fn every_source_complies() {
    for source in SOURCES {
        let world = world(None);
        let name = source.name();
        assert!(world.post(*source, good(*source)).await.is_success(), "{name}: a good request");
        {
            let kept = world.kept.lock().unwrap();
            let accepted = &kept[0];
            assert_eq!(accepted.envelope.tenant.as_str(), "acme", "{name}: the tenant is the credential's");
            assert_eq!(accepted.envelope.protocol, name);
            assert_eq!(accepted.body, good(*source), "{name}: the body is kept as received");
            let again = replay(&accepted.envelope, &accepted.body, &budget()).unwrap();
            assert_eq!(again.len(), accepted.batch.len(), "{name}: replay finds the same");
        }
        let mut cut = good(*source);
        cut.truncate(cut.len() / 2);
        assert_eq!(world.post(*source, cut).await, StatusCode::BAD_REQUEST, "{name}: cut short");
        assert_eq!(world.post(*source, vec![0xff; 40]).await, StatusCode::BAD_REQUEST, "{name}: noise");
        assert_eq!(world.kept.lock().unwrap().len(), 1, "{name}: nothing refused is stored");
        let anonymous = Request::post(source.path()).body(Body::empty()).unwrap();
        assert_eq!(world.router.clone().oneshot(anonymous).await.unwrap().status(), 401, "{name}: no credential");
        for failure in [Failure::Retryable("x".into()), Failure::Quota("x".into()), Failure::Fatal("x".into())] {
            let broken = self::world(Some(failure.clone()));
            assert_eq!(
                broken.post(*source, good(*source)).await,
                503,
                "{name}: {failure:?} must be retried by senders"
            );
        }
    }
}

/// The status table: what a sender is told decides whether it drops or keeps the data.
#[tokio::test]
async fn every_failure_has_the_status_its_sender_needs() {
    let (again, lost) = (true, false);
    for source in SOURCES {
        let name = source.name();
        // Storage: full or broken disks, a bus at its limit, overload. Never 429 or 500: senders drop on those.
        for failure in [Failure::Retryable("x".into()), Failure::Quota("x".into()), Failure::Fatal("x".into())] {
            let answer = world(Some(failure.clone())).ask(*source, good(*source), "").await;
            assert_eq!(answer, (StatusCode::UNAUTHORIZED, lost), "{name}: an empty credential");
            let broken = world(Some(failure.clone()));
            let answer = broken.ask(*source, good(*source), &broken.token).await;
            assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, again), "{name}: {failure:?}");
        }
        let narrow = world_with(None, 1);
        assert!(narrow.post(*source, good(*source)).await.is_success(), "{name}: the first request passes");
        let answer = narrow.ask(*source, good(*source), &narrow.token).await;
        assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, again), "{name}: a tenant over its byte quota");
        assert_eq!(narrow.kept.lock().unwrap().len(), 1, "{name}: nothing over the quota is stored");
        let world = world(None);
        let answer = world.ask(*source, good(*source), "wr_unknown").await;
        assert_eq!(answer, (StatusCode::UNAUTHORIZED, lost), "{name}: a token known to be bad");
        let answer = world.ask(*source, vec![b' '; 17 << 20], &world.token).await;
        assert_eq!(answer, (StatusCode::PAYLOAD_TOO_LARGE, lost), "{name}: a body over the limit");
        let mut other = Request::post(source.path()).header("authorization", format!("Bearer {}", world.token));
        other = other.header("content-type", "text/csv");
        let answer = world.router.clone().oneshot(other.body(Body::from("a")).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{name}: another type");
        {
            let everything: Vec<_> = (0..2).map(|_| world.budget.take(32 << 20).unwrap()).collect();
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packed, &good(*source)).unwrap();
            let packed = packed.finish().unwrap();
            let mut head = head(*source);
            let body = if head.content_encoding.is_empty() { packed } else { good(*source) };
            if head.content_encoding.is_empty() {
                head.content_encoding = "gzip".into();
            }
            let failed = source.decode(&head, &body, &world.budget).err();
            assert!(matches!(failed, Some(Failure::Retryable(_))), "{name}: the budget is taken by others: {failed:?}");
            drop(everything);
            assert!(source.decode(&head, &body, &world.budget).is_ok(), "{name}: and given back");
        }
        world.tokens.replace(None);
        let answer = world.ask(*source, good(*source), &world.token).await;
        assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, again), "{name}: the token store cannot be read");
    }
}

/// Small bodies that would take hundreds of megabytes once understood.
#[tokio::test]
async fn a_crowd_of_tiny_records_is_refused_before_it_takes_memory() {
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
        // A series of one empty sample; an empty symbol.
        repeat(&[0x0a, 0x02, 0x12, 0x00], first),
        repeat(&[0x22, 0x00], second),
        array(SOURCES[1], "{}"),
        array(SOURCES[2], "[]"),
        array(SOURCES[3], "0"),
    ] {
        let failed = source.decode(&head, &body, &budget()).err();
        let word = format!("{failed:?}");
        assert!(matches!(failed, Some(Failure::Rejected { reason: "too_large", .. })), "{}: {word}", source.name());
        assert!(word.contains("250000"), "{word}");
    }
}

/// Half of a large request too old, every second sample: the work grows with the request, not with its square.
#[tokio::test]
async fn many_refusals_in_one_request_cost_little() {
    let sample = |at: i64| PbSample { value: at as f64, timestamp: if at % 2 == 0 { NOW_MS } else { 1 } };
    let labels = vec![Label { name: "__name__".into(), value: "m".into() }];
    let series = TimeSeries { labels, samples: (0..200_000).map(sample).collect() };
    let plain = WriteRequest { timeseries: vec![series] }.encode_to_vec();
    let world = world(None);
    let started = std::time::Instant::now();
    let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    assert_eq!(world.post(SOURCES[0], body).await, StatusCode::BAD_REQUEST);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    let kept = world.kept.lock().unwrap();
    assert_eq!(kept[0].batch.metrics.samples.len(), 100_000);
    assert!(kept[0].batch.metrics.samples.iter().all(|sample| sample.value % 2.0 == 0.0));
    assert_eq!(replay(&kept[0].envelope, &kept[0].body, &budget()).unwrap().len(), 100_000);
}

#[test]
fn real_prometheus_requests_are_read() {
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
async fn series_over_the_limit_are_refused_and_replay_knows_it() {
    let world = world(None);
    let body =
        br#"[{"metric_name":"a","value":1},{"metric_name":"over_the_limit","value":2},{"metric_name":"b","value":3}]"#;
    assert_eq!(world.post(SOURCES[1], body.to_vec()).await, StatusCode::BAD_REQUEST);
    let kept = world.kept.lock().unwrap();
    assert_eq!(kept[0].batch.len(), 2);
    let again = replay(&kept[0].envelope, &kept[0].body, &budget()).unwrap();
    let names: Vec<String> = (0..2).map(|at| again.metrics.labels(at).unwrap().name().to_owned()).collect();
    assert_eq!(names, ["a", "b"]);
}

/// `prometheus.WriteRequest` by a decoder that shares nothing with ours.
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

/// A series as text and bits: its labels, and its samples as (ms, bits).
type Plain = (Vec<(String, String)>, Vec<(i64, u64)>);

/// Everything a body says, by our reader: labels and samples of each series that has some.
fn read_by_us(plain: &[u8]) -> Option<Vec<Plain>> {
    let body = snap::raw::Encoder::new().compress_vec(plain).unwrap();
    let decoded = SOURCES[0].decode(&head(SOURCES[0]), &body, &budget()).ok()?;
    let samples = decoded.metrics.iter().map(|(at, samples)| {
        let labels = decoded.metrics.labels(at).ok()?;
        let pairs = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some((pairs, samples.iter().map(|sample| (sample.ts_ms, sample.value.to_bits())).collect()))
    });
    samples.collect()
}

#[test]
fn labels_and_samples_may_stand_in_any_order() {
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
    assert_eq!(read_by_us(&plain), Some(vec![(vec![pair("a"), pair("b")], samples)]));
}

proptest! {
    /// The reader without copies agrees with a generated one (bar 9a).
    #[test]
    fn our_reader_agrees_with_prost(
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
        prop_assert_eq!(read_by_us(&plain), Some(expected));
    }

    /// What our reader takes, a generated one takes, and both read the same.
    #[test]
    fn bent_messages_are_read_alike_or_refused(at in 0_usize..4000, bits in 1_u8.., cut in prop::option::of(0_usize..4000)) {
        let body = capture("small_exemplars_nan_inf.snappy.pb");
        let mut plain = vec![0; snap::raw::decompress_len(&body).unwrap()];
        snap::raw::Decoder::new().decompress(&body, &mut plain).unwrap();
        let at = at % plain.len();
        plain[at] ^= bits;
        plain.truncate(cut.unwrap_or(usize::MAX));
        if let (Some(ours), Ok(theirs)) = (read_by_us(&plain), WriteRequest::decode(&plain[..])) {
            let samples: usize = theirs.timeseries.iter().map(|series| series.samples.len()).sum();
            prop_assert_eq!(ours.iter().map(|(_, samples)| samples.len()).sum::<usize>(), samples);
        }
    }

    #[test]
    fn no_bytes_make_a_source_panic(bytes: Vec<u8>) {
        for source in SOURCES {
            let _outcome = source.decode(&head(*source), &bytes, &budget());
            let packed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
            let _outcome = source.decode(&head(*source), &packed, &budget());
        }
    }
}
