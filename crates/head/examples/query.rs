//! Stores samples of two series and queries one: `cargo run -p wardroom-head --example query`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_domain::{Labels, Matcher, Sample};
use wardroom_head::{Config, NameLookup, RecentSamples, SeriesRegistry};

fn main() {
    let config = Config::default();
    let (mut registry, mut recent) =
        (SeriesRegistry::new(config.clone(), NameLookup::by_label("service", "peer_service")), RecentSamples::new());
    for job in ["a", "b"] {
        let id = registry.get_or_insert(&Labels::of(&[("__name__", "up"), ("job", job)]));
        for second in 0..3 {
            recent.push(id, Sample { ts_ms: second * 1000, value: 1.0 }, &|_, _| None);
        }
    }
    for id in registry.select(&Matcher::parse_selector("up{job=~\"a|c\"}").unwrap()) {
        println!("{} {:?}", registry.labels(id).unwrap(), recent.range(id, 1000, 9000).read_all(&|_, _| None).unwrap());
    }
}
