//! Cost of encoding a flush: `cargo bench -p wardroom-lake`. A million samples of 10 000 series, one every 15 s:
//! counters, gauges with one decimal, and latencies with three.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may unwrap")]

use std::sync::LazyLock;

use divan::counter::ItemsCount;
use wardroom_domain::{Sample, TenantId};
use wardroom_lake::Flush;

const SERIES: i64 = 10_000;
const STEPS: i64 = 100;

static SERIES_SAMPLES: LazyLock<Vec<Vec<Sample>>> = LazyLock::new(|| {
    let value = |series: i64, step: i64| {
        let noise = (series * 7919 + step * 104_729) % 1009;
        match series % 5 {
            0 | 1 => (step * 50 + noise % 20) as f64,
            2 | 3 => (noise % 300) as f64 / 10.0,
            _ => noise as f64 / 1000.0,
        }
    };
    let sample = |series, step| Sample { ts_ms: 1_795_255_038_000 + step * 15_000, value: value(series, step) };
    (0..SERIES).map(|series| (0..STEPS).map(|step| sample(series, step)).collect()).collect()
});

#[divan::bench]
fn a_million_samples(bencher: divan::Bencher<'_, '_>) {
    let runs = &*SERIES_SAMPLES;
    bencher.counter(ItemsCount::new(SERIES as usize * STEPS as usize)).bench(|| {
        let mut flush = Flush::new(1);
        for (series, run) in (0..).zip(runs) {
            flush.push(&TenantId::main(), series, run).unwrap();
        }
        flush.close().unwrap();
        flush
    });
}

fn main() {
    divan::main();
}
