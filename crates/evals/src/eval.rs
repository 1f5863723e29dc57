//! `eval`: scores of the product's judgement on public data.
//!
//! - `eval rca --data PATH --out FILE`: root causes, by the product's own ranking; see [`rca`].
//! - `eval rca --fit WEIGHTS --data PATH [--data PATH …]`: fits the weights of the ranking and prints a report.

mod rca;

use std::path::PathBuf;

use anyhow::Context as _;
use lexopt::prelude::{Long, Value, ValueExt as _};

/// Runs the evaluation named by the next argument.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    match arguments.next()? {
        Some(Value(name)) if name == "rca" => run_rca(arguments),
        Some(other) => Err(other.unexpected().into()),
        None => anyhow::bail!("usage: eval rca --data PATH --out FILE | eval rca --fit WEIGHTS --data PATH…"),
    }
}

#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
fn run_rca(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let (mut data, mut out, mut fit): (Vec<PathBuf>, Option<PathBuf>, Option<PathBuf>) = (Vec::new(), None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("data") => data.push(arguments.value()?.parse()?),
            Long("out") => out = Some(arguments.value()?.parse()?),
            Long("fit") => fit = Some(arguments.value()?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    anyhow::ensure!(!data.is_empty(), "--data PATH is missing: the folder of a data set");
    if let Some(weights) = fit {
        println!("{}", rca::fit_weights(&data, &weights)?);
        return Ok(());
    }
    let out = out.context("--out FILE is missing: where the predictions go")?;
    anyhow::ensure!(data.len() == 1, "predictions are of one data set; give --data once");
    rca::predict(&data[0], &out)
}
