//! `eval rca --data PATH --out FILE [--fit WEIGHTS --data PATH …]`: root causes of public fault data sets, by the
//! product's own ranking.
//!
//! ```text
//! recording ─► adapter (one for each layout: petshop, sockshop, nezha) ─► diagnose::Facts ─► diagnose::rank ─► FILE
//!                                                                              └─► fit: conditional logit ─► WEIGHTS
//! ```
//!
//! Adapters translate columns, spans and log lines to facts and know nothing about faults; labels are read for fitting
//! and counting only. FILE has one JSON line a case: `case`, `services`, `service_scores`, `indicators`,
//! `indicator_scores`, `seconds`.

pub(crate) mod fit;
mod nezha;
mod petshop;
mod sockshop;
pub(crate) mod telemetry;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;
use wardroom_diagnose::{Indicator, Ranked, Weights, indicators, rank};

use self::telemetry::{RcaCase, read_lines};

/// Maximum number of indicators in a prediction.
const MAX_INDICATORS: usize = 40;

/// Predicts every case of the data sets below `data` and writes one JSON line for each.
pub(crate) fn predict(data: &Path, out: &Path) -> anyhow::Result<()> {
    let weights = Weights::builtin()?;
    let mut lines = String::new();
    for case in cases(data)? {
        lines.push_str(&prediction(&case, &weights).to_string());
        lines.push('\n');
    }
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(out, lines).with_context(|| format!("writing {}", out.display()))
}

/// Fits the weights to the labels of these data sets and writes them; returns a report.
pub(crate) fn fit_weights(data: &[PathBuf], out: &Path) -> anyhow::Result<String> {
    let prior = Weights::builtin()?;
    let mut samples = Vec::new();
    for (set, path) in data.iter().enumerate() {
        for case in cases(path)? {
            let ranked = rank(&case.facts, &prior);
            let truth = case.truth.as_deref();
            let right = ranked.iter().position(|found| Some(found.entity.name.as_str()) == truth);
            samples.push(fit::Sample {
                set,
                right,
                features: ranked.into_iter().map(|found| found.features).collect(),
            });
        }
    }
    let sources: Vec<String> =
        data.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    let source = format!("cargo xtask eval rca --fit, on {} cases of {}", samples.len(), sources.join(", "));
    let fitted = fit::fit(&samples, &prior, source);
    std::fs::write(out, serde_json::to_string_pretty(&fitted.weights)? + "\n")?;
    Ok(fitted.report)
}

/// Reads all cases of a data set, by the layout of its folder.
pub(crate) fn cases(data: &Path) -> anyhow::Result<Vec<RcaCase>> {
    if petshop::is_here(data) {
        return petshop::cases(data);
    }
    let lines = read_lines(&data.join("cases.jsonl"))?;
    if lines.iter().any(|line| line["system"].is_string()) { nezha::cases(data, &lines) } else { sockshop::cases(data) }
}

fn prediction(case: &RcaCase, weights: &Weights) -> serde_json::Value {
    let started = Instant::now();
    let ranked = rank(&case.facts, weights);
    let mut services: Vec<&str> = ranked.iter().map(|found| found.entity.name.as_str()).collect();
    let mut scores: Vec<f64> = ranked.iter().map(|found| found.score).collect();
    // Entities without any sign of a fault are all equally unlikely.
    let signals = case.facts.signals.iter().map(|fact| fact.signal.entity.name.as_str());
    let healthy: BTreeSet<&str> = signals.filter(|name| !services.contains(name)).collect();
    let least = scores.last().map_or(0.0, |score| score.min(0.0)) - 1.0;
    scores.extend(healthy.iter().map(|_| least));
    services.extend(healthy);
    let named = named_indicators(case, &ranked);
    let places: Vec<usize> = (0..named.len()).map(|place| named.len() - place).collect();
    json!({
        "case": case.id,
        "services": services,
        "service_scores": scores,
        "indicators": named,
        "indicator_scores": places,
        "seconds": started.elapsed().as_secs_f64(),
    })
}

/// Returns the evidence of the ranked entities in order, as the data set spells it.
fn named_indicators(case: &RcaCase, ranked: &[Ranked]) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for found in ranked {
        for indicator in indicators(&case.facts, &found.entity) {
            let key = match indicator {
                Indicator::Signal(fact) => fact.signal.labels().to_string(),
                Indicator::Template(fact) => fact.template.clone(),
            };
            let spelled = case.spelling.get(&key).cloned().unwrap_or_else(|| format!("|{key}"));
            // The spelling of a signal that several entities share begins with the entity's name.
            let name = if spelled.starts_with('|') { format!("{}{spelled}", found.entity.name) } else { spelled };
            let name: String = name.chars().take(120).collect();
            if !named.contains(&name) {
                named.push(name);
            }
        }
        if named.len() >= MAX_INDICATORS {
            break;
        }
    }
    named.truncate(MAX_INDICATORS);
    named
}
