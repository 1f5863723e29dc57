//! Fits the weights of the ranking: a conditional logit model, which gives the true entity of a case a high share of
//! the soft maximum over all its entities.

use std::collections::BTreeMap;

use wardroom_diagnose::{Calibration, FEATURES, Features, Weights};

/// Steps of the descent from the prior.
const STEPS: usize = 3000;
/// Steps after one case is left out, from the weights of all.
const STEPS_LEFT_OUT: usize = 400;
/// Length of a step.
const RATE: f64 = 0.05;
/// Strength by which the weights are drawn to the prior: some features never vary in the data sets, and what the data
/// sets do not show must not be forgotten.
const PRIOR: f64 = 0.005;
/// Bins of the reliability diagram.
const BINS: usize = 10;

/// One case: the features of its entities, and which are at fault.
pub(crate) struct Sample {
    /// Index of the system that was recorded; each counts alike, whatever its number of cases.
    pub(crate) system: usize,
    /// Indices of the entities that are right; none if none of them is a candidate.
    pub(crate) right: Vec<usize>,
    pub(crate) features: Vec<Features>,
}

/// Fitted weights and a report in Markdown.
pub(crate) struct Fitted {
    pub(crate) weights: Weights,
    pub(crate) report: String,
}

/// How many cases of one system are right.
#[derive(Clone, Copy, Default)]
struct Right {
    cases: usize,
    /// With the weights of all cases.
    all: usize,
    /// With the case left out.
    case_out: usize,
    /// With the whole system left out.
    system_out: usize,
}

/// Fits the weights, and the confidence by leaving each case out once. `systems` are the names of the systems.
pub(crate) fn fit(samples: &[Sample], systems: &[String], prior: &Weights, source: String) -> Fitted {
    let start: Features = FEATURES.map(|name| prior.prior.get(name).copied().unwrap_or_default());
    let all: Vec<usize> = (0..samples.len()).collect();
    let without = |includes: &dyn Fn(usize) -> bool| -> Vec<usize> {
        all.iter().copied().filter(|index| includes(*index)).collect()
    };
    let fitted = descend(samples, &all, &start, &start, STEPS);
    let by_system: Vec<Features> = (0..systems.len())
        .map(|system| {
            let others = without(&|index| samples[index].system != system);
            descend(samples, &others, &start, &start, STEPS)
        })
        .collect();
    let mut right = vec![Right::default(); systems.len()];
    let mut predictions: Vec<Prediction> = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let others = without(&|other| other != index);
        let without_case = descend(samples, &others, &fitted, &start, STEPS_LEFT_OUT);
        let counted = &mut right[sample.system];
        counted.cases += 1;
        counted.all += usize::from(predict(sample, &fitted).is_some_and(|found| found.is_right));
        counted.system_out +=
            usize::from(predict(sample, &by_system[sample.system]).is_some_and(|found| found.is_right));
        if let Some(found) = predict(sample, &without_case) {
            counted.case_out += usize::from(found.is_right);
            predictions.push(found);
        }
    }
    let features: BTreeMap<String, f64> =
        FEATURES.iter().zip(fitted).map(|(name, weight)| ((*name).to_owned(), (weight * 1e4).round() / 1e4)).collect();
    let confidence = calibrate(&predictions, prior.confidence);
    let weights = Weights { version: prior.version, source, features, prior: prior.prior.clone(), confidence };
    let report = format!("{}\n{}", table_of_systems(systems, &right), reliability(&predictions, &weights));
    Fitted { weights, report }
}

fn table_of_systems(systems: &[String], right: &[Right]) -> String {
    let mut table = String::from(
        "| system | cases | right entity first, weights of all cases | each case left out | the whole system left out |\n\
         |---|---|---|---|---|\n",
    );
    let sum = |value: fn(&Right) -> usize| right.iter().map(value).sum::<usize>();
    let total = Right {
        cases: sum(|right| right.cases),
        all: sum(|right| right.all),
        case_out: sum(|right| right.case_out),
        system_out: sum(|right| right.system_out),
    };
    let rows = systems.iter().map(String::as_str).zip(right).chain([("all", &total)]);
    for (name, Right { cases, all, case_out, system_out }) in rows {
        table.push_str(&format!("| {name} | {cases} | {all} | {case_out} | {system_out} |\n"));
    }
    table
}

/// Gradient descent of the negative logarithm of the true entities' shares. Weights keep the sign of the prior, since a
/// feature means the same everywhere.
fn descend(samples: &[Sample], used: &[usize], from: &Features, prior: &Features, steps: usize) -> Features {
    let systems = samples.iter().map(|sample| sample.system + 1).max().unwrap_or(1);
    let size = |system: usize| used.iter().filter(|index| samples[**index].system == system).count() as f64;
    let sizes: Vec<f64> = (0..systems).map(size).collect();
    let count = sizes.iter().filter(|size| **size > 0.0).count().max(1) as f64;
    let mut weights = *from;
    for _ in 0..steps {
        let mut gradient = [0.0; FEATURES.len()];
        for (slot, (weight, prior)) in gradient.iter_mut().zip(weights.iter().zip(prior)) {
            *slot = 2.0 * PRIOR * (weight - prior);
        }
        for sample in used.iter().map(|index| &samples[*index]) {
            let scale = 1.0 / (sizes[sample.system] * count);
            let shares = shares(sample, &weights);
            let of_right: f64 = sample.right.iter().map(|place| shares[*place]).sum();
            if of_right <= 0.0 {
                continue;
            }
            for (place, (features, share)) in sample.features.iter().zip(&shares).enumerate() {
                let error = share - if sample.right.contains(&place) { share / of_right } else { 0.0 };
                for (slot, value) in gradient.iter_mut().zip(features) {
                    *slot += scale * error * value;
                }
            }
        }
        for (weight, (slope, prior)) in weights.iter_mut().zip(gradient.iter().zip(prior)) {
            *weight -= RATE * slope;
            *weight = if *prior >= 0.0 { weight.max(0.0) } else { weight.min(0.0) };
        }
    }
    weights
}

