//! A time by the wall clock or by that of the telemetry.

use wardroom_domain::Timestamp;

/// When something is due: at the first of these times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Wall time.
    pub at: Option<Timestamp>,
    /// Telemetry time, in ms.
    pub watermark_ms: Option<i64>,
}

impl Due {
    /// At no time.
    pub const NEVER: Self = Self { at: None, watermark_ms: None };
    /// Now.
    pub const AT_ONCE: Self = Self::at(Timestamp::from_nanos(i64::MIN));

    /// At a wall time.
    pub const fn at(at: Timestamp) -> Self {
        Self { at: Some(at), watermark_ms: None }
    }

    /// Returns whether one of the times has come.
    pub fn is_past(self, now: Timestamp, watermark_ms: i64) -> bool {
        self.at.is_some_and(|at| at <= now) || self.watermark_ms.is_some_and(|due_ms| due_ms <= watermark_ms)
    }

    /// Returns the earlier of both, for each clock.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            at: [self.at, other.at].into_iter().flatten().min(),
            watermark_ms: [self.watermark_ms, other.watermark_ms].into_iter().flatten().min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_time_of_each_clock_counts() {
        let [one, two] = [1, 2].map(Timestamp::from_millis);
        let both = Due { at: Some(two), watermark_ms: Some(5) }.or(Due::at(one)).or(Due::NEVER);
        assert_eq!(both, Due { at: Some(one), watermark_ms: Some(5) });
        assert!(both.is_past(one, 0) && both.is_past(Timestamp::from_millis(0), 5));
        assert!(!both.is_past(Timestamp::from_millis(0), 4));
        assert!(Due::AT_ONCE.is_past(Timestamp::from_nanos(i64::MIN), i64::MIN));
        assert!(!Due::NEVER.is_past(Timestamp::from_nanos(i64::MAX), i64::MAX));
    }
}
