//! Points of one signal, made by a function of the step.

use super::super::*;
use crate::point::RequestCounts;

/// Scrape intervals of the tests, in seconds.
pub(super) const INTERVALS: [i64; 5] = [1, 5, 15, 30, 60];

/// One signal and all that was found of it.
pub(super) struct Feed {
    pub(super) signal: Signal,
    pub(super) id: SignalId,
    pub(super) unit: SignalUnit,
    pub(super) direction: Direction,
    /// Time between two points: the scrape interval or the shortest window.
    pub(super) step_ms: i64,
    pub(super) at_ms: i64,
    pub(super) shifts: Vec<SignalShift>,
    pub(super) config: Config,
}

impl Feed {
    pub(super) fn new(kind: SignalKind, resource: &str, unit: SignalUnit, interval_seconds: i64) -> Self {
        let id = SignalId {
            entity: wardroom_domain::Entity::service("orders"),
            peer: None,
            kind,
            resource: resource.to_owned(),
            metric: "m".to_owned(),
        };
        let config = Config::default();
        let step_ms = interval_seconds.max(i64::from(config.window_seconds)) * 1000;
        let (signal, direction) = (Signal::default(), Direction::High);
        Self { signal, id, unit, direction, step_ms, at_ms: 1_800_000_000_000, shifts: Vec::new(), config }
    }

    /// Adds points; returns the findings that may open an incident, and those that may not if the rule never does.
    pub(super) fn run(&mut self, points: i64, make: impl Fn(i64, &mut Point)) -> Vec<Finding> {
        let mut findings = Vec::new();
        for step in 0..points {
            self.at_ms += self.step_ms;
            let mut point = Point { at_ms: self.at_ms, window_ms: self.step_ms, members: 1, ..Point::default() };
            make(step, &mut point);
            let judgement = self.signal.observe(&self.id, self.unit, self.direction, &point, &self.config);
            self.shifts.extend(judgement.shift);
            findings.extend(judgement.findings);
        }
        findings
    }

    /// Adds points for some minutes.
    pub(super) fn minutes(&mut self, minutes: i64, make: impl Fn(i64, &mut Point)) -> Vec<Finding> {
        self.run(minutes * 60_000 / self.step_ms, make)
    }

    /// Sets failed and all requests of a point.
    pub(super) fn requests(point: &mut Point, failed: f64, total: f64) {
        point.value = if total > 0.0 { failed / total } else { 0.0 };
        point.requests = Some(RequestCounts { total, failed });
    }
}

/// Time from `began_ms` to the first finding of a rule that opens, in seconds.
pub(super) fn delay(findings: &[Finding], rule: &str, began_ms: i64) -> Option<i64> {
    let first = findings.iter().find(|finding| finding.rule == rule && finding.opens)?;
    Some((first.at_ms - began_ms) / 1000)
}

/// A small generator of repeatable noise.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    /// Returns a number in 0..1.
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number of a normal distribution.
    pub(super) fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform().max(1e-12), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// Returns a count of a Poisson distribution.
    pub(super) fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 50.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0.0);
        while product > limit {
            product *= self.uniform();
            count += 1.0;
        }
        count
    }

    /// Returns a duration with a heavy tail, in seconds: lognormal, and one in two hundred is ten times as long.
    pub(super) fn duration(&mut self, median: f64) -> f64 {
        let tail = if self.uniform() < 0.005 { 10.0 } else { 1.0 };
        median * (0.7 * self.normal()).exp() * tail
    }
}
