//! Gaps of ingestion: while nothing arrives from any sender, windows are incomplete for a reason that is no service's
//! fault: Wardroom was down or slow, its host was starved, or the network to it was down. They are not judged.

use serde::{Deserialize, Serialize};

/// A gap is at least this long, in ms of arrival time.
const MIN_GAP_MS: i64 = 20_000;
/// A gap is at least this many times the longest usual pause.
const GAP_FACTOR: f64 = 3.0;
/// Pauses that are observed before one may be a gap.
const MIN_PAUSES: u32 = 50;
/// Share of the longest usual pause that is kept at each pause, so that it follows a change of the senders.
const PAUSE_DECAY: f64 = 0.999;

/// The gaps of one tenant.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stalls {
    last_received_ms: Option<i64>,
    pauses: u32,
    longest_ms: f64,
    /// Start and end of the newest gap, in ms of telemetry's time.
    newest: Option<(i64, i64)>,
}

impl Stalls {
    /// Records the arrival of a request; `watermark_ms` is that before it.
    pub(super) fn observe(&mut self, received_ms: i64, watermark_ms: i64) {
        let Some(last_ms) = self.last_received_ms.filter(|last_ms| received_ms > *last_ms) else {
            self.last_received_ms = self.last_received_ms.max(Some(received_ms));
            return;
        };
        self.last_received_ms = Some(received_ms);
        let pause_ms = received_ms - last_ms;
        let is_gap = self.pauses >= MIN_PAUSES
            && pause_ms >= MIN_GAP_MS
            && pause_ms as f64 > GAP_FACTOR * self.longest_ms
            && watermark_ms > i64::MIN;
        if is_gap {
            self.newest = Some((watermark_ms, watermark_ms.saturating_add(pause_ms)));
        } else {
            self.pauses = self.pauses.saturating_add(1);
            self.longest_ms = (self.longest_ms * PAUSE_DECAY).max(pause_ms as f64);
        }
    }

    /// Returns whether a window, in ms of telemetry's time, overlaps the newest gap.
    pub(super) fn overlaps(&self, from_ms: i64, to_ms: i64) -> bool {
        self.newest.is_some_and(|(start_ms, end_ms)| from_ms < end_ms && to_ms > start_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_all_senders_is_a_gap_and_the_usual_ones_are_not() {
        for interval_ms in [1000, 15_000, 60_000] {
            let mut stalls = Stalls::default();
            for scrape in 0..30_i64 {
                for request in 0..10 {
                    let at_ms = scrape * interval_ms + request * 20;
                    stalls.observe(at_ms, at_ms);
                }
            }
            assert_eq!(stalls.newest, None, "{interval_ms}");
            let watermark_ms = 29 * interval_ms + 180;
            let gap_ms = 5 * interval_ms.max(20_000);
            stalls.observe(watermark_ms + gap_ms, watermark_ms);
            assert!(stalls.overlaps(watermark_ms - 10_000, watermark_ms + 1), "{interval_ms}");
            assert!(!stalls.overlaps(watermark_ms - 10_000, watermark_ms));
            assert!(!stalls.overlaps(watermark_ms + gap_ms, watermark_ms + gap_ms + 1000));
        }
    }
}
