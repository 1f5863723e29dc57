//! Native histograms and exemplars are read back bit for bit, in pages.

use proptest::prelude::*;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Buckets, Exemplar, Labels, NativeHistogram, TenantId, Timestamp};
use wardroom_lake::{Config, EventBatch, Lake, RequestOrigin};

const START_MS: i64 = 1_795_255_038_178;

fn buckets() -> impl Strategy<Value = Buckets> {
    let spans = prop::collection::vec((any::<i32>(), 0_u32..4), 0..3);
    spans.prop_flat_map(|spans| {
        let buckets = spans.iter().map(|(_, length)| *length as usize).sum::<usize>();
        prop::collection::vec(any::<f64>(), buckets).prop_map(move |counts| Buckets { spans: spans.clone(), counts })
    })
}

prop_compose! {
    /// Arbitrary bits where any value is allowed.
    fn histogram()(
        ms in 0_i64..3_600_000, count in any::<f64>(), sum in any::<u64>(), schema in -53..9_i32,
        zero in any::<(f64, f64)>(), positive in buckets(), negative in buckets(),
        bounds in prop::collection::vec(any::<f64>(), 0..3), reset_hint in 0_u8..4,
    ) -> NativeHistogram {
        NativeHistogram {
            ts_ms: START_MS + ms, count, sum: f64::from_bits(sum), schema, zero_threshold: zero.0, zero_count: zero.1,
            positive, negative, bounds, reset_hint,
        }
    }
}

/// Text with the bits of the sum, since NaN is not equal to itself.
fn debug_text(histogram: &NativeHistogram) -> String {
    format!("{histogram:?} {:x}", histogram.sum.to_bits())
}

fn query(selector: &str) -> SeriesQuery {
    let selectors = vec![wardroom_domain::Matcher::parse_selector(selector).unwrap()];
    let (start, end) = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX / 2_000_000));
    SeriesQuery { selectors, start, end, step_ms: None }
}

fn origin(offset: u64) -> RequestOrigin {
    RequestOrigin::new(TenantId::main(), offset, Timestamp::from_millis(START_MS), Some(7))
}

fn series(name: &str, n: usize) -> Labels {
    Labels::new(vec![("__name__", name), ("n", &n.to_string())])
}

/// Reads all pages.
async fn read_all_pages(lake: &Lake, mut query: SeriesQuery, before: u64) -> Vec<(Labels, String)> {
    let mut found = Vec::new();
    loop {
        let page = lake.read_histograms(&TenantId::main(), &query, before).await.unwrap();
        found.extend(page.found.iter().map(|(labels, histogram)| (labels.clone(), debug_text(histogram))));
        let Some(next_ms) = page.next_ms else { break };
        assert!(next_ms > query.start.millis() && next_ms % 60_000 == 0, "{next_ms}");
        query.start = Timestamp::from_millis(next_ms);
    }
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn reads_back_every_bit(
        made in prop::collection::vec((0_usize..3, histogram()), 1..20), committed in any::<prop::sample::Index>()
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
            let mut events = EventBatch::new(lake.committed_event_offsets().await.unwrap());
            let committed = committed.index(made.len());
            let (now, mut expected) = (Timestamp::from_millis(START_MS), Vec::new());
            for (index, (n, histogram)) in made.iter().enumerate() {
                let labels = series("latency", *n);
                events.add_histogram(&origin(index as u64), 0, &labels, histogram).unwrap();
                events.add_histogram(&origin(index as u64), 1, &series("other", *n), histogram).unwrap();
                expected.push((index as u64, labels, debug_text(histogram)));
                // Some rows are committed, the others are pending.
                if index == committed {
                    lake.commit_events(&events.finish(index as u64 + 1, now).unwrap()).await.unwrap();
                }
            }
            lake.publish_pending(events.pending_rows(made.len() as u64).unwrap()).await;
            assert_eq!(lake.visible_event_offset().await, made.len() as u64);
            for before in [made.len() as u64, committed as u64] {
                for wanted in [None, Some(1)] {
                    let selector = wanted.map_or("latency".into(), |n: usize| format!("latency{{n=\"{n}\"}}"));
                    let known = |labels: &Labels| wanted.is_none_or(|n| *labels == series("latency", n));
                    let matching = expected.iter().filter(|(offset, labels, _)| *offset < before && known(labels));
                    let matching = matching.map(|(_, labels, text)| (labels.clone(), text.clone()));
                    let mut matching: Vec<_> = matching.collect();
                    matching.sort();
                    assert_eq!(read_all_pages(&lake, query(&selector), before).await, matching);
                }
            }
        });
    }
}

#[tokio::test]
async fn reads_many_histograms_in_pages_and_exemplars_with_labels() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let mut events = EventBatch::new(lake.committed_event_offsets().await.unwrap());
    let (labels, mut sent) = (series("latency", 0), Vec::new());
    for step in 0..250_000_i64 {
        let histogram = NativeHistogram {
            ts_ms: START_MS + step * 15,
            count: step as f64,
            sum: 1.0,
            schema: 3,
            zero_threshold: 0.0,
            zero_count: 0.0,
            positive: Buckets::default(),
            negative: Buckets::default(),
            bounds: Vec::new(),
            reset_hint: 2,
        };
        events.add_histogram(&origin(1), 0, &labels, &histogram).unwrap();
        sent.push((labels.clone(), debug_text(&histogram)));
    }
    let name = |trace: &str| Labels::new(vec![("trace_id", trace)]);
    let exemplar = |ms: i64, trace: &str| Exemplar { labels: name(trace), value: -0.0, ts_ms: START_MS + ms };
    let exemplars = [exemplar(0, "a"), exemplar(7_200_000, "b")];
    for exemplar in &exemplars {
        events.add_exemplar(&origin(1), 0, &labels, exemplar).unwrap();
        events.add_exemplar(&origin(1), 0, &series("other", 0), exemplar).unwrap();
    }
    lake.commit_events(&events.finish(2, Timestamp::from_millis(START_MS)).unwrap()).await.unwrap();
    sent.sort();
    let first = lake.read_histograms(&TenantId::main(), &query("latency"), 2).await.unwrap();
    assert!(first.next_ms.is_some() && first.found.len() < sent.len(), "{:?}", first.next_ms);
    assert!(read_all_pages(&lake, query("latency"), 2).await == sent, "each histogram once over all pages");
    let hour = (Timestamp::from_millis(START_MS), Timestamp::from_millis(START_MS + 3_600_000));
    let window = lake.read_replay_window(&TenantId::main(), hour, 2).await.unwrap();
    assert_eq!(window.series, std::slice::from_ref(&labels));
    let counts = window.seconds.values().flat_map(|second| &second.histograms).map(|(_, histogram)| histogram.count);
    assert!(counts.eq((0..240_000).map(f64::from)), "second by second");
    let found = lake.read_exemplars(&TenantId::main(), &query("latency"), 10).await.unwrap();
    assert_eq!(found, exemplars.map(|exemplar| (labels.clone(), exemplar)));
    assert!(found[0].1.value.is_sign_negative());
    assert_eq!(lake.read_exemplars(&TenantId::main(), &query("latency"), 1).await.unwrap().len(), 1);
}
