//! `eval`: scores of the product's judgement on public data.
//!
//! - `eval rca --data PATH --out FILE`: root causes, by the product's own ranking; see [`rca`].
//! - `eval rca --fit WEIGHTS --data PATH [--data PATH …] [--report DOCUMENT]`: fits the weights of the ranking, prints
//!   a report and puts it into the document.
//! - `eval rca --data PATH --explain TEXT`: why the cases whose id contains the text are ranked as they are.
//! - `eval tape FOLDER…`: recorded requests through detection and diagnosis; see [`tape`].
//! - `eval synthetic [--only TEXT] [--seed N] [--json FILE] [--dump]`: unseen estates; see [`synthetic`].

mod detection_run;
mod rca;
mod score;
mod synthetic;
mod tape;

use std::path::PathBuf;

use anyhow::Context as _;
use lexopt::prelude::{Long, Value, ValueExt as _};

/// Runs the evaluation named by the next argument.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    match arguments.next()? {
        Some(Value(name)) if name == "rca" => run_rca(arguments),
        Some(Value(name)) if name == "tape" => run_tapes(arguments),
        Some(Value(name)) if name == "synthetic" => run_synthetic(arguments),
        Some(other) => Err(other.unexpected().into()),
        None => anyhow::bail!(
            "usage: eval rca --data PATH --out FILE | eval rca --fit WEIGHTS --data PATH… | eval tape FOLDER… | eval synthetic [--only TEXT] [--seed N] [--json FILE] [--dump]"
        ),
    }
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn run_rca(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let mut data: Vec<PathBuf> = Vec::new();
    let (mut out, mut fit, mut report): (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>) = (None, None, None);
    let mut explained: Option<String> = None;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("data") => data.push(arguments.value()?.parse()?),
            Long("out") => out = Some(arguments.value()?.parse()?),
            Long("fit") => fit = Some(arguments.value()?.parse()?),
            Long("explain") => explained = Some(arguments.value()?.parse()?),
            Long("report") => report = Some(arguments.value()?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    anyhow::ensure!(!data.is_empty(), "--data PATH is missing: the folder of a data set");
    if let Some(weights) = fit {
        let text = rca::fit_weights(&data, &weights)?;
        if let Some(document) = report {
            rca::write_report(&document, &text)?;
        }
        println!("{text}");
        return Ok(());
    }
    if let Some(text) = explained {
        for path in &data {
            println!("{}", rca::explain_cases(path, &text)?);
        }
        return Ok(());
    }
    let out = out.context("--out FILE is missing: where the predictions go")?;
    anyhow::ensure!(data.len() == 1, "predictions are of one data set; give --data once");
    rca::predict(&data[0], &out)
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn run_tapes(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let mut scores = Vec::new();
    while let Some(argument) = arguments.next()? {
        let Value(path) = argument else { return Err(argument.unexpected().into()) };
        for folder in tape::folders(path.as_ref())? {
            let score = tape::play(&folder)?;
            println!("{}", score::line(&score));
            scores.push(score);
        }
    }
    anyhow::ensure!(!scores.is_empty(), "usage: eval tape FOLDER…: folders of tapes, or tapes");
    println!("{}", serde_json::to_string(&score::Summary::of(scores.iter()))?);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn run_synthetic(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let mut options = synthetic::SyntheticOptions::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("only") => options.only = Some(arguments.value()?.parse()?),
            Long("seed") => options.seed = arguments.value()?.parse()?,
            Long("json") => options.json = Some(arguments.value()?.parse()?),
            Long("dump") => options.dump = true,
            other => return Err(other.unexpected().into()),
        }
    }
    synthetic::run(&options)?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
