//! Requests that arrive one by one, as spans do: counted in fixed buckets by the window that they ended in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::request_windows::RequestStep;
use super::sums::{SOURCES, Source};
use crate::durations::{BOUNDS, Durations};

/// Windows that wait; a request of a further one counts in the newest.
const MAX_WAITING_WINDOWS: usize = 512;

/// Requests by the end of their window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stream {
    windows: BTreeMap<i64, StreamWindow>,
    /// Time of the newest request, in ms.
    pub(super) newest_ms: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct StreamWindow {
    ok: Durations,
    failed: Durations,
}

impl Stream {
    /// Adds a request that ended at `at_ms`. One whose window is over counts in the current one, until `end_ms`.
    pub(super) fn add(&mut self, at_ms: i64, seconds: f64, failed: bool, end_ms: i64, step_ms: i64) {
        self.newest_ms = self.newest_ms.max(at_ms);
        let mut window_ms = (at_ms.saturating_sub(1).div_euclid(step_ms) + 1).saturating_mul(step_ms).max(end_ms);
        if self.windows.len() >= MAX_WAITING_WINDOWS && !self.windows.contains_key(&window_ms) {
            window_ms = self.windows.last_key_value().map_or(window_ms, |(newest_ms, _)| *newest_ms);
        }
        let window = self.windows.entry(window_ms).or_default();
        if failed { window.failed.add(seconds) } else { window.ok.add(seconds) }
    }

    /// Returns the end of the oldest window with requests.
    pub(super) fn oldest_end_ms(&self) -> Option<i64> {
        self.windows.first_key_value().map(|(end_ms, _)| *end_ms)
    }

    /// Takes the requests of all windows up to `end_ms`.
    pub(super) fn take(&mut self, begin_ms: i64, end_ms: i64) -> RequestStep {
        let later = self.windows.split_off(&(end_ms + 1));
        let mut counts = [0.0; BOUNDS.len() + 1];
        let mut failed = 0.0;
        for window in std::mem::replace(&mut self.windows, later).into_values() {
            let (ok_counts, failed_counts) = (window.ok.counts(), window.failed.counts());
            failed += failed_counts[BOUNDS.len()];
            counts
                .iter_mut()
                .zip(ok_counts.iter().zip(failed_counts))
                .for_each(|(sum, (ok, failed))| *sum += ok + failed);
        }
        let total = counts[BOUNDS.len()];
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        let mut sources = [Source::default(); SOURCES];
        sources[0] = Source { exists: true, has_outcome: true, total, failed };
        RequestStep {
            at_ms: end_ms,
            window_ms: end_ms - begin_ms,
            members: 1,
            sources,
            traffic: Some(total * 1000.0 / (end_ms - begin_ms).max(1) as f64),
            buckets: if total > 0.0 { bounds.zip(counts).collect() } else { Vec::new() },
            ..RequestStep::default()
        }
    }
}
