//! The detector of one series: its baseline, its z-score, and the excursion in progress.
//!
//! The list of anomalies holds shifts, not points: a stretch of unusual points is reported where it begins and where it
//! becomes more severe. A series that leaves its band every now and then is reported only when it goes further than
//! usual: each report doubles the z-score that the next one needs, and six hours without one halve it.

use serde::{Deserialize, Serialize};
use wardroom_domain::{Labels, Severity};

use crate::Config;
use crate::baseline::RollingBaseline;

/// Samples that a baseline needs before values are scored.
const MIN_BASELINE_SAMPLES: u32 = 10;
/// Least number of points of a level shift, besides its duration.
const MIN_SHIFT_POINTS: u32 = 3;
/// Factor by which a report raises the z-score that the next one needs.
const REPORT_GROWTH_FACTOR: f64 = 2.0;
/// Time in which that z-score halves, in ms.
const REPORT_HALF_LIFE_MS: f64 = 6.0 * 3600.0 * 1000.0;

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
    /// Whether it lasted long enough for a level shift.
    pub is_shift: bool,
}

/// What was reported of a series. Boxed: few series have one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Reports {
    /// The unusual points in progress.
    current: Option<Anomalous>,
    /// |z| that a report needs, as a multiple of the warning band, at `at_ms`.
    threshold: f64,
    at_ms: i64,
}

/// Anomalous points on one side of the mean.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Anomalous {
    severity: Severity,
    is_above: bool,
    is_reported: bool,
}

impl Reports {
    /// Returns whether unusual points that begin or worsen at this time are reported; if so, raises the threshold.
    fn try_report(&mut self, at_ms: i64, band_ratio: f64) -> bool {
        let days = at_ms.saturating_sub(self.at_ms).max(0) as f64 / REPORT_HALF_LIFE_MS;
        let threshold = (self.threshold * 0.5_f64.powf(days)).max(1.0);
        if band_ratio < threshold {
            return false;
        }
        (self.threshold, self.at_ms) = (threshold * REPORT_GROWTH_FACTOR, at_ms);
        true
    }
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
    /// Whether it tells about the monitoring itself.
    pub is_internal: bool,
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
    baseline: RollingBaseline,
    /// The excursion in progress. Boxed: few series have one, and every series has this struct.
    excursion: Option<Box<Excursion>>,
    reports: Option<Box<Reports>>,
}

impl SeriesDetector {
    /// Scores a value against the baseline, then adds it. Returns no z-score during the cold start and none while the
    /// standard deviation is 0.
    pub fn observe(&mut self, at_ms: i64, x: f64, config: &Config) -> Option<f64> {
        if !x.is_finite() {
            return None;
        }
        let (mean, deviation) = self.baseline.mean_and_deviation();
        let warm = self.baseline.count() >= MIN_BASELINE_SAMPLES;
        let z = (warm && deviation > 0.0).then(|| (x - mean) / deviation);
        match &mut self.excursion {
            Some(excursion) if continues_excursion(excursion, x, config) => {
                (excursion.points, excursion.value, excursion.last_ms) = (excursion.points + 1, x, at_ms);
            }
            _ => {
                let starts_excursion = z.is_some_and(|z| z.abs() > config.z_warning) && is_large(x, mean, config);
                let excursion = Excursion {
                    since_ms: at_ms,
                    points: 1,
                    mean,
                    deviation,
                    value: x,
                    last_ms: at_ms,
                    is_shift: false,
                };
                self.excursion = starts_excursion.then(|| Box::new(excursion));
            }
        }
        self.baseline.add(x);
        z
    }

    /// Like [`SeriesDetector::observe`], but returns only what belongs in the list of anomalies: the point with which
    /// unusual points begin or become more severe, and the one that turns an excursion into a level shift. Nearly every
    /// sample of a healthy environment returns early, without a square root.
    #[inline]
    pub(crate) fn observe_unusual(&mut self, at_ms: i64, x: f64, config: &Config) -> Option<ZScore> {
        if !x.is_finite() {
            return None;
        }
        let (mean, variance) = self.baseline.mean_and_variance();
        if self.excursion.is_none() {
            let distance = x - mean;
            let near = distance * distance <= config.z_warning * config.z_warning * variance;
            if near || variance == 0.0 || self.baseline.count() < MIN_BASELINE_SAMPLES {
                self.baseline.add(x);
                if let Some(reports) = &mut self.reports {
                    reports.current = None;
                }
                return None;
            }
        }
        self.observe_far(at_ms, x, mean, config)
    }

