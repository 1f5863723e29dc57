//! One watched value: its baseline, its z-score, and the run of unusual points it is in.

use serde::{Deserialize, Serialize};
use wardroom_domain::Labels;

use crate::{Baseline, Config};

/// A stretch of consecutive unusual points on one side of the mean.
///
/// Its mean and deviation are those from before its first point: a long fault must not become its own
/// baseline.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    /// When it began, in ms.
    pub since_ms: i64,
    /// Points so far.
    pub points: u32,
    /// The mean before it.
    pub mean: f64,
    /// The standard deviation before it.
    pub deviation: f64,
    /// The newest value.
    pub value: f64,
    /// When that was, in ms.
    pub last_ms: i64,
}

impl Run {
    /// Deviations from the mean before it.
    pub fn z(&self) -> f64 {
        (self.value - self.mean) / self.deviation
    }
}

/// A watched series that moved against its own past.
#[derive(Clone, Debug)]
pub struct Shift {
    /// Which series.
    pub labels: Labels,
    /// How far and since when.
    pub run: Run,
}

/// A point worth a word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Glance {
    /// Deviations from the mean.
    pub(crate) z: f64,
    /// What was normal.
    pub(crate) mean: f64,
    /// Whether it is the point that makes a stretch of them a shift.
    pub(crate) shift: bool,
}

/// One watched value.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Watch {
    baseline: Baseline,
    /// The run it is in now. Few are in one, and each series pays for the room.
    run: Option<Box<Run>>,
}

impl Watch {
    /// Looks at a value, then learns it. The z-score, if there is one: none during the cold start, none
    /// without spread.
    pub fn observe(&mut self, at_ms: i64, x: f64, config: &Config) -> Option<f64> {
        if !x.is_finite() {
            return None;
        }
        let (mean, deviation) = self.baseline.mean_and_deviation();
        let warm = self.baseline.count() >= config.cold_start;
        let z = (warm && deviation > 0.0).then(|| (x - mean) / deviation);
        match &mut self.run {
            Some(run) if continues(run, x, config) => {
                (run.points, run.value, run.last_ms) = (run.points + 1, x, at_ms);
            }
            _ => {
                let fresh = z.is_some_and(|z| z.abs() > config.z_warning) && large(x, mean, config);
                let run = Run { since_ms: at_ms, points: 1, mean, deviation, value: x, last_ms: at_ms };
                self.run = fresh.then(|| Box::new(run));
            }
        }
        self.baseline.add(x);
        z
    }

    /// As [`Watch::observe`], but says only what is worth a word: a point far out, or the one that makes a
    /// stretch of them a shift. Nearly every sample of a healthy estate ends here without a square root.
    #[inline]
    pub(crate) fn glance(&mut self, at_ms: i64, x: f64, config: &Config) -> Option<Glance> {
        if !x.is_finite() {
            return None;
        }
        let (mean, variance) = self.baseline.mean_and_variance();
        if self.run.is_none() {
            let distance = x - mean;
            let near = distance * distance <= config.z_warning * config.z_warning * variance;
            if near || variance == 0.0 || self.baseline.count() < config.cold_start {
                self.baseline.add(x);
                return None;
            }
        }
        let z = self.observe(at_ms, x, config);
        match self.run() {
            // By now the shift has widened the baseline; what counts is the one from before it.
            Some(run) if run.points == config.consecutive => Some(Glance { z: run.z(), mean: run.mean, shift: true }),
            _ => z.filter(|z| z.abs() > config.z_warning).map(|z| Glance { z, mean, shift: false }),
        }
    }

    /// The run it is in now.
    pub fn run(&self) -> Option<Run> {
        self.run.as_deref().copied()
    }

    /// Mean and deviation that are not spoilt by a run in progress.
    pub fn normal(&self) -> (f64, f64) {
        self.run().map_or_else(|| self.baseline.mean_and_deviation(), |run| (run.mean, run.deviation))
    }

    /// Samples learnt.
    pub fn count(&self) -> u32 {
        self.baseline.count()
    }
}

fn continues(run: &Run, x: f64, config: &Config) -> bool {
    let same_side = (x - run.mean).signum() == (run.value - run.mean).signum();
    same_side && (x - run.mean).abs() > config.z_warning * run.deviation && large(x, run.mean, config)
}

fn large(x: f64, mean: f64, config: &Config) -> bool {
    (x - mean).abs() >= config.effect * mean.abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(values: &[f64]) -> (Watch, Vec<Option<f64>>) {
        let mut watch = Watch::default();
        let config = Config::default();
        let z = values.iter().zip(0..).map(|(x, at)| watch.observe(at * 1000, *x, &config)).collect();
        (watch, z)
    }

    #[test]
    fn nothing_is_said_before_ten_samples_or_without_spread() {
        let (_, z) = fed(&[1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 90.0]);
        assert!(z.iter().all(Option::is_none));
        let (watch, z) = fed(&[5.0; 30]);
        assert!(z.iter().all(Option::is_none) && watch.run().is_none());
    }

    #[test]
    fn z_is_as_seed_002_wrote_it() {
        let mut values = [9.0, 11.0].repeat(10);
        values.push(15.0);
        let (_, z) = fed(&values);
        assert_eq!(z.last().copied().flatten(), Some(5.0));
    }

    #[test]
    fn a_run_keeps_the_baseline_from_before_it() {
        let mut values = [9.0, 11.0].repeat(10);
        values.extend([30.0; 40]);
        let (watch, _) = fed(&values);
        let run = watch.run().unwrap();
        assert_eq!((run.points, run.mean, run.since_ms), (40, 10.0, 20_000));
        assert!(run.z() > 19.0);
    }

    #[test]
    fn a_glance_sees_what_a_look_sees() {
        let config = Config::default();
        let (mut glanced, mut looked) = (Watch::default(), Watch::default());
        for at in 0..3000_i64 {
            let shift = if (1500..1700).contains(&at) { 40.0 } else { 0.0 };
            let x = ((at * 7919) % 101) as f64 + shift + if at % 97 == 0 { 300.0 } else { 0.0 };
            let seen = looked.observe(at * 1000, x, &config).filter(|z| z.abs() > config.z_warning);
            let seen = seen.filter(|_| looked.run().is_none_or(|run| run.points != config.consecutive));
            let glance = glanced.glance(at * 1000, x, &config);
            assert_eq!(glance.filter(|glance| !glance.shift).map(|glance| glance.z), seen, "at {at}");
            assert_eq!(glanced.run().map(|run| run.points), looked.run().map(|run| run.points), "at {at}");
        }
    }

    #[test]
    fn a_shift_soon_after_the_cold_start_is_seen() {
        let (mut watch, config) = (Watch::default(), Config::default());
        let values = (0..15).map(|at| 50.0 + f64::from(at % 3)).chain([110.0; 6]);
        let seen: Vec<_> = values.zip(0..).filter_map(|(x, at)| watch.glance(at * 15_000, x, &config)).collect();
        let shift = seen.iter().find(|glance| glance.shift).unwrap();
        assert!(shift.z > 50.0 && shift.mean < 52.0, "{shift:?}");
    }

    #[test]
    fn a_small_effect_is_no_run_however_many_deviations_it_is() {
        let mut values = [99.99, 100.01].repeat(10);
        values.extend([105.0; 10]);
        let (watch, z) = fed(&values);
        assert!(z[20].unwrap() > 4.0 && watch.run().is_none());
    }
}
