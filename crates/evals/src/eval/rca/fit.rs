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
const BINS: usize = 5;

/// One case: the features of its entities, and which is at fault.
pub(crate) struct Sample {
    /// Data set; each counts alike, whatever its number of cases.
    pub(crate) set: usize,
    /// Index of the entity at fault; `None` if it is not among the candidates.
    pub(crate) right: Option<usize>,
    pub(crate) features: Vec<Features>,
}

/// Fitted weights and a report in Markdown.
pub(crate) struct Fitted {
    pub(crate) weights: Weights,
    pub(crate) report: String,
}

/// Fits the weights, and the confidence by leaving each case out once.
pub(crate) fn fit(samples: &[Sample], prior: &Weights, source: String) -> Fitted {
    let start: Features = FEATURES.map(|name| prior.prior.get(name).copied().unwrap_or_default());
    let all: Vec<usize> = (0..samples.len()).collect();
    let fitted = descend(samples, &all, &start, &start, STEPS);
    let (mut right_all, mut right_out) = (0, 0);
    let mut predictions: Vec<(f64, f64, bool)> = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let others: Vec<usize> = all.iter().copied().filter(|other| *other != index).collect();
        let without = descend(samples, &others, &fitted, &start, STEPS_LEFT_OUT);
        right_all += usize::from(best(sample, &fitted).is_some_and(|(place, ..)| Some(place) == sample.right));
        if let Some((place, share, score)) = best(sample, &without) {
            let is_right = Some(place) == sample.right;
            right_out += usize::from(is_right);
            predictions.push((share, score, is_right));
        }
    }
    let features: BTreeMap<String, f64> =
        FEATURES.iter().zip(fitted).map(|(name, weight)| ((*name).to_owned(), (weight * 1e4).round() / 1e4)).collect();
    let confidence = calibrate(&predictions, prior.confidence);
    let weights = Weights { version: prior.version, source, features, prior: prior.prior.clone(), confidence };
    let mut report = format!(
        "{} cases: first in {right_all} with the weights of all, in {right_out} with each case left out.\n\n",
        samples.len()
    );
    report.push_str(&reliability(&predictions, &weights));
    Fitted { weights, report }
}

/// Gradient descent of the negative logarithm of the true entities' shares. Weights keep the sign of the prior, since a
/// feature means the same everywhere.
fn descend(samples: &[Sample], used: &[usize], from: &Features, prior: &Features, steps: usize) -> Features {
    let sets = samples.iter().map(|sample| sample.set + 1).max().unwrap_or(1);
    let sizes: Vec<f64> =
        (0..sets).map(|set| used.iter().filter(|index| samples[**index].set == set).count() as f64).collect();
    let mut weights = *from;
    for _ in 0..steps {
        let mut gradient = [0.0; FEATURES.len()];
        for (slot, (weight, prior)) in gradient.iter_mut().zip(weights.iter().zip(prior)) {
            *slot = 2.0 * PRIOR * (weight - prior);
        }
        for sample in used.iter().map(|index| &samples[*index]) {
            let Some(right) = sample.right else { continue };
            let scale = 1.0 / (sizes[sample.set] * sets as f64);
            let shares = shares(sample, &weights);
            for (place, (features, share)) in sample.features.iter().zip(&shares).enumerate() {
                let error = share - if place == right { 1.0 } else { 0.0 };
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

/// Returns place, share and score of the best entity.
fn best(sample: &Sample, weights: &Features) -> Option<(usize, f64, f64)> {
    let shares = shares(sample, weights);
    let (place, share) = shares.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some((place, share, score(&sample.features[place], weights)))
}

/// Fits the confidence to (share, score, whether it was right) by logistic regression, drawn a little to the prior.
fn calibrate(predictions: &[(f64, f64, bool)], prior: Calibration) -> Calibration {
    let start = [prior.bias, prior.lead, prior.score];
    let mut terms = start;
    let count = predictions.len().max(1) as f64;
    for _ in 0..20_000 {
        let mut gradient = [0.0; 3];
        for (share, score, is_right) in predictions {
            let inputs = [1.0, *share, score.max(0.0).ln_1p()];
            let sum: f64 = terms.iter().zip(inputs).map(|(term, input)| term * input).sum();
            let error = 1.0 / (1.0 + (-sum).exp()) - if *is_right { 1.0 } else { 0.0 };
            for (slot, input) in gradient.iter_mut().zip(inputs) {
                *slot += error * input / count;
            }
        }
        for (term, (slope, prior)) in terms.iter_mut().zip(gradient.iter().zip(start)) {
            *term -= 0.1 * (slope + 0.002 * (*term - prior));
        }
    }
    let [bias, lead, score] = terms.map(|term| (term * 1e4).round() / 1e4);
    Calibration { bias, lead: lead.max(0.0), score: score.max(0.0) }
}

/// Returns a table: how often what was named with some confidence was right.
fn reliability(predictions: &[(f64, f64, bool)], weights: &Weights) -> String {
    let mut table = String::from("| confidence | cases | mean confidence | right |\n|---|---|---|---|\n");
    for bin in 0..BINS {
        let (low, high) = (bin as f64 / BINS as f64, (bin + 1) as f64 / BINS as f64);
        let confidences =
            predictions.iter().map(|(share, score, is_right)| (weights.confidence(*share, *score), *is_right));
        let within: Vec<(f64, bool)> = confidences.filter(|(sure, _)| *sure >= low && *sure < high).collect();
        if within.is_empty() {
            continue;
        }
        let count = within.len() as f64;
        let mean = within.iter().map(|(sure, _)| sure).sum::<f64>() / count;
        let right = within.iter().filter(|(_, is_right)| *is_right).count() as f64 / count;
        table.push_str(&format!("| {low:.1} to {high:.1} | {count:.0} | {mean:.2} | {right:.2} |\n"));
    }
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
            Sample { set: 0, right: Some(right), features: (0..3).map(entity).collect() }
        };
        let samples: Vec<Sample> = (0..9).map(|index| sample(index % 3)).collect();
        let fitted = fit(&samples, &prior, "test".into());
        assert!(fitted.weights.features[FEATURES[2]] > prior.prior[FEATURES[2]]);
        assert!((0.0..prior.prior[FEATURES[4]]).contains(&fitted.weights.features[FEATURES[4]]));
        assert!(fitted.report.contains("first in 9 with the weights of all, in 9 with"), "{}", fitted.report);
    }
}
