//! Lines and error lines of each window, as points of the signal of an entity's log.
//!
//! A log has no interval: silence is a rate of zero as long as the entity lives. Windows end by the tenant's
//! watermark, some time after their end, because logs are shipped late; a later line counts in the oldest open window.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::point::{Point, RequestCounts};

/// Length of a window, in ms of telemetry's time.
const WINDOW_MS: i64 = 15_000;
/// A window is complete this long after its end, in ms of telemetry's time.
const GRACE_MS: i64 = 5_000;
/// A line older than this does not count in a rate, in ms of telemetry's time.
const MAX_LATE_MS: i64 = 300_000;
/// Empty windows that are filled with zeros at once; after a longer gap the log begins again.
const MAX_FILLED_WINDOWS: i64 = 40;

/// The lines of one entity that have not become points yet.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Rate {
    /// Index of the oldest open window; `None` before the first line.
    next: Option<i64>,
    /// (Lines, error lines) by the index of the window.
    open: BTreeMap<i64, (u32, u32)>,
}

impl Rate {
    /// Adds a line.
    pub(super) fn add(&mut self, at_ms: i64, is_error: bool) {
        let window = at_ms.div_euclid(WINDOW_MS);
        let next = *self.next.get_or_insert(window);
        if window < next.saturating_sub(MAX_LATE_MS / WINDOW_MS) {
            return;
        }
        let (lines, errors) = self.open.entry(window.max(next)).or_default();
        *lines = lines.saturating_add(1);
        *errors = errors.saturating_add(u32::from(is_error));
    }

    /// Closes the windows that are complete at this watermark and passes their points on.
    pub(super) fn close(&mut self, watermark_ms: i64, mut emit: impl FnMut(Point)) {
        let Some(next) = self.next else { return };
        let end = watermark_ms.saturating_sub(GRACE_MS).div_euclid(WINDOW_MS);
        if end <= next {
            return;
        }
        if end - next > MAX_FILLED_WINDOWS {
            self.open = self.open.split_off(&end);
            self.next = Some(end);
            return;
        }
        for window in next..end {
            let (lines, errors) = self.open.remove(&window).unwrap_or_default();
            emit(Point {
                at_ms: (window + 1) * WINDOW_MS,
                window_ms: WINDOW_MS,
                value: f64::from(errors) * 1000.0 / WINDOW_MS as f64,
                requests: Some(RequestCounts { total: f64::from(lines), failed: f64::from(errors) }),
                members: 1,
                ..Point::default()
            });
        }
        self.next = Some(end);
    }
}

/// Returns whether a window may have ended between two watermarks.
pub(super) fn ends_window(before_ms: i64, watermark_ms: i64) -> bool {
    let window = |at_ms: i64| at_ms.saturating_sub(GRACE_MS).div_euclid(WINDOW_MS);
    window(before_ms) < window(watermark_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(rate: &mut Rate, watermark_ms: i64) -> Vec<(i64, f64, f64)> {
        let mut points = Vec::new();
        rate.close(watermark_ms, |point| {
            let counts = point.requests.unwrap();
            points.push((point.at_ms / 1000, counts.total, counts.failed));
        });
        points
    }

    #[test]
    fn silence_is_zero_and_late_lines_count() {
        let mut rate = Rate::default();
        assert_eq!(close(&mut rate, 1_000_000), []);
        rate.add(1_000, false);
        rate.add(2_000, true);
        assert_eq!(close(&mut rate, 19_999), [], "not complete");
        assert_eq!(close(&mut rate, 20_000), [(15, 2.0, 1.0)]);
        rate.add(14_000, true);
        assert_eq!(close(&mut rate, 65_000), [(30, 1.0, 1.0), (45, 0.0, 0.0), (60, 0.0, 0.0)]);
        rate.add(3_600_000, true);
        assert_eq!(close(&mut rate, 3_600_000), [], "no zeros for an hour");
        assert_eq!(close(&mut rate, 3_620_000), [(3600, 0.0, 0.0), (3615, 1.0, 1.0)]);
    }
}
