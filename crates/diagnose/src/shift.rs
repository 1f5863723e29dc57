//! How a signal differs from its own past: one measure for whatever the facts are built from.

use wardroom_domain::{SignalId, SignalKind};
use wardroom_signals::SignalUnit;

/// A comparison of the time since the onset with the time before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignalShift {
    /// Typical value since the onset.
    pub value: f64,
    /// Normal value before.
    pub expected: f64,
    /// Robust standard deviations between them, with its sign.
    pub z: f64,
    /// Time of the first point that differs, in ms; `None` if there is none.
    pub onset_ms: Option<i64>,
}

/// Normal level and robust standard deviation of a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Normal {
    /// Median.
    pub center: f64,
    /// Robust standard deviation.
    pub spread: f64,
    /// The least value seen, if enough were seen; otherwise 0.
    pub low: f64,
}

/// The spread is at least this share of the level: telemetry that never moved is no proof that it never does.
const SPREAD_FLOOR: f64 = 0.05;
/// With this many values the spread may well be twice as large as they show.
const FEW_VALUES: f64 = 5.0;
/// With fewer values the least one says nothing about those to come.
const LOW_VALUES: usize = 10;
/// Less than this share of the least value seen is nothing: what was small and uneven has ended.
const ENDED_SHARE: f64 = 0.1;
/// That is this many standard deviations at least.
const ENDED: f64 = 8.0;
/// A point differs beyond this many standard deviations.
const DIFFERENT: f64 = 3.0;

/// Smallest differences of resources without a known limit that matter, in the resource's unit: of one that was idle
/// before, any use is many times its past.
const RESOURCE_FLOORS: &[(&str, f64)] = &[
    ("cpu", 0.05),
    ("memory", 33_554_432.0),
    ("heap", 33_554_432.0),
    ("disk", 104_857_600.0),
    ("file-descriptors", 20.0),
    ("threads", 5.0),
    ("worker-threads", 5.0),
    ("goroutines", 20.0),
    ("transaction-age", 5.0),
    ("replication-lag", 5.0),
    ("lag", 20.0),
    ("load", 1.0),
];
/// The smallest difference of any other resource that is a number of things.
const COUNT_FLOOR: f64 = 3.0;

/// Returns the smallest difference of a signal that matters, in its unit.
pub fn difference_floor(signal: &SignalId, unit: SignalUnit) -> f64 {
    match (signal.kind, unit) {
        (SignalKind::Errors, _) => 0.003,
        (SignalKind::Latency, _) => 0.002,
        (SignalKind::Availability, _) => 0.02,
        (SignalKind::Saturation, SignalUnit::Ratio) => 0.02,
        (SignalKind::Saturation, _) => {
            let floor = RESOURCE_FLOORS.iter().find(|(resource, _)| *resource == signal.resource);
            floor.map_or(COUNT_FLOOR, |(_, floor)| *floor)
        }
        (SignalKind::Queue, _) => COUNT_FLOOR,
        (SignalKind::Restarts, _) => 0.5,
        (SignalKind::Freshness, _) => 5.0,
        (SignalKind::Traffic | SignalKind::Logs, _) => 0.05,
        (SignalKind::Expiry | SignalKind::Other, _) => 0.0,
    }
}

impl Normal {
    /// Returns the normal level of these values; `None` if there are none. The spread covers rare but normal values,
    /// too: it is the larger of the median deviation and of what the outer twentieths make expect.
    pub fn of(values: &[f64]) -> Option<Self> {
        let center = median(values)?;
        let deviations: Vec<f64> = values.iter().map(|value| (value - center).abs()).collect();
        let spread = 1.4826 * median(&deviations)?;
        let tails = (quantile(values, 0.95)? - quantile(values, 0.05)?) / 3.29;
        // Few values rarely show how far values spread.
        let doubt = 1.0 + FEW_VALUES / values.len() as f64;
        let low = if values.len() < LOW_VALUES { 0.0 } else { quantile(values, 0.0)?.max(0.0) };
        Some(Self { center, spread: spread.max(tails) * doubt, low })
    }

    /// Returns the number of standard deviations between a value and the normal level. `floor` is the smallest
    /// difference that matters, in the signal's unit.
    pub fn z(&self, value: f64, floor: f64) -> f64 {
        let spread = self.spread.max(SPREAD_FLOOR * self.center.abs()).max(floor).max(1e-12);
        let z = (value - self.center) / spread;
        if (0.0..ENDED_SHARE * self.low).contains(&value) { z.min(-ENDED) } else { z }
    }
}

impl SignalShift {
    /// Compares the points (time in ms, value) from `from_ms` on with what is normal; `None` if there are no points.
    /// The value is the median from the first differing point on, so that the time before the onset does not hide it.
    pub fn measure(normal: &Normal, points: &[(i64, f64)], from_ms: i64, floor: f64) -> Option<Self> {
        let recent: Vec<(i64, f64)> = points.iter().copied().filter(|(at_ms, _)| *at_ms >= from_ms).collect();
        let differs = |point: &(i64, f64)| normal.z(point.1, floor).abs() >= DIFFERENT;
        let is_last = |index: usize| index + 1 == recent.len();
        // Two points in a row, or the newest one: a single point in between is noise.
        let onset = (0..recent.len())
            .find(|index| differs(&recent[*index]) && (is_last(*index) || recent.get(index + 1).is_some_and(differs)));
        let since = recent.get(onset.unwrap_or(0)..)?;
        let values: Vec<f64> = since.iter().map(|(_, value)| *value).collect();
        let value = median(&values)?;
        Some(Self {
            value,
            expected: normal.center,
            z: normal.z(value, floor),
            onset_ms: onset.map(|index| recent[index].0),
        })
    }
}

/// Returns the median of these values; of an even number the mean of the middle two; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Returns a quantile (0..1) of these values, between two of them by linear interpolation; `None` of none.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let place = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let (lower, upper) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(lower + (upper - lower) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_is_measured_from_its_onset_on() {
        let normal = Normal::of(&[1.0, 1.1, 0.9, 1.0, 1.05]).unwrap();
        let points = [(10, 1.0), (20, 1.02), (30, 5.0), (40, 5.2), (50, 5.1)];
        let shift = SignalShift::measure(&normal, &points, 10, 0.0).unwrap();
        assert_eq!((shift.value, shift.onset_ms), (5.1, Some(30)));
        assert!(shift.z > 10.0);
    }

    #[test]
    fn a_single_point_in_between_is_no_onset() {
        let normal = Normal { center: 1.0, spread: 0.1, low: 0.0 };
        let points = [(10, 1.0), (20, 9.0), (30, 1.0), (40, 1.0)];
        let shift = SignalShift::measure(&normal, &points, 0, 0.0).unwrap();
        assert_eq!((shift.value, shift.onset_ms), (1.0, None));
        assert_eq!(SignalShift::measure(&normal, &points, 50, 0.0), None);
    }

    #[test]
    fn what_was_small_and_uneven_can_end() {
        let uneven = [0.2, 0.5, 0.13, 0.4, 0.27, 0.13, 0.3, 0.2, 0.47, 0.13, 0.33];
        let normal = Normal::of(&uneven).unwrap();
        assert!(normal.z(0.0, 0.05) <= -8.0);
        assert!(normal.z(0.1, 0.05) > -3.0);
        assert!(Normal::of(&uneven[..5]).unwrap().z(0.0, 0.05) > -3.0, "five values do not say what the least is");
    }
}
