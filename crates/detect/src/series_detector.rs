//! The detector of one series: its baseline, its z-score, and the excursion in progress.

use serde::{Deserialize, Serialize};
use wardroom_domain::Labels;

use crate::{Baseline, Config};

/// Consecutive unusual points on one side of the mean.
///
/// `mean` and `deviation` are those before its first point, so that a long fault does not become its own baseline.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Excursion {
    /// Time of the first point, in ms.
    pub since_ms: i64,
    /// Number of points so far.
    pub points: u32,
    /// Mean before the excursion.
    pub mean: f64,
    /// Standard deviation before the excursion.
    pub deviation: f64,
    /// Newest value.
    pub value: f64,
    /// Time of the newest value, in ms.
    pub last_ms: i64,
}

impl Excursion {
    /// Returns the z-score of the newest value against the baseline before the excursion.
    pub fn z(&self) -> f64 {
        (self.value - self.mean) / self.deviation
    }
}

/// A series that moved away from its own baseline.
#[derive(Clone, Debug)]
pub struct LevelShift {
    /// Labels of the series.
    pub labels: Labels,
    /// How far it moved and since when.
    pub excursion: Excursion,
}

/// The z-score of an unusual point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ZScore {
    /// Standard deviations from the mean.
    pub(crate) z: f64,
    /// Mean of the baseline.
    pub(crate) mean: f64,
    /// Whether this point turns the excursion into a level shift.
    pub(crate) shift: bool,
}

/// The z-score detector of one series.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SeriesDetector {
    baseline: Baseline,
    /// The excursion in progress. Boxed: few series have one, and every series has this struct.
    excursion: Option<Box<Excursion>>,
}

impl SeriesDetector {
    /// Scores a value against the baseline, then adds it. Returns no z-score during the cold start and none while the
    /// standard deviation is 0.
    pub fn observe(&mut self, at_ms: i64, x: f64, config: &Config) -> Option<f64> {
        if !x.is_finite() {
            return None;
        }
        let (mean, deviation) = self.baseline.mean_and_deviation();
        let warm = self.baseline.count() >= config.cold_start;
        let z = (warm && deviation > 0.0).then(|| (x - mean) / deviation);
        match &mut self.excursion {
            Some(excursion) if continues_excursion(excursion, x, config) => {
                (excursion.points, excursion.value, excursion.last_ms) = (excursion.points + 1, x, at_ms);
            }
            _ => {
                let starts_excursion = z.is_some_and(|z| z.abs() > config.z_warning) && is_large(x, mean, config);
                let excursion = Excursion { since_ms: at_ms, points: 1, mean, deviation, value: x, last_ms: at_ms };
                self.excursion = starts_excursion.then(|| Box::new(excursion));
            }
        }
        self.baseline.add(x);
        z
    }

    /// Like [`SeriesDetector::observe`], but returns only unusual points: those beyond the warning band, and the one
    /// that turns an excursion into a level shift. Nearly every sample of a healthy environment returns early, without
    /// a square root.
    #[inline]
    pub(crate) fn observe_unusual(&mut self, at_ms: i64, x: f64, config: &Config) -> Option<ZScore> {
        if !x.is_finite() {
            return None;
        }
        let (mean, variance) = self.baseline.mean_and_variance();
        if self.excursion.is_none() {
            let distance = x - mean;
            let near = distance * distance <= config.z_warning * config.z_warning * variance;
            if near || variance == 0.0 || self.baseline.count() < config.cold_start {
                self.baseline.add(x);
                return None;
            }
        }
        let z = self.observe(at_ms, x, config);
        match self.excursion() {
            // The shift has widened the baseline by now: score against the one before it.
            Some(excursion) if excursion.points == config.consecutive => {
                Some(ZScore { z: excursion.z(), mean: excursion.mean, shift: true })
            }
            _ => z.filter(|z| z.abs() > config.z_warning).map(|z| ZScore { z, mean, shift: false }),
        }
    }

    /// Returns the excursion in progress.
    pub fn excursion(&self) -> Option<Excursion> {
        self.excursion.as_deref().copied()
    }

