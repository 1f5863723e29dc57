//! Prebuilt remote_write bodies: seven labels, 2000 series per request, one sample per series, steps of 15 s.
//!
//! 40 % counters, 40 % gauges with one decimal, 20 % lognormal latencies. One series in a hundred shifts its level
//! permanently after the cold start of any detector; those are the shifts that must be found.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::{now_ms, remote_write};

/// Series of a request; the default of Prometheus.
pub(super) const SERIES_PER_REQUEST: usize = 2000;
/// Time between two samples of a series.
pub(super) const STEP_MS: i64 = 15_000;
const DAY_MS: i64 = 86_400_000;
/// Number of series that are read back.
const VERIFIED_SERIES: usize = 1000;

/// Steps of each phase of a load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PhaseSteps {
    /// As fast as acknowledged.
    pub(super) saturated: usize,
    /// At a fixed rate of samples.
    pub(super) paced: usize,
    /// One step per [`STEP_MS`] of real time.
    pub(super) own_pace: usize,
}

/// The requests of each phase, and what must be found afterwards.
pub(super) struct Bodies {
    pub(super) series: usize,
    pub(super) saturated: Vec<Vec<u8>>,
    pub(super) paced: Vec<Vec<u8>>,
    pub(super) own_pace: Vec<Vec<u8>>,
    /// The verified series, with all their samples: timestamp in ms, bits of the value.
    pub(super) verified: Vec<(usize, Vec<(i64, u64)>)>,
    /// Series that shift, and the time of the shift in ms.
    pub(super) shifts: Vec<(usize, i64)>,
    pub(super) end_ms: i64,
}

/// Generator of one series.
struct SeriesGenerator {
    labels: Vec<remote_write::Label>,
    value: f64,
    /// Step from which the level is shifted; `usize::MAX` for none.
    shift_step: usize,
}

impl Bodies {
    pub(super) fn build(series: usize, steps: PhaseSteps, churn: bool) -> Self {
        let mut random = StdRng::seed_from_u64(series as u64);
        let all_steps = steps.saturated + steps.paced + steps.own_pace;
        let start_ms = within_a_day(now_ms(), all_steps as i64 * STEP_MS);
        let mut generators: Vec<SeriesGenerator> =
            (0..series).map(|number| generator(number, steps.saturated, &mut random)).collect();
        let mut verified = choose_verified_series(series, &mut random);
        let mut bodies = Self {
            series,
            saturated: Vec::new(),
            paced: Vec::new(),
            own_pace: Vec::new(),
            verified: Vec::new(),
            shifts: Vec::new(),
            end_ms: start_ms + all_steps as i64 * STEP_MS,
        };
        for (number, generator) in generators.iter().enumerate().filter(|(_, found)| found.shift_step < all_steps) {
            bodies.shifts.push((number, start_ms + generator.shift_step as i64 * STEP_MS));
        }
        for step in 0..all_steps {
            let ts_ms = start_ms + step as i64 * STEP_MS;
            if churn && step > 0 && step % CHURN_INTERVAL_STEPS == 0 {
                replace_churning_series(&mut generators, step / CHURN_INTERVAL_STEPS);
            }
            for (chunk, generators) in generators.chunks_mut(SERIES_PER_REQUEST).enumerate() {
                let mut request = Vec::with_capacity(SERIES_PER_REQUEST);
                for (number, generator) in (chunk * SERIES_PER_REQUEST..).zip(generators) {
                    let value = next_value(generator, number, step, &mut random);
                    if let Some(samples) = &mut verified[number] {
                        samples.push((ts_ms, value.to_bits()));
                    }
                    let samples = vec![remote_write::Sample { value, timestamp: ts_ms }];
                    request.push(remote_write::TimeSeries { labels: generator.labels.clone(), samples });
                }
                let requests = if step < steps.saturated {
                    &mut bodies.saturated
                } else if step < steps.saturated + steps.paced {
                    &mut bodies.paced
                } else {
                    &mut bodies.own_pace
                };
                requests.push(remote_write::body(request));
            }
        }
        let verified = verified.into_iter().enumerate();
        bodies.verified = verified.filter_map(|(number, samples)| Some((number, samples?))).collect();
        bodies
    }

    /// Returns the number of samples in these requests.
    pub(super) fn samples(&self, requests: &[Vec<u8>]) -> usize {
        requests.len() / self.requests_per_step() * self.series
    }