fn score(features: &Features, weights: &Features) -> f64 {
    features.iter().zip(weights).map(|(value, weight)| value * weight).sum()
}

/// Returns each entity's share of the soft maximum.
fn shares(sample: &Sample, weights: &Features) -> Vec<f64> {
    let scores: Vec<f64> = sample.features.iter().map(|features| score(features, weights)).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
    scores.iter().map(|score| (score - largest).exp() / total).collect()
}

/// What weights say of a case.
#[derive(Clone, Copy)]
struct Prediction {
    /// Share and score of the best entity.
    share: f64,
    score: f64,
    is_right: bool,
}

fn predict(sample: &Sample, weights: &Features) -> Option<Prediction> {
    let shares = shares(sample, weights);
    let (place, share) = shares.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Prediction { share, score: score(&sample.features[place], weights), is_right: sample.right.contains(&place) })
}

/// Fits the confidence to predictions by logistic regression, drawn a little to the prior.
fn calibrate(predictions: &[Prediction], prior: Calibration) -> Calibration {
    let start = [prior.bias, prior.lead, prior.score];
    let mut terms = start;
    let count = predictions.len().max(1) as f64;
    for _ in 0..20_000 {
        let mut gradient = [0.0; 3];
        for found in predictions {
            let inputs = [1.0, found.share, found.score.max(0.0).ln_1p()];
            let sum: f64 = terms.iter().zip(inputs).map(|(term, input)| term * input).sum();
            let error = 1.0 / (1.0 + (-sum).exp()) - if found.is_right { 1.0 } else { 0.0 };
            for (slot, input) in gradient.iter_mut().zip(inputs) {
                *slot += error * input / count;
            }
        }
        for (index, (term, (slope, prior))) in terms.iter_mut().zip(gradient.iter().zip(start)).enumerate() {
            *term -= 0.1 * (slope + 0.002 * (*term - prior));
            // More evidence never makes less sure.
            *term = if index == 0 { *term } else { term.max(0.0) };
        }
    }
    let [bias, lead, score] = terms.map(|term| (term * 1e4).round() / 1e4);
    Calibration { bias, lead, score }
}

/// Returns a reliability diagram: how often what was named with some confidence was right.
fn reliability(predictions: &[Prediction], weights: &Weights) -> String {
    let mut table =
        String::from("| confidence | cases | mean confidence | right | (each █ is a tenth) |\n|---|---|---|---|---|\n");
    let judged: Vec<(f64, bool)> =
        predictions.iter().map(|found| (weights.confidence(found.share, found.score), found.is_right)).collect();
    let mut error = 0.0;
    for bin in 0..BINS {
        let (low, high) = (bin as f64 / BINS as f64, (bin + 1) as f64 / BINS as f64);
        let within: Vec<(f64, bool)> =
            judged.iter().copied().filter(|(sure, _)| *sure >= low && *sure < high).collect();
        if within.is_empty() {
            continue;
        }
        let count = within.len() as f64;
        let mean = within.iter().map(|(sure, _)| sure).sum::<f64>() / count;
        let right = within.iter().filter(|(_, is_right)| *is_right).count() as f64 / count;
        error += (mean - right).abs() * count / judged.len() as f64;
        let bar = "█".repeat((right * 10.0).round() as usize);
        table.push_str(&format!("| {low:.1} to {high:.1} | {count:.0} | {mean:.2} | {right:.2} | {bar} |\n"));
    }
    let square = |(sure, is_right): &(f64, bool)| (sure - f64::from(u8::from(*is_right))).powi(2);
    let brier = judged.iter().map(square).sum::<f64>() / judged.len().max(1) as f64;
    table.push_str(&format!("\nExpected calibration error {error:.3}, Brier score {brier:.3}.\n"));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feature_that_tells_gets_the_weight_and_signs_stay() {
        let prior = Weights::builtin().unwrap();
        let sample = |right: usize| {
            let entity = |place: usize| {
                let mut features = [0.0; FEATURES.len()];
                features[2] = if place == right { 1.0 } else { 0.0 };
                features[4] = if place == right { 0.0 } else { 1.0 };
                features
            };
            Sample { system: 0, right: vec![right], features: (0..3).map(entity).collect() }
        };
        let samples: Vec<Sample> = (0..9).map(|index| sample(index % 3)).collect();
        let fitted = fit(&samples, &["a".to_owned()], &prior, "test".into());
        assert!(fitted.weights.features[FEATURES[2]] > prior.prior[FEATURES[2]]);
        assert!((0.0..prior.prior[FEATURES[4]]).contains(&fitted.weights.features[FEATURES[4]]));
        assert!(fitted.report.contains("| all | 9 | 9 | 9 |"), "{}", fitted.report);
    }
}