    /// Returns mean and standard deviation, without the points of an excursion in progress.
    pub fn baseline(&self) -> (f64, f64) {
        self.excursion()
            .map_or_else(|| self.baseline.mean_and_deviation(), |excursion| (excursion.mean, excursion.deviation))
    }

    /// Returns the number of samples in the baseline.
    pub fn count(&self) -> u32 {
        self.baseline.count()
    }
}

fn continues_excursion(excursion: &Excursion, x: f64, config: &Config) -> bool {
    let same_side = (x - excursion.mean).signum() == (excursion.value - excursion.mean).signum();
    same_side
        && (x - excursion.mean).abs() > config.z_warning * excursion.deviation
        && is_large(x, excursion.mean, config)
}

fn is_large(x: f64, mean: f64, config: &Config) -> bool {
    (x - mean).abs() >= config.effect * mean.abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe_all(values: &[f64]) -> (SeriesDetector, Vec<Option<f64>>) {
        let mut detector = SeriesDetector::default();
        let config = Config::default();
        let z = values.iter().zip(0..).map(|(x, step)| detector.observe(step * 1000, *x, &config)).collect();
        (detector, z)
    }

    #[test]
    fn no_z_score_before_ten_samples_or_without_spread() {
        let (_, z) = observe_all(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 90.0]);
        assert!(z.iter().all(Option::is_none));
        let (detector, z) = observe_all(&[5.0; 30]);
        assert!(z.iter().all(Option::is_none) && detector.excursion().is_none());
    }

    #[test]
    fn z_score_is_the_distance_in_standard_deviations() {
        let mut values = [9.0, 11.0].repeat(10);
        values.push(15.0);
        let (_, z) = observe_all(&values);
        assert_eq!(z.last().copied().flatten(), Some(5.0));
    }

    #[test]
    fn an_excursion_keeps_the_baseline_before_it() {
        let mut values = [9.0, 11.0].repeat(10);
        values.extend([30.0; 40]);
        let (detector, _) = observe_all(&values);
        let excursion = detector.excursion().unwrap();
        assert_eq!((excursion.points, excursion.mean, excursion.since_ms), (40, 10.0, 20_000));
        assert!(excursion.z() > 19.0);
    }

    #[test]
    fn observe_unusual_agrees_with_observe() {
        let config = Config::default();
        let (mut fast, mut full) = (SeriesDetector::default(), SeriesDetector::default());
        for step in 0..3000_i64 {
            let shift = if (1500..1700).contains(&step) { 40.0 } else { 0.0 };
            let x = ((step * 7919) % 101) as f64 + shift + if step % 97 == 0 { 300.0 } else { 0.0 };
            let dedup = full.observe(step * 1000, x, &config).filter(|z| z.abs() > config.z_warning);
            let dedup =
                dedup.filter(|_| full.excursion().is_none_or(|excursion| excursion.points != config.consecutive));
            let score = fast.observe_unusual(step * 1000, x, &config);
            assert_eq!(score.filter(|score| !score.shift).map(|score| score.z), dedup, "at {step}");
            assert_eq!(
                fast.excursion().map(|excursion| excursion.points),
                full.excursion().map(|excursion| excursion.points),
                "at {step}"
            );
        }
    }

    #[test]
    fn detects_a_level_shift_right_after_the_cold_start() {
        let (mut detector, config) = (SeriesDetector::default(), Config::default());
        let values = (0..15).map(|step| 50.0 + f64::from(step % 3)).chain([110.0; 6]);
        let dedup: Vec<_> =
            values.zip(0..).filter_map(|(x, step)| detector.observe_unusual(step * 15_000, x, &config)).collect();
        let shift = dedup.iter().find(|score| score.shift).unwrap();
        assert!(shift.z > 50.0 && shift.mean < 52.0, "{shift:?}");
    }

    #[test]
    fn a_small_relative_effect_starts_no_excursion() {
        let mut values = [99.99, 100.01].repeat(10);
        values.extend([105.0; 10]);
        let (detector, z) = observe_all(&values);
        assert!(z[20].unwrap() > 4.0 && detector.excursion().is_none());
    }
}
