//! Latency of range queries on the head: `cargo bench -p wardroom-head`. 100 000 series, one hour of samples every
//! 15 s, sealed blocks in a file as in production.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may unwrap")]

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use wardroom_domain::{Labels, Matcher, Sample, SeriesId};
use wardroom_head::{Config, NameLookup, RecentSamples, STREAM_START, SeriesRegistry};

struct Head {
    registry: SeriesRegistry,
    recent: RecentSamples,
    stream: std::fs::File,
}

static HEAD: LazyLock<Head> = LazyLock::new(|| {
    let (mut registry, mut recent) =
        (SeriesRegistry::new(Config::default(), NameLookup::by_label("service", "peer_service")), RecentSamples::new());
    let mut stream = tempfile::tempfile().unwrap();
    for number in 0..100_000 {
        let (pod, service) = (format!("p{number}"), format!("s{}", number / 1000));
        registry.get_or_insert(&Labels::of(&[("__name__", "depth"), ("pod", &pod), ("service", &service)]));
    }
    for step in 0..240_i64 {
        for id in 0..100_000 {
            recent.push(SeriesId(id), Sample { ts_ms: step * 15_000, value: f64::from(id) / 10.0 }, &|_, _| None);
        }
        stream.write_all(recent.unpersisted_blocks().1).unwrap();
        recent.mark_persisted();
    }
    Head { registry, recent, stream }
});

impl Head {
    fn query_samples(&self, selector: &str) -> usize {
        let fetch = |address: u64, buffer: &mut [u8]| self.stream.read_at(buffer, address - STREAM_START).ok();
        let ids = self.registry.select(&Matcher::parse_selector(selector).unwrap());
        ids.into_iter().map(|id| self.recent.range(id, 0, 3_600_000).read_all(&fetch).unwrap().len()).sum()
    }
}

/// One hour of one series: 240 samples.
#[divan::bench]
fn one_series(bencher: divan::Bencher<'_, '_>) {
    assert_eq!(HEAD.query_samples("depth{pod=\"p4711\"}"), 240);
    bencher.bench(|| HEAD.query_samples("depth{pod=\"p4711\"}"));
}

/// One hour of a service with 1000 series.
#[divan::bench]
fn a_thousand_series(bencher: divan::Bencher<'_, '_>) {
    assert_eq!(HEAD.query_samples("depth{service=\"s17\"}"), 240_000);
    bencher.bench(|| HEAD.query_samples("depth{service=\"s17\"}"));
}

fn main() {
    divan::main();
}
