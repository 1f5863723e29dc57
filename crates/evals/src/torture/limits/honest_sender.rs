//! A well-behaved sender beside the attack.

use std::time::Instant;

use wardroom_testing::{Server, now_ms, remote_write};

/// A p99 below this is acceptable, in ms: the attack itself loads the same cores.
pub(super) const TOLERATED_P99_MS: f64 = 150.0;

pub(super) const SNAPPY_HEADERS: &[(&str, &str)] =
    &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
pub(super) const JSON_HEADERS: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// Outcome of an honest sender's requests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HonestOutcome {
    /// 99th percentile of the response times.
    pub(super) p99_ms: f64,
    /// Requests that were not acknowledged.
    pub(super) lost: u64,
}

impl HonestOutcome {
    /// Combines two outcomes: the higher p99 and the sum of lost requests.
    pub(super) fn combine(self, other: Self) -> Self {
        Self { p99_ms: self.p99_ms.max(other.p99_ms), lost: self.lost + other.lost }
    }
}

/// Sends small requests one after the other.
pub(super) fn send_honest_requests(server: &Server, count: usize) -> HonestOutcome {
    let (mut times_ms, mut lost) = (Vec::new(), 0);
    for number in 0..count {
        let series = remote_write::series(&[("__name__", "honest")], number as f64, now_ms());
        let started = Instant::now();
        let body = remote_write::body(vec![series]);
        let response = server.post("/api/v1/write", &server.sender_token, SNAPPY_HEADERS, &body);
        times_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        lost += u64::from(!response.is_ok_and(|(status, ..)| status == 204));
    }
    times_ms.sort_unstable_by(f64::total_cmp);
    HonestOutcome { p99_ms: times_ms.get(count * 99 / 100).copied().unwrap_or(f64::NAN), lost }
}
