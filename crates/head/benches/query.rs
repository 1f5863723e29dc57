//! How long questions to the live series take: `cargo bench -p wardroom-head`. 100 000 series of an hour every 15 s,
//! their blocks in a file, as they lie beside the checkpoints.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may unwrap")]

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use wardroom_domain::{Labels, Matcher, Sample, SeriesId};
use wardroom_head::{Config, Recent, Registry, START};

struct World {
    registry: Registry,
    recent: Recent,
    stream: std::fs::File,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (mut registry, mut recent) = (Registry::new(Config::default()), Recent::new());
    let mut stream = tempfile::tempfile().unwrap();
    for at in 0..100_000 {
        let (pod, service) = (format!("p{at}"), format!("s{}", at / 1000));
        registry.id_of(&Labels::of(&[("__name__", "depth"), ("pod", &pod), ("service", &service)]));
    }
    for step in 0..240_i64 {
        for id in 0..100_000 {
            recent.push(SeriesId(id), Sample { ts_ms: step * 15_000, value: f64::from(id) / 10.0 }, &|_, _| None);
        }
        stream.write_all(recent.pending().1).unwrap();
        recent.flushed();
    }
    World { registry, recent, stream }
});

impl World {
    fn ask(&self, selector: &str) -> usize {
        let fetch = |address: u64, buffer: &mut [u8]| self.stream.read_at(buffer, address - START).ok();
        let ids = self.registry.select(&Matcher::parse_selector(selector).unwrap());
        ids.into_iter().map(|id| self.recent.part(id, 0, 3_600_000).whole(&fetch).unwrap().len()).sum()
    }
}

/// An hour of one series: 240 samples.
#[divan::bench]
fn one_series(bencher: divan::Bencher<'_, '_>) {
    assert_eq!(WORLD.ask("depth{pod=\"p4711\"}"), 240);
    bencher.bench(|| WORLD.ask("depth{pod=\"p4711\"}"));
}

/// An hour of a service with a thousand series.
#[divan::bench]
fn a_thousand_series(bencher: divan::Bencher<'_, '_>) {
    assert_eq!(WORLD.ask("depth{service=\"s17\"}"), 240_000);
    bencher.bench(|| WORLD.ask("depth{service=\"s17\"}"));
}

fn main() {
    divan::main();
}
