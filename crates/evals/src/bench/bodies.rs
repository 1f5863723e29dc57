//! Prebuilt remote_write bodies: seven labels, 2000 series a request, one sample a series, a step of 15 s.
//!
//! 40 % counters, 40 % gauges with one decimal, 20 % lognormal latencies, as estates have. One series in a
//! hundred shifts for good somewhere after the cold start of any detector: those are the truth to be found.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::{now_ms, wire};

/// Series in a request, as Prometheus sends by default.
pub(crate) const PER_REQUEST: usize = 2000;
const STEP_MS: i64 = 15_000;
const DAY_MS: i64 = 86_400_000;
/// Series that are read back.
const WITNESSES: usize = 1000;

/// Everything that is sent, and what must be found afterwards.
pub(crate) struct Bodies {
    pub(crate) series: usize,
    pub(crate) saturated: Vec<Vec<u8>>,
    pub(crate) paced: Vec<Vec<u8>>,
    /// Series that are read back, with every sample sent: (ms, bits).
    pub(crate) witnesses: Vec<(usize, Vec<(i64, u64)>)>,
    /// Series that shift, and from when on.
    pub(crate) shifts: Vec<(usize, i64)>,
    pub(crate) end_ms: i64,
}

struct Source {
    labels: Vec<wire::Label>,
    value: f64,
    shift_at: usize,
}

impl Bodies {
    pub(crate) fn build(series: usize, steps: usize, paced_steps: usize, churn: bool) -> Self {
        let mut random = StdRng::seed_from_u64(series as u64);
        let all = steps + paced_steps;
        let start_ms = within_a_day(now_ms(), all as i64 * STEP_MS);
        let mut sources: Vec<Source> = (0..series).map(|at| source(at, steps, &mut random)).collect();
        let mut witnesses = witnesses(series, &mut random);
        let mut bodies = Self {
            series,
            saturated: Vec::new(),
            paced: Vec::new(),
            witnesses: Vec::new(),
            shifts: Vec::new(),
            end_ms: start_ms + all as i64 * STEP_MS,
        };
        for (at, source) in sources.iter().enumerate().filter(|(_, source)| source.shift_at < all) {
            bodies.shifts.push((at, start_ms + source.shift_at as i64 * STEP_MS));
        }
        for step in 0..all {
            let ts_ms = start_ms + step as i64 * STEP_MS;
            if churn && step > 0 && step % CHURN_STEPS == 0 {
                renew(&mut sources, step / CHURN_STEPS);
            }
            for (chunk, sources) in sources.chunks_mut(PER_REQUEST).enumerate() {
                let mut request = Vec::with_capacity(PER_REQUEST);
                for (at, source) in (chunk * PER_REQUEST..).zip(sources) {
                    let value = next(source, at, step, &mut random);
                    if let Some(samples) = &mut witnesses[at] {
                        samples.push((ts_ms, value.to_bits()));
                    }
                    let samples = vec![wire::Sample { value, timestamp: ts_ms }];
                    request.push(wire::TimeSeries { labels: source.labels.clone(), samples });
                }
                let list = if step < steps { &mut bodies.saturated } else { &mut bodies.paced };
                list.push(wire::body(request));
            }
        }
        let all = witnesses.into_iter().enumerate();
        bodies.witnesses = all.filter_map(|(at, samples)| Some((at, samples?))).collect();
        bodies
    }

    /// How many samples a list of requests holds.
    pub(crate) fn samples(&self, requests: &[Vec<u8>]) -> usize {
        requests.len() / self.requests_a_step() * self.series
    }

    /// Requests that hold one sample of every series.
    pub(crate) const fn requests_a_step(&self) -> usize {
        self.series.div_ceil(PER_REQUEST)
    }
}

/// Where a stretch begins that has just ended, or ended with the day before: tables are divided by days, and what midnight cuts off
/// stays in short files until that day is over too.
const fn within_a_day(now_ms: i64, length_ms: i64) -> i64 {
    let today = now_ms % DAY_MS;
    let end_ms = if today < length_ms && length_ms < DAY_MS { now_ms - today } else { now_ms };
    let start_ms = end_ms - length_ms;
    start_ms - start_ms % STEP_MS
}

