//! remote_write 2.0, from bodies that Google's protobuf library for Python wrote (`remote_write_v2/make.py`).

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use tower::ServiceExt;
use wardroom_domain::batch::STALE_NAN_BITS;
use wardroom_sources::{RequestHead, SOURCES, replay};

use crate::{NOW_MS, World, budget, head, world};

const TYPE: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/it/remote_write_v2/{name}.snappy.pb", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

async fn post(world: &World, kind: &str, body: Vec<u8>) -> (StatusCode, HeaderMap) {
    let request = Request::post("/api/v1/write")
        .header("authorization", format!("Bearer {}", world.token))
        .header("content-type", kind)
        .header("content-encoding", "snappy")
        .header("x-prometheus-remote-write-version", "2.0.0");
    let answer = world.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    (answer.status(), answer.headers().clone())
}

/// Samples, histograms and exemplars written, as the answer says.
fn written(headers: &HeaderMap) -> Option<[u32; 3]> {
    let count =
        |name: &str| headers.get(format!("x-prometheus-remote-write-{name}-written"))?.to_str().ok()?.parse().ok();
    Some([count("samples")?, count("histograms")?, count("exemplars")?])
}

#[tokio::test]
async fn an_ordinary_request_is_read_whole() {
    let world = world(None);
    let (status, headers) = post(&world, TYPE, fixture("ordinary")).await;
    assert_eq!((status, written(&headers)), (StatusCode::NO_CONTENT, Some([4, 1, 1])));
    let kept = world.kept.lock().unwrap();
    let said: Vec<_> =
        kept[0].batch.metadata.iter().map(|m| (m.family.as_str(), m.kind, m.help.as_str(), m.unit.as_str())).collect();
    let expected = [
        ("up", "gauge", "whether it is up", ""),
        ("http_requests_total", "counter", "requests served", "requests"),
        ("latency_seconds", "histogram", "how long", "seconds"),
    ];
    assert_eq!(said, expected);
    let again = replay(&kept[0].envelope, &kept[0].body, &budget()).unwrap();
    let series: Vec<_> = again
        .metrics
        .iter()
        .map(|(at, samples)| {
            let samples: Vec<_> =
                samples.iter().map(|sample| (NOW_MS - sample.ts_ms, sample.value.to_bits())).collect();
            (again.metrics.labels(at).unwrap().to_string(), samples)
        })
        .collect();
    let up = vec![(30_000, 1_f64.to_bits()), (15_000, 0), (0, STALE_NAN_BITS)];
    let expected = [
        (r#"{__name__="up", instance="a:9100", job="node"}"#.to_owned(), up),
        (r#"{__name__="http_requests_total", job="node"}"#.to_owned(), vec![(0, 42.5_f64.to_bits())]),
        (r#"{__name__="latency_seconds", job="node"}"#.to_owned(), Vec::new()),
    ];
    assert_eq!(series, expected);
    insta::assert_debug_snapshot!((again.metrics.histograms(), again.metrics.exemplars()));
}

#[tokio::test]
async fn a_series_that_cannot_be_is_refused_and_its_neighbours_are_kept() {
    for name in ["bad_ref", "odd_refs", "twice", "no_name", "empty_label_name", "too_old"] {
        let world = world(None);
        let (status, headers) = post(&world, TYPE, fixture(name)).await;
        assert_eq!((status, written(&headers)), (StatusCode::BAD_REQUEST, Some([2, 0, 0])), "{name}");
        let kept = world.kept.lock().unwrap();
        assert_eq!(kept[0].batch.metrics.samples.iter().map(|sample| sample.value).collect::<Vec<_>>(), [1.0, 2.0]);
        assert_eq!(replay(&kept[0].envelope, &kept[0].body, &budget()).unwrap().len(), 2, "{name}");
    }
}

#[tokio::test]
async fn the_message_is_chosen_by_the_content_type() {
    let world = world(None);
    for (kind, expected) in [
        ("application/x-protobuf; proto=io.prometheus.write.v2.Request", StatusCode::NO_CONTENT),
        ("application/x-protobuf;proto=\"io.prometheus.write.v2.Request\"", StatusCode::NO_CONTENT),
        ("application/x-protobuf;proto=io.prometheus.write.v3.Request", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
    ] {
        assert_eq!(post(&world, kind, fixture("ordinary")).await.0, expected, "{kind}");
    }
    let one = crate::capture("first_scrape.snappy.pb");
    for kind in ["application/x-protobuf", "application/x-protobuf;proto=prometheus.WriteRequest"] {
        let (status, headers) = post(&world, kind, one.clone()).await;
        assert_eq!((status, written(&headers)), (StatusCode::NO_CONTENT, None), "{kind}: a 1.0 sender is told nothing");
    }
}

proptest::proptest! {
    #[test]
    fn bent_messages_never_panic(at in 0_usize..4000, bits in 1_u8.., cut in proptest::option::of(0_usize..4000)) {
        let body = fixture("ordinary");
        let mut plain = vec![0; snap::raw::decompress_len(&body).unwrap()];
        snap::raw::Decoder::new().decompress(&body, &mut plain).unwrap();
        let at = at % plain.len();
        plain[at] ^= bits;
        plain.truncate(cut.unwrap_or(usize::MAX));
        let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let head = RequestHead { content_type: TYPE.to_ascii_lowercase(), ..head(SOURCES[0]) };
        if let Ok(decoded) = SOURCES[0].decode(&head, &body, &budget()) {
            for at in 0..decoded.metrics.keys().len() {
                let _read = decoded.metrics.labels(at);
            }
        }
    }
}
