//! `eval synthetic`: unseen estates, made of public instrumentations with random names, loads, phases and
//! scrape intervals; faults and healthy disturbances happen in them.
//!
//! ```text
//! estates/*.yaml: what an instrumentation exports of a state, and what changes the state
//!    └─► one case for each change ─► estate: component, its callers, unrelated neighbours ─► scrapes ─► detection
//! ```
//!
//! Problem: rules that are tuned on recordings fit those recordings. Model: every case is made from its name alone, so
//! that a figure can be repeated; the cases are divided in two halves by their names. Work on detection may look
//! at the `dev` half only; of the `held` half the command prints totals, so that a difference between both shows
//! fitting.

mod estate;
mod instrumentation;
mod random;
mod scraping;

use std::path::PathBuf;

use self::estate::Estate;
use self::instrumentation::{Instrumentation, instrumentations};
use super::detection_run::DetectionRun;
use super::score::{Score, Summary, line, score};

/// Which half of the cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Its cases may be looked at.
    Dev,
    /// Only its totals are printed.
    Held,
}

/// What to run.
#[derive(Debug, Default)]
pub(super) struct SyntheticOptions {
    /// Only cases whose name has this text.
    pub(super) only: Option<String>,
    /// Number that changes all names, loads and phases.
    pub(super) seed: u64,
    /// File for the scores of the dev half and both summaries, as JSON.
    pub(super) json: Option<PathBuf>,
    /// Prints the series of the estate's first scrapes, for checking an instrumentation.
    pub(super) dump: bool,
}

/// One case: an instrumentation and a change of its state.
#[derive(Clone, Debug)]
struct Case {
    instrumentation: usize,
    change: String,
    healthy: bool,
}

impl Case {
    fn name(&self, all: &[Instrumentation]) -> String {
        let kind = if self.healthy { "healthy" } else { "fault" };
        format!("{}/{kind}/{}", all[self.instrumentation].instrumentation, self.change)
    }
}

/// Runs the cases; returns what is to be printed.
pub(super) fn run(options: &SyntheticOptions) -> anyhow::Result<Vec<String>> {
    let all = instrumentations()?;
    let (mut lines, mut scores) = (Vec::new(), Vec::new());
    for case in cases(&all) {
        let name = case.name(&all);
        if options.only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let half = half_of(&name);
        let score = play(&case, &name, &all, options, &mut lines)?;
        if half == Half::Dev {
            lines.push(line(&score));
        }
        scores.push((half, score));
    }
    let summary = |half: Half| Summary::of(scores.iter().filter(move |(of, _)| *of == half).map(|(_, score)| score));
    let summaries = serde_json::json!({ "dev": summary(Half::Dev), "held": summary(Half::Held) });
    lines.push(summaries.to_string());
    if let Some(file) = &options.json {
        let cases: Vec<&Score> = scores.iter().filter(|(half, _)| *half == Half::Dev).map(|(_, score)| score).collect();
        std::fs::write(file, serde_json::to_vec_pretty(&serde_json::json!({ "summary": summaries, "cases": cases }))?)?;
    }
    Ok(lines)
}

fn cases(all: &[Instrumentation]) -> Vec<Case> {
    let of = |(instrumentation, it): (usize, &Instrumentation)| {
        let case = move |change: &String, healthy| Case { instrumentation, change: change.clone(), healthy };
        let faults: Vec<Case> = it.faults.keys().map(|change| case(change, false)).collect();
        faults.into_iter().chain(it.healthy.keys().map(|change| case(change, true)).collect::<Vec<_>>())
    };
    all.iter().enumerate().flat_map(of).collect()
}

fn play(
    case: &Case,
    name: &str,
    all: &[Instrumentation],
    options: &SyntheticOptions,
    lines: &mut Vec<String>,
) -> anyhow::Result<Score> {
    let of = &all[case.instrumentation];
    let change = if case.healthy { &of.healthy[&case.change] } else { &of.faults[&case.change] };
    let mut estate = Estate::new(name, options.seed, (of, change), all)?;
    let truth = estate.truth(name, &case.change, case.healthy);
    let mut run = DetectionRun::new()?;
    estate.play(&mut run, options.dump.then_some(lines));
    Ok(score(&truth, &run.finish()))
}

fn half_of(name: &str) -> Half {
    if random::hash(name).is_multiple_of(2) { Half::Dev } else { Half::Held }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_have_enough_cases_each() {
        let all = instrumentations().unwrap();
        for half in [Half::Dev, Half::Held] {
            let of_half = |case: &&Case| half_of(&case.name(&all)) == half;
            let cases = cases(&all);
            let (healthy, faults): (Vec<&Case>, Vec<_>) = cases.iter().filter(of_half).partition(|case| case.healthy);
            assert!(faults.len() >= 25 && healthy.len() >= 15, "{half:?}: {} and {}", faults.len(), healthy.len());
        }
    }

    /// Few cases: all of them take minutes without optimisation, and are run by the command.
    #[test]
    fn cases_are_played_to_their_end() {
        let options = SyntheticOptions { only: Some("blackbox/fault/unreachable".to_owned()), ..Default::default() };
        let lines = run(&options).unwrap();
        let summary: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
        let sum = |field: &str| summary["dev"][field].as_u64().unwrap() + summary["held"][field].as_u64().unwrap();
        assert_eq!((sum("faults"), sum("healthy"), sum("found")), (1, 0, 1), "{}", lines.join("\n"));
    }
}
