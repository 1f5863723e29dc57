//! `wardroom anomalies` and `wardroom deployments`: what the server has seen, newest last.

use clap::Args;
use serde_json::Value;

use crate::client::RemoteOutputArgs;
use crate::columns::{Column, severity_tone};
use crate::duration::parse_time_or_age;
use crate::output::{CommandResult, print_rows};

/// What to list of a time range.
#[derive(Clone, Debug, Args)]
struct RecentArgs {
    /// Start: a duration before now such as 2h, or RFC 3339.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    since: String,
    /// Only this service.
    #[arg(long, alias = "entity", value_name = "NAME")]
    service: Option<String>,
    /// Maximum number of rows: the newest.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

/// List anomalies, oldest first.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom anomalies --since 15m
  wardroom anomalies --service checkout -o json | jq '.anomalies[].detector'")]
pub struct AnomaliesArgs {
    #[command(flatten)]
    recent: RecentArgs,
}

/// List deployments, oldest first.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  wardroom deployments --since 24h --service checkout")]
pub struct DeploymentsArgs {
    #[command(flatten)]
    recent: RecentArgs,
}

const ANOMALY_COLUMNS: &[Column] = &[
    Column::time("AT", "/at"),
    Column::text("SERVICE", "/service"),
    Column::text("SEVERITY", "/severity").toned(severity_tone),
    Column::text("DETECTOR", "/detector"),
    Column::number("Z", "/z").wide(),
    Column::number("SCORE", "/score").wide(),
    Column::number("VALUE", "/value"),
    Column::number("EXPECTED", "/expected"),
    Column::made("SERIES", |anomaly| series_text(&anomaly["series"])),
];

const DEPLOYMENT_COLUMNS: &[Column] = &[
    Column::time("AT", "/at"),
    Column::text("SERVICE", "/service"),
    Column::text("VERSION", "/version"),
    Column::text("STATUS", "/status"),
    Column::text("KIND", "/entity/kind").wide(),
    Column::text("NAMESPACE", "/entity/namespace").wide(),
    Column::text("ENVIRONMENT", "/entity/environment").wide(),
];

/// Lists anomalies.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list_anomalies(args: AnomaliesArgs) -> CommandResult {
    list(&args.recent, "/api/v1/anomalies", "anomalies", ANOMALY_COLUMNS)
}

/// Lists deployments.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list_deployments(args: DeploymentsArgs) -> CommandResult {
    list(&args.recent, "/api/v1/deployments", "deployments", DEPLOYMENT_COLUMNS)
}

fn list(args: &RecentArgs, path: &str, rows: &str, columns: &[Column]) -> CommandResult {
    let mut parameters = vec![("since", parse_time_or_age("--since", &args.since)?.to_string())];
    parameters.extend(args.service.clone().map(|service| ("service", service)));
    let mut found = args.remote.client().list(path, rows, &parameters, usize::MAX)?;
    // The API lists the oldest first.
    if let Some(found) = found[rows].as_array_mut() {
        found.drain(..found.len().saturating_sub(args.limit));
    }
    print_rows(&found, rows, columns, &args.remote.output)
}

/// Labels as Prometheus writes them.
fn series_text(labels: &Value) -> String {
    let labels = || labels.as_object().into_iter().flatten();
    let name = labels().find(|(label, _)| *label == "__name__").and_then(|(_, name)| name.as_str());
    let others = labels().filter(|(label, _)| *label != "__name__");
    let others: Vec<String> = others.map(|(label, value)| format!("{label}={value}")).collect();
    format!("{}{{{}}}", name.unwrap_or_default(), others.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn series_are_written_as_prometheus_does() {
        assert_eq!(series_text(&json!({ "__name__": "up", "job": "a\"b" })), r#"up{job="a\"b"}"#);
    }
}
