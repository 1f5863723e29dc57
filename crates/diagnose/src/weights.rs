//! The weights of the ranking: a data file, written by `cargo xtask eval rca --fit`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::features::{FEATURES, Features};

/// Format version of the file.
const VERSION: u32 = 1;

/// Weights of the features and of the confidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// Format version.
    pub version: u32,
    /// The data and the command that they come from, for people.
    pub source: String,
    /// Weight of each feature by its name.
    pub features: BTreeMap<String, f64>,
    /// Weights that fitting is drawn to, set by hand: what the data do not show keeps its weight.
    pub prior: BTreeMap<String, f64>,
    /// How the ranking becomes a probability of being right.
    pub confidence: Calibration,
}

/// Logistic function of the best suspect's share and score:
/// 1 / (1 + exp(−(bias + lead × share + score × ln(1 + score)))).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Constant term.
    pub bias: f64,
    /// Weight of the suspect's share of the soft maximum over all suspects, 0..1.
    pub lead: f64,
    /// Weight of the logarithm of its score: little evidence gives little confidence.
    pub score: f64,
}

/// A weights file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Not JSON of this form.
    #[error("the weights of diagnosis are damaged: {0}; write them again with `cargo xtask eval rca --fit`")]
    Damaged(#[from] serde_json::Error),
    /// Of another version, or without a weight for a feature.
    #[error("the weights of diagnosis do not fit this build ({0}); write them again with `cargo xtask eval rca --fit`")]
    Unfit(String),
}

impl Weights {
    /// Returns the weights that were compiled in.
    ///
    /// # Errors
    /// Returns an error if the file does not fit this build; a test excludes it.
    pub fn builtin() -> Result<Self, WeightsError> {
        Self::parse(include_str!("../weights.json"))
    }

    /// Parses a weights file.
    ///
    /// # Errors
    /// Returns an error if it is damaged or lacks a feature.
    pub fn parse(text: &str) -> Result<Self, WeightsError> {
        let weights: Self = serde_json::from_str(text)?;
        if weights.version != VERSION {
            return Err(WeightsError::Unfit(format!("version {}, expected {VERSION}", weights.version)));
        }
        let is_known = |name: &str| weights.features.contains_key(name) && weights.prior.contains_key(name);
        let missing = FEATURES.iter().find(|name| !is_known(name));
        missing.map_or(Ok(weights.clone()), |name| Err(WeightsError::Unfit(format!("no weight for {name}"))))
    }

    /// Returns the weighted sum of a suspect's features.
    pub fn score(&self, features: &Features) -> f64 {
        FEATURES
            .iter()
            .zip(features)
            .map(|(name, value)| self.features.get(*name).copied().unwrap_or(0.0) * value)
            .sum()
    }

    /// Returns the probability that a suspect with this share and score is the cause.
    pub fn confidence(&self, share: f64, score: f64) -> f64 {
        let Calibration { bias, lead, score: weight } = self.confidence;
        let sum = bias + lead * share + weight * score.max(0.0).ln_1p();
        1.0 / (1.0 + (-sum).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_weights_fit_this_build() {
        let weights = Weights::builtin().unwrap();
        assert_eq!(weights.features.len(), FEATURES.len());
        let mut lacking = weights;
        lacking.features.remove("inside");
        let error = Weights::parse(&serde_json::to_string(&lacking).unwrap()).unwrap_err();
        assert!(error.to_string().contains("no weight for inside"), "{error}");
    }

    #[test]
    fn confidence_grows_with_share_and_score() {
        let weights = Weights::builtin().unwrap();
        assert!(weights.confidence(0.9, 4.0) > weights.confidence(0.4, 4.0));
        assert!(weights.confidence(0.9, 4.0) > weights.confidence(0.9, 0.5));
    }
}
