//! Why a case is ranked as it is: scores, features and evidence of the first entities and of those at fault.

use wardroom_diagnose::{FEATURES, Indicator, Ranked, Weights, indicators, rank};

use super::telemetry::RcaCase;

/// Entities that are explained besides those at fault.
const FIRST: usize = 3;
/// Signals and templates of each.
const EVIDENCE: usize = 12;
/// Features below this are left out.
const LEAST: f64 = 0.03;

/// Explains a case in a few lines.
pub(super) fn explain(case: &RcaCase, weights: &Weights) -> String {
    let ranked = rank(&case.facts, weights);
    let is_right = |found: &Ranked| case.truth.contains(&found.entity.name);
    let mut text = format!("{}: at fault {:?}, {} entities differ\n", case.id, case.truth, ranked.len());
    for (place, found) in ranked.iter().enumerate().filter(|(place, found)| *place < FIRST || is_right(found)) {
        let features = FEATURES.iter().zip(found.features).filter(|(_, value)| value.abs() >= LEAST);
        let features: Vec<String> = features.map(|(name, value)| format!("{name} {value:.2}")).collect();
        let mark = if is_right(found) { "*" } else { " " };
        let (kind, entity, features) = (found.entity.kind, &found.entity, features.join(", "));
        text.push_str(&format!(" {mark}{}. {kind} {entity} {:.2}: {features}\n", place + 1, found.score));
        for indicator in indicators(&case.facts, &found.entity).into_iter().take(EVIDENCE) {
            text.push_str(&format!("      {}\n", described(&indicator)));
        }
    }
    text
}

fn described(indicator: &Indicator<'_>) -> String {
    match indicator {
        Indicator::Signal(fact) => format!(
            "{}/{} of {} to {}: {:.4} (before {:.4}), z {:.1}, strength {:.2}{}{}",
            fact.signal.kind,
            fact.signal.resource,
            fact.signal.entity,
            fact.signal.peer.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            fact.value,
            fact.expected,
            fact.z,
            fact.strength(),
            if fact.is_bad { ", bad" } else { "" },
            if fact.is_gone { ", gone" } else { "" },
        ),
        Indicator::Template(fact) => format!("{} × (expected {:?}) {:?}", fact.count, fact.expected, fact.template),
    }
}
