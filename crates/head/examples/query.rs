//! Keep samples of two series and ask for one: `cargo run -p wardroom-head --example query`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Labels, Matcher, Sample, Timestamp};
use wardroom_head::{Config, Head};

fn main() {
    let mut head = Head::new(Config::default());
    for job in ["a", "b"] {
        let (id, _new) = head.resolve(&Labels::of(&[("__name__", "up"), ("job", job)]));
        for second in 0..3 {
            head.push(id, Sample { ts_ms: second * 1000, value: 1.0 });
        }
    }
    let query = SeriesQuery {
        matchers: Matcher::parse_selector("up{job=\"a\"}").unwrap(),
        start: Timestamp::from_millis(1000),
        end: Timestamp::from_millis(9000),
    };
    for (labels, samples) in head.query(&query) {
        println!("{labels} {samples:?}");
    }
}
