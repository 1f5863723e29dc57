//! `wardroom ask`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use crate::output::{CommandResult, print_line};
use crate::table_output::{TableArgs, TableFormat, TimeRangeArgs};

/// Run a named query: detect_anomalies, correlate_error_logs, check_recent_deployments.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom ask
  wardroom ask detect_anomalies --error-rate 0.05 --since 2h
  wardroom ask correlate_error_logs --service checkout -o json")]
pub struct AskArgs {
    /// Name of the query; lists all queries if omitted.
    name: Option<String>,
    /// Restrict the result to one service.
    #[arg(long)]
    service: Option<String>,
    /// Minimum share of failed requests, 0 to 1, for detect_anomalies to report a service.
    #[arg(long)]
    error_rate: Option<f64>,
    /// Minimum 99th percentile latency, in milliseconds, for detect_anomalies to report a service.
    #[arg(long)]
    p99_ms: Option<f64>,
    #[command(flatten)]
    range: TimeRangeArgs,
    #[command(flatten)]
    table: TableArgs,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the server does not answer, or does not accept it.
pub fn run(args: AskArgs) -> CommandResult {
    let Some(name) = args.name else { return list(&args.table) };
    let mut parameters = args.range.parameters()?;
    let optional = [
        ("service", args.service),
        ("error_rate", args.error_rate.map(|rate| rate.to_string())),
        ("p99_ms", args.p99_ms.map(|ms| ms.to_string())),
    ];
    parameters.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    args.table.fetch_and_print(&format!("/api/v1/ask/{name}"), parameters)
}

fn list(table: &TableArgs) -> CommandResult {
    let response = table.client().get("/api/v1/ask")?;
    match table.format() {
        TableFormat::Table | TableFormat::Wide => {}
        TableFormat::Json | TableFormat::Yaml => {
            return table.print(response["questions"].to_string().as_bytes());
        }
        format @ (TableFormat::Csv | TableFormat::Arrow) => {
            bail!("-o {}: the list of queries is printed as table, json or yaml", format.as_str())
        }
    }
    for query in response["questions"].as_array().into_iter().flatten() {
        let text = |key: &str| query[key].as_str().unwrap_or_default();
        print_line(format!("{}\n{}", text("name"), text("sql")))?;
    }
    Ok(ExitCode::SUCCESS)
}