    #[cold]
    fn observe_far(&mut self, at_ms: i64, x: f64, mean: f64, config: &Config) -> Option<ZScore> {
        let z = self.observe(at_ms, x, config);
        let bands = (config.z_warning, config.z_high, config.z_critical);
        let fresh = || Box::new(Reports { current: None, threshold: 1.0, at_ms });
        if let Some(excursion) = &mut self.excursion
            && !excursion.is_shift
            && excursion.points >= MIN_SHIFT_POINTS
            && at_ms - excursion.since_ms >= i64::from(config.shift_seconds) * 1000
        {
            excursion.is_shift = true;
            // The shift has widened the baseline by now: score against the one before it.
            let (z, mean) = (excursion.z(), excursion.mean);
            let reports = self.reports.get_or_insert_with(fresh);
            let is_known = reports.current.is_some_and(|current| current.is_reported);
            let is_reported = is_known || reports.try_report(at_ms, z.abs() / config.z_warning);
            return is_reported.then_some(ZScore { z, mean, shift: true });
        }
        let severity = z.and_then(|z| Some((z, Severity::from_z_score(z, bands)?)));
        let Some((z, severity)) = severity else {
            if self.excursion.is_none()
                && let Some(reports) = &mut self.reports
            {
                reports.current = None;
            }
            return None;
        };
        let reports = self.reports.get_or_insert_with(fresh);
        let is_above = z > 0.0;
        let before = reports.current.filter(|current| current.is_above == is_above);
        if before.is_some_and(|before| severity <= before.severity) {
            return None;
        }
        let is_reported = reports.try_report(at_ms, z.abs() / config.z_warning);
        let is_known = is_reported || before.is_some_and(|before| before.is_reported);
        reports.current = Some(Anomalous { severity, is_above, is_reported: is_known });
        is_reported.then_some(ZScore { z, mean, shift: false })
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

    fn reports(values: impl IntoIterator<Item = f64>, step_ms: i64) -> Vec<(usize, ZScore)> {
        let (mut detector, config) = (SeriesDetector::default(), Config::default());
        let found = values.into_iter().enumerate();
        found
            .filter_map(|(step, x)| {
                detector.observe_unusual(step as i64 * step_ms, x, &config).map(|score| (step, score))
            })
            .collect()
    }

    #[test]
    fn the_fast_path_keeps_the_same_state() {
        let config = Config::default();
        let (mut fast, mut full) = (SeriesDetector::default(), SeriesDetector::default());
        for step in 0..3000_i64 {
            let shift = if (1500..1700).contains(&step) { 40.0 } else { 0.0 };
            let x = ((step * 7919) % 101) as f64 + shift + if step % 97 == 0 { 300.0 } else { 0.0 };
            full.observe(step * 1000, x, &config);
            fast.observe_unusual(step * 1000, x, &config);
            let points = |detector: &SeriesDetector| detector.excursion().map(|excursion| excursion.points);
            assert_eq!(points(&fast), points(&full), "at {step}");
            assert_eq!(fast.baseline(), full.baseline(), "at {step}");
        }
    }

    #[test]
    fn unusual_points_are_reported_once_and_when_they_become_more_severe() {
        let mut values = [9.0, 11.0].repeat(20);
        // z is 2.6, then 2.4 against the wider baseline, then critical.
        values.extend([12.6, 12.6, 40.0, 40.0, 40.0]);
        let found = reports(values, 1000);
        assert_eq!(found.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [40, 42], "{found:?}");
        assert!(found[1].1.z > 4.0);
    }

    #[test]
    fn a_series_that_is_often_unusual_is_reported_a_few_times_a_day() {
        let noisy = (0..30 * 1440).map(|step| f64::from(step % 7) + if step % 60 == 59 { 30.0 } else { 0.0 });
        let found = reports(noisy, 60_000);
        assert!((1..150).contains(&found.len()), "{}", found.len());
        let mut extreme: Vec<f64> = (0..1440).map(|step| f64::from(step % 7)).collect();
        extreme.push(900.0);
        assert_eq!(reports(extreme, 60_000).last().map(|(step, _)| *step), Some(1440));
    }

    #[test]
    fn detects_a_level_shift_right_after_the_cold_start() {
        let values = (0..15).map(|step| 50.0 + f64::from(step % 3)).chain([110.0; 6]);
        let found = reports(values, 15_000);
        let (step, score) = found.iter().find(|(_, score)| score.shift).unwrap();
        assert!(score.z > 50.0 && score.mean < 52.0, "{score:?}");
        assert_eq!(*step, 17, "three points, thirty seconds");
    }

    #[test]
    fn a_small_relative_effect_starts_no_excursion() {
        let mut values = [99.99, 100.01].repeat(10);
        values.extend([105.0; 10]);
        let (detector, z) = observe_all(&values);
        assert!(z[20].unwrap() > 4.0 && detector.excursion().is_none());
    }
}
