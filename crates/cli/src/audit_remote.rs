//! `wardroom audit` on a running server.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::client::Client;
use crate::columns::Column;
use crate::duration::parse_time_or_age;
use crate::output::{CommandResult, print_document, print_json, print_result, print_rows, stdout};
use crate::presentation::OutputArgs;

/// Which entries of the server's log.
#[derive(Clone, Debug, Args)]
pub struct AuditFilterArgs {
    /// Only entries since then: a duration before now such as 24h, or RFC 3339. From a server.
    #[arg(long, value_name = "TIME", conflicts_with = "data")]
    since: Option<String>,
    /// Only entries before then. From a server.
    #[arg(long, value_name = "TIME", conflicts_with = "data")]
    until: Option<String>,
    /// Only this action, such as approve. From a server.
    #[arg(long, conflicts_with = "data")]
    action: Option<String>,
    /// Only what this principal has done. From a server.
    #[arg(long, conflicts_with = "data")]
    principal: Option<String>,
    /// Only about this incident. From a server.
    #[arg(long, value_name = "ID", conflicts_with = "data")]
    incident: Option<String>,
}

/// Columns of the list, over the fields of an entry.
pub const ENTRY_COLUMNS: &[Column] = &[
    Column::number("SEQUENCE", "/sequence"),
    Column::time("AT", "/@timestamp"),
    Column::text("TENANT", "/tenant").wide(),
    Column::text("PRINCIPAL", "/principal"),
    Column::text("ACTION", "/action"),
    Column::text("INCIDENT", "/incident_id"),
    Column::made("REASON", reason),
];

/// The reason that a person gave, or that a decision has.
fn reason(entry: &Value) -> String {
    let decision = &entry["decision"];
    let reason = ["reason", "detail", "error"].iter().find_map(|key| decision[*key].as_str());
    reason.unwrap_or_default().to_owned()
}

/// Lists the newest entries, oldest first.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list(client: &Client, filter: &AuditFilterArgs, limit: usize, output: &OutputArgs) -> CommandResult {
    let time = |flag: &str, at: &Option<String>| {
        at.as_deref().map(|at| Ok::<_, anyhow::Error>(parse_time_or_age(flag, at)?.to_string())).transpose()
    };
    let parameters = [
        ("since", time("--since", &filter.since)?),
        ("until", time("--until", &filter.until)?),
        ("action", filter.action.clone()),
        ("principal", filter.principal.clone()),
        ("incident", filter.incident.clone()),
    ];
    let parameters: Vec<_> = parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let mut found = client.list("/api/v1/audit", "entries", &parameters, limit)?;
    let entries = found["entries"].as_array_mut().map(std::mem::take).unwrap_or_default();
    // The API lists the newest first.
    found["entries"] = entries.into_iter().rev().map(flat).collect();
    print_rows(&found, "entries", ENTRY_COLUMNS, output)
}

/// An entry with its sequence number and hash, as the data folder's list has it.
fn flat(mut row: Value) -> Value {
    let mut entry = row["entry"].take();
    if !entry.is_object() {
        return row;
    }
    entry["sequence"] = row["sequence"].take();
    entry["hash"] = row["hash"].take();
    entry
}

/// Shows one entry.
///
/// # Errors
/// Returns an error if there is none of this number, or the server does not answer.
pub fn show(client: &Client, sequence: i64, output: &OutputArgs) -> CommandResult {
    let entry = flat(client.get(&format!("/api/v1/audit/{sequence}"))?);
    print_entry(&entry, output)
}

/// Prints one entry.
///
/// # Errors
/// Returns an error if stdout cannot be written.
pub fn print_entry(entry: &Value, output: &OutputArgs) -> CommandResult {
    if output.is_document() {
        print_document(entry, &output.presentation())?;
    } else {
        print_json(serde_json::to_string_pretty(entry)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes all entries as lines of JSON, into a new file or to stdout.
///
/// # Errors
/// Returns an error if the server does not answer, or the file exists.
pub fn export(client: &Client, out: Option<&std::path::Path>, output: &OutputArgs) -> CommandResult {
    let lines = client.get_bytes("/api/v1/audit/export", &[])?;
    let Some(out) = out else {
        stdout().write_all(&lines)?;
        return Ok(ExitCode::SUCCESS);
    };
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(out);
    let written = file.and_then(|mut file| file.write_all(&lines).and_then(|()| file.sync_all()));
    written.map_err(|error| anyhow::anyhow!("{}: {error}", out.display()))?;
    let count = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let message = format!("{count} entries written to {}", out.display());
    print_result(&json!({ "entries": count, "file": out }), message, output)
}

/// Has the server verify its log; exit code 1 unless it is intact.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn verify(client: &Client, output: &OutputArgs) -> CommandResult {
    let found = client.get("/api/v1/audit/verify")?;
    let message = match found["ok"].as_bool() {
        Some(true) => format!("{} entries, chain intact", found["entries"]),
        _ => format!("the log is not intact from entry {} on", found["first_broken"]),
    };
    print_result(&found, message, output)?;
    Ok(if found["ok"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
