//! `wardroom doctor`: what is connected, what is silent, what is misconfigured, and how to mend it.
//!
//! The facts are collected first, by reads only; then each check reads them. A check that lacks a fact, such
//! as one that the token may not read, is no fault.

mod checks;
mod facts;
mod finding;

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use wardroom_domain::visible_line;

use crate::client::RemoteOutputArgs;
use crate::columns::Tone;
use crate::output::{CommandResult, print_document, print_prepared};
use crate::presentation::Presentation;
use crate::table_layout::colored;

pub use finding::{Finding, Level};

use checks::CHECKS;
use facts::Facts;

/// Which server.
#[derive(Clone, Debug, Args)]
pub struct ExaminedServerArgs {
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

/// Examines a server, and prints what was found after the findings of the caller. Exit code 1 if something needs
/// attention.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn run(args: &ExaminedServerArgs, mut findings: Vec<Finding>) -> CommandResult {
    let facts = Facts::collect(&args.remote.client());
    findings.extend(CHECKS.iter().flat_map(|check| check(&facts)));
    let presentation = args.remote.output.presentation();
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    if args.remote.output.is_document() {
        print_document(&json!({ "ok": worst < Level::Warn, "findings": findings }), &presentation)?;
    } else {
        print_prepared(&finding_lines(&findings, &presentation))?;
    }
    Ok(if worst < Level::Warn { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn finding_lines(findings: &[Finding], presentation: &Presentation) -> Vec<String> {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for Finding { check, level, detail, remedy } in findings {
        let (name, tone) = match level {
            Level::Ok => ("ok  ", Tone::Good),
            Level::Note => ("note", Tone::Dim),
            Level::Warn => ("warn", Tone::Warning),
            Level::Fail => ("FAIL", Tone::Bad),
        };
        lines.push(format!("{}  {check:width$}  {}", colored(name, tone, presentation.color), visible_line(detail)));
        if let Some(remedy) = remedy {
            lines.push(format!("      {:width$}  → {}", "", visible_line(remedy)));
        }
    }
    let attention = findings.iter().filter(|finding| finding.level >= Level::Warn).count();
    lines.push(match attention {
        0 => "nothing needs attention".to_owned(),
        1 => "1 finding needs attention".to_owned(),
        count => format!("{count} findings need attention"),
    });
    lines
}

#[cfg(test)]
mod tests;
