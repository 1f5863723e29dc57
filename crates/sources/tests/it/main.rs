//! Every source of the registry against what each must do, and against real requests.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use tower::ServiceExt;
use wardroom_domain::error::Failure;
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp, batch::STALE_NAN_BITS};
use wardroom_edge::{AuthMode, Config as EdgeConfig, InflateBudget, KnownToken, Port, TokenTable};
use wardroom_sources::{Accepted, Config, Intake, RequestHead, SOURCES, Source, replay};

/// 2026-11-21, when the captures were taken.
const NOW_MS: i64 = 1_795_255_200_000;

fn budget() -> InflateBudget {
    InflateBudget::new(64 << 20, 32 << 20)
}

fn head(source: &dyn Source) -> RequestHead {
    let (content_type, content_encoding) = match source.name() {
        "prometheus_remote_write" => ("application/x-protobuf", "snappy"),
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
    let budget = budget();
    let kept: Arc<Mutex<Vec<Accepted>>> = Arc::default();
    let into = Arc::clone(&kept);
    let intake = Intake {
        config: Config::default(),
        edge: EdgeConfig::default(),
        budget: budget.clone(),
        resolve: Arc::new(|_, series| series.labels.name() != "over_the_limit"),
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

#[test]
fn real_prometheus_requests_are_read() {
    let source = SOURCES[0];
    let read = |name: &str| source.decode(&head(source), &capture(name), &budget()).unwrap();
    let scrape = read("first_scrape.snappy.pb");
    assert_eq!((scrape.batch.series.len(), scrape.batch.len()), (436, 436));
    assert_eq!(read("metadata.snappy.pb").batch.len(), 0);
    let stale = read("500series_exemplars_stale.snappy.pb");
    let bits = stale.batch.series.iter().flat_map(|series| &series.samples).map(|sample| sample.value.to_bits());
    assert_eq!((stale.batch.len(), bits.filter(|bits| *bits == STALE_NAN_BITS).count()), (498, 2));
    let small = read("small_exemplars_nan_inf.snappy.pb");
    let values: Vec<f64> =
        small.batch.series.iter().flat_map(|series| &series.samples).map(|sample| sample.value).collect();
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
    let names: Vec<&str> = again.series.iter().map(|series| series.labels.name()).collect();
    assert_eq!(names, ["a", "b"]);
}

proptest! {
    #[test]
    fn no_bytes_make_a_source_panic(bytes: Vec<u8>) {
        for source in SOURCES {
            let _outcome = source.decode(&head(*source), &bytes, &budget());
            let packed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
            let _outcome = source.decode(&head(*source), &packed, &budget());
        }
    }
}
