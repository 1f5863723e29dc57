//! `eval rca --data PATH --out FILE [--fit WEIGHTS --data PATH …]`: root causes of public fault data sets, by the
//! product's own ranking.
//!
//! ```text
//! recording ─► adapter (petshop, sockshop, nezha, tapes) ─► diagnose::Facts ─► diagnose::rank ─► FILE
//!                                                                   └─► fit: conditional logit ─► WEIGHTS
//! ```
//!
//! Adapters translate columns, spans and log lines to facts and know nothing about faults; labels are read for fitting
//! and counting only. FILE has one JSON line a case: `case`, `services`, `service_scores`, `indicators`,
//! `indicator_scores`, `seconds`.

mod explain;
pub(crate) mod fit;
mod nezha;
mod petshop;
mod sockshop;
mod tapes;
pub(crate) mod telemetry;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;
use wardroom_diagnose::{Indicator, Ranked, Weights, indicators, rank};

use self::telemetry::{RcaCase, read_lines};

/// Marks of the part of a document that holds the report of the fit.
const REPORT_BEGIN: &str = "<!-- report of `cargo xtask eval rca --fit` -->";
const REPORT_END: &str = "<!-- end of the report -->";
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

/// Explains the cases whose id contains this text.
pub(crate) fn explain_cases(data: &Path, text: &str) -> anyhow::Result<String> {
    let weights = Weights::builtin()?;
    let cases = cases(data)?;
    Ok(cases.iter().filter(|case| case.id.contains(text)).map(|case| explain::explain(case, &weights)).collect())
}

/// Fits the weights to the labels of these data sets and writes them; returns a report.
pub(crate) fn fit_weights(data: &[PathBuf], out: &Path) -> anyhow::Result<String> {
    let prior = Weights::builtin()?;
    let mut systems: Vec<String> = Vec::new();
    let mut samples = Vec::new();
    for path in data {
        for case in cases(path)? {
            let system = systems.iter().position(|name| *name == case.system).unwrap_or_else(|| {
                systems.push(case.system.clone());
                systems.len() - 1
            });
            let ranked = rank(&case.facts, &prior);
            let is_right = |found: &Ranked| case.truth.contains(&found.entity.name);
            let right =
                ranked.iter().enumerate().filter(|(_, found)| is_right(found)).map(|(place, _)| place).collect();
            samples.push(fit::Sample { system, right, features: ranked.iter().map(|found| found.features).collect() });
        }
    }
    let source = format!("cargo xtask eval rca --fit, on {} cases of {}", samples.len(), systems.join(", "));
    let fitted = fit::fit(&samples, &systems, &prior, source);
    std::fs::write(out, serde_json::to_string_pretty(&fitted.weights)? + "\n")?;
    Ok(fitted.report)
}

/// Replaces the part of a document between the two marks by a report.
pub(crate) fn write_report(document: &Path, report: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(document).with_context(|| format!("reading {}", document.display()))?;
    let parts = text.split_once(REPORT_BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(REPORT_END)?.1)));
    let (before, after) = parts.with_context(|| {
        format!("{} has no place for the report: lines {REPORT_BEGIN} and {REPORT_END}", document.display())
    })?;
    let text = format!("{before}{REPORT_BEGIN}\n\n{}\n\n{REPORT_END}{after}", report.trim());
    std::fs::write(document, text).with_context(|| format!("writing {}", document.display()))
}

/// Reads all cases of a data set, by the layout of its folder.
pub(crate) fn cases(data: &Path) -> anyhow::Result<Vec<RcaCase>> {
    if petshop::is_here(data) {
        return petshop::cases(data);
    }
    if tapes::is_here(data) {
        return tapes::cases(data);
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
