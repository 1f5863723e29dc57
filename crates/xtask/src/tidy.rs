//! `cargo xtask tidy`: rules for the source that a program can check, one file per rule.

mod banned_words;
mod commit_messages;
mod config_references;
mod crate_graph;
mod file_names;
mod import_cycles;
mod manifests;
mod metric_names;
mod module_tree;
mod packages;
mod runbooks;
mod rust_tokens;
mod shop_vocabulary;
mod sizes;
mod unsafe_code;

use std::process::ExitCode;

use anyhow::bail;
use lexopt::prelude::Long;

/// Runs the command.
///
/// # Errors
/// Returns an error if a rule is broken or a file cannot be read.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut bless = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("bless") => bless = true,
            other => return Err(other.unexpected().into()),
        }
    }
    check(bless)?;
    anstream::eprintln!("tidy: no rule broken");
    Ok(ExitCode::SUCCESS)
}

/// Checks all rules and prints every violation; with `bless` the crate graph is written instead of compared.
///
/// # Errors
/// Returns an error if a rule is broken or a file cannot be read.
pub(crate) fn check(bless: bool) -> anyhow::Result<()> {
    let packages = packages::read()?;
    let mut problems = Vec::new();
    crate_graph::check(&packages, bless, &mut problems)?;
    sizes::check(&packages, &mut problems)?;
    manifests::check(&packages, &mut problems)?;
    runbooks::check(&mut problems)?;
    shop_vocabulary::check(&mut problems)?;
    metric_names::check(&packages, &mut problems)?;
    unsafe_code::check(&packages, &mut problems)?;
    import_cycles::check(&packages, &mut problems);
    file_names::check(&packages, &mut problems)?;
    banned_words::check(&packages, &mut problems)?;
    config_references::check(&packages, &mut problems)?;
    commit_messages::check(&mut problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        anstream::eprintln!("tidy: {problem}");
    }
    bail!("{} violations", problems.len())
}