/// A thousand series at random that stay to the end, with room for what they send.
fn witnesses(series: usize, random: &mut StdRng) -> Vec<Option<Vec<(i64, u64)>>> {
    let mut witnesses = vec![None; series];
    let mut left = WITNESSES.min(series / 2);
    while left > 0 {
        let at = random.random_range(0..series);
        if !churns(at) && witnesses[at].is_none() {
            witnesses[at] = Some(Vec::new());
            left -= 1;
        }
    }
    witnesses
}

/// Whether a churn run replaces the series.
const fn churns(at: usize) -> bool {
    at % 10 == 7
}

/// Ten minutes.
const CHURN_STEPS: usize = 40;

/// A tenth of the series ends, and as many begin: pods that were replaced. Neither those that shift nor those
/// that are read back.
fn renew(sources: &mut [Source], generation: usize) {
    for (_, source) in sources.iter_mut().enumerate().filter(|(at, _)| churns(*at)) {
        for label in source.labels.iter_mut().filter(|label| ["id", "pod"].contains(&label.name.as_str())) {
            let stem = label.value.split('~').next().unwrap_or_default().to_owned();
            label.value = format!("{stem}~{generation}");
        }
    }
}

/// The label that tells the series apart.
pub(crate) fn id(at: usize) -> String {
    format!("series-{at:06}")
}

fn source(at: usize, steps: usize, random: &mut StdRng) -> Source {
    let (name, unit) = match at % 5 {
        0 | 1 => ("http_requests", "total"),
        2 | 3 => ("queue_depth", "items"),
        _ => ("request_duration", "seconds_avg"),
    };
    let labels = [
        ("__name__", format!("{name}_{unit}")),
        ("cluster", "production-eu-west-1".to_owned()),
        ("id", id(at)),
        ("instance", format!("10.{}.{}.{}:9100", at / 65_536, at / 256 % 256, at % 256)),
        ("job", format!("workload-{}", at % 37)),
        ("namespace", format!("team-{}", at % 11)),
        ("pod", format!("workload-{}-7d9f8b6c5d-{:05x}", at % 37, at)),
    ];
    let labels = labels.map(|(name, value)| wire::Label { name: name.to_owned(), value }).to_vec();
    let shifts = at % 100 == 42;
    // After the cold start and well before the end.
    let shift_at = if shifts { random.random_range(steps / 3..steps * 3 / 4) } else { usize::MAX };
    Source { labels, value: random.random_range(100.0..1000.0_f64).round(), shift_at }
}

fn next(source: &mut Source, at: usize, step: usize, random: &mut StdRng) -> f64 {
    let shifted = step >= source.shift_at;
    match at % 5 {
        0 | 1 => {
            source.value += random.random_range(80.0..120.0_f64).round() * if shifted { 4.0 } else { 1.0 };
            source.value
        }
        2 | 3 => {
            let level = 50.0 + (at % 50) as f64 + if shifted { 60.0 } else { 0.0 };
            (level + normal(random) * 3.0).mul_add(10.0, 0.0).round() / 10.0
        }
        _ => (normal(random) * 0.3 - 3.0 + if shifted { 2.5 } else { 0.0 }).exp(),
    }
}

/// A normal variate (Box and Muller 1958).
fn normal(random: &mut StdRng) -> f64 {
    let (u, v) = (random.random_range(f64::MIN_POSITIVE..1.0), random.random_range(0.0..1.0_f64));
    (-2.0 * f64::ln(u)).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_midnight_lies_within() {
        let midnight = 20_000 * DAY_MS;
        let hours = |hours: i64| hours * 3_600_000;
        for (now_ms, length_ms, start_ms) in [
            (midnight + hours(9), hours(8), midnight + hours(1)),
            (midnight + hours(2), hours(8), midnight - hours(8)),
            (midnight + 1, STEP_MS, midnight - STEP_MS),
            (midnight + hours(2), hours(48), midnight - hours(46)),
        ] {
            assert_eq!(within_a_day(now_ms, length_ms), start_ms);
        }
    }
}