    /// Returns the number of requests that hold one sample of every series.
    pub(super) const fn requests_per_step(&self) -> usize {
        self.series.div_ceil(SERIES_PER_REQUEST)
    }
}

/// Returns the start of a period that ends now, or at the last midnight if it would span it: the lake is partitioned by
/// day, and a part of a day stays in short files until that day is over.
const fn within_a_day(now_ms: i64, length_ms: i64) -> i64 {
    let today = now_ms % DAY_MS;
    let end_ms = if today < length_ms && length_ms < DAY_MS { now_ms - today } else { now_ms };
    let start_ms = end_ms - length_ms;
    start_ms - start_ms % STEP_MS
}

/// Chooses random series that exist until the end, each with an empty list of samples.
fn choose_verified_series(series: usize, random: &mut StdRng) -> Vec<Option<Vec<(i64, u64)>>> {
    let mut verified = vec![None; series];
    let mut remaining = VERIFIED_SERIES.min(series / 2);
    while remaining > 0 {
        let number = random.random_range(0..series);
        if !is_replaced_by_churn(number) && verified[number].is_none() {
            verified[number] = Some(Vec::new());
            remaining -= 1;
        }
    }
    verified
}

/// Whether a run with churn replaces the series.
const fn is_replaced_by_churn(number: usize) -> bool {
    number % 10 == 7
}

/// Steps between two replacements: ten minutes.
const CHURN_INTERVAL_STEPS: usize = 40;

/// Ends a tenth of the series and starts as many, like pods that are replaced. Series that shift or are read back are
/// kept.
fn replace_churning_series(generators: &mut [SeriesGenerator], generation: usize) {
    for (_, generator) in generators.iter_mut().enumerate().filter(|(number, _)| is_replaced_by_churn(*number)) {
        for label in generator.labels.iter_mut().filter(|label| ["id", "pod"].contains(&label.name.as_str())) {
            let stem = label.value.split('~').next().unwrap_or_default().to_owned();
            label.value = format!("{stem}~{generation}");
        }
    }
}

/// Returns the value of the label `id` of a series.
pub(super) fn series_id(number: usize) -> String {
    format!("series-{number:06}")
}

fn generator(number: usize, saturated_steps: usize, random: &mut StdRng) -> SeriesGenerator {
    let (name, unit) = match number % 5 {
        0 | 1 => ("http_requests", "total"),
        2 | 3 => ("queue_depth", "items"),
        _ => ("request_duration", "seconds_avg"),
    };
    let labels = [
        ("__name__", format!("{name}_{unit}")),
        ("cluster", "production-eu-west-1".to_owned()),
        ("id", series_id(number)),
        ("instance", format!("10.{}.{}.{}:9100", number / 65_536, number / 256 % 256, number % 256)),
        ("job", format!("workload-{}", number % 37)),
        ("namespace", format!("team-{}", number % 11)),
        ("pod", format!("workload-{}-7d9f8b6c5d-{:05x}", number % 37, number)),
    ];
    let labels = labels.map(|(name, value)| remote_write::Label { name: name.to_owned(), value }).to_vec();
    let shifts = number % 100 == 42;
    // After the cold start and well before the end.
    let shift_step =
        if shifts { random.random_range(saturated_steps / 3..saturated_steps * 3 / 4) } else { usize::MAX };
    SeriesGenerator { labels, value: random.random_range(100.0..1000.0_f64).round(), shift_step }
}

fn next_value(generator: &mut SeriesGenerator, number: usize, step: usize, random: &mut StdRng) -> f64 {
    let is_shifted = step >= generator.shift_step;
    match number % 5 {
        0 | 1 => {
            generator.value += random.random_range(80.0..120.0_f64).round() * if is_shifted { 4.0 } else { 1.0 };
            generator.value
        }
        2 | 3 => {
            let level = 50.0 + (number % 50) as f64 + if is_shifted { 60.0 } else { 0.0 };
            (level + standard_normal(random) * 3.0).mul_add(10.0, 0.0).round() / 10.0
        }
        _ => (standard_normal(random) * 0.3 - 3.0 + if is_shifted { 2.5 } else { 0.0 }).exp(),
    }
}

/// Returns a standard normal variate (Box and Muller 1958).
fn standard_normal(random: &mut StdRng) -> f64 {
    let (u, v) = (random.random_range(f64::MIN_POSITIVE..1.0), random.random_range(0.0..1.0_f64));
    (-2.0 * f64::ln(u)).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_spans_midnight_only_if_longer_than_a_day() {
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
