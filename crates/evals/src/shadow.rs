//! The agreement table of shadow mode, from the demo's reports (`demo --headless`, one JSON object a line).
//!
//! Beside what Wardroom proposed stands what a person who knows the fault does: the only action that heals it, by
//! docs/shop.md. The product's own rules say what each pair of cause and action has earned then.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use lexopt::prelude::*;
use serde_json::Value as Json;
use wardroom_domain::Timestamp;
use wardroom_roles::policy::autonomy::{Bar, Pair, Trial, standings};

const USAGE: &str = "wardroom-evals shadow --out FILE REPORTS…";

/// One seed of the demo.
struct Seed {
    number: i64,
    fault: String,
    /// Cause rule and action that Wardroom proposed; `None` without a proposal.
    proposed: Option<(Pair, String)>,
    /// Operation and target that heal the fault.
    remedy: (String, String),
    helped: Option<bool>,
}

/// Writes the table.
///
/// # Errors
/// Returns an error if a report cannot be read or the table cannot be written.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let (mut out, mut files) = (None, Vec::new());
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("out") => out = Some(PathBuf::from(arguments.value()?)),
            Value(file) => files.push(PathBuf::from(file)),
            Short(_) | Long(_) => return Err(argument.unexpected()).context(USAGE),
        }
    }
    let out = out.context(USAGE)?;
    let mut seeds = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let report: Json = serde_json::from_str(line).with_context(|| file.display().to_string())?;
            seeds.push(read_seed(&report));
        }
    }
    seeds.sort_by_key(|seed| seed.number);
    std::fs::File::create(&out)?.write_all(table(&seeds).as_bytes())?;
    Ok(())
}

fn read_seed(report: &Json) -> Seed {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let (kind, service) = (text(&report["fault"]["kind"]), text(&report["fault"]["service"]));
    let operation = match (report["case"].as_str(), kind.as_str()) {
        (_, "bad-setting") => "settings",
        (Some("deployment"), _) => "rollback",
        _ => "restart",
    };
    let action = &report["actions"][0];
    let rule = text(report["cause"].get("rule").unwrap_or(&report["cause"]["kind"]));
    let pair = Pair { rule, tool: text(&action["tool"]), operation: text(&action["operation"]) };
    Seed {
        number: report["seed"].as_i64().unwrap_or_default(),
        fault: format!("{kind} at {service}"),
        proposed: action.is_object().then(|| (pair, text(&action["target"]))),
        remedy: (operation.to_owned(), service),
        helped: match report["outcome"].as_str() {
            Some("resolved") => Some(true),
            Some("inconclusive") => Some(false),
            _ => None,
        },
    }
}

impl Seed {
    fn agreed(&self) -> Option<bool> {
        let (pair, target) = self.proposed.as_ref()?;
        Some((&pair.operation, target) == (&self.remedy.0, &self.remedy.1))
    }
}

fn table(seeds: &[Seed]) -> String {
    let word = |agreed: Option<bool>| agreed.map_or("-", |agreed| if agreed { "yes" } else { "no" });
    let mut text = "| seed | fault | Wardroom would have done | people did | agreed | helped |\n".to_owned();
    text.push_str("|---|---|---|---|---|---|\n");
    let (mut agreed, mut proposed) = (0, 0);
    let mut trials: Vec<(Pair, Trial)> = Vec::new();
    for (second, seed) in (1..).zip(seeds) {
        let would = seed.proposed.as_ref().map_or("-".to_owned(), |(pair, target)| {
            format!("{} {} of {target}, for {}", pair.tool, pair.operation, pair.rule)
        });
        let (number, fault, did) = (seed.number, &seed.fault, format!("{} of {}", seed.remedy.0, seed.remedy.1));
        let (agrees, helped) = (word(seed.agreed()), word(seed.helped));
        text.push_str(&format!("| {number} | {fault} | {would} | {did} | {agrees} | {helped} |\n"));
        proposed += i32::from(seed.proposed.is_some());
        agreed += i32::from(seed.agreed() == Some(true));
        if let Some((pair, _)) = &seed.proposed {
            let at = Timestamp::from_millis(second * 1000);
            trials.push((pair.clone(), Trial { at, agreed: seed.agreed(), helped: seed.helped }));
        }
    }
    text.push_str(&format!("\n{agreed} of {proposed} proposals agreed, in {} seeds.\n\n", seeds.len()));
    text.push_str("| cause | action | agreed | helped | at least | offer |\n|---|---|---|---|---|---|\n");
    for (pair, standing) in standings(trials, BTreeMap::new(), &Bar::default()) {
        let offer = standing.offer.map_or("-", |level| level.as_str());
        let ((agreed, decided), (helped, shown)) = (standing.agreed, standing.helped);
        text.push_str(&format!(
            "| {} | {} {} | {agreed} of {decided} | {helped} of {shown} | {:.2} | {offer} |\n",
            pair.rule, pair.tool, pair.operation, standing.lower_bound
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(seed: i64, operation: &str, outcome: &str) -> Json {
        json!({
            "seed": seed, "case": "decoy", "fault": { "kind": "connection-leak", "service": "cart" },
            "cause": { "service": "cart", "kind": "connection-leak" }, "outcome": outcome,
            "actions": [{ "tool": "process", "operation": operation, "target": "cart", "outcome": "applied" }],
        })
    }

    #[test]
    fn ten_agreements_earn_an_offer_and_one_other_action_takes_it_away() {
        let mut seeds: Vec<Seed> = (1..=10).map(|seed| read_seed(&report(seed, "restart", "resolved"))).collect();
        let text = table(&seeds);
        assert!(text.contains("10 of 10 proposals agreed"), "{text}");
        assert!(text.contains("| connection-leak | process restart | 10 of 10 | 10 of 10 | 0.72 | night |"), "{text}");
        seeds.push(read_seed(&report(11, "restart", "inconclusive")));
        assert!(table(&seeds).contains("| 0 of 0 | 0 of 0 | 0.00 | - |"));
        seeds.push(read_seed(&report(12, "rollback", "resolved")));
        assert!(table(&seeds).contains("11 of 12 proposals agreed"));
    }
}
