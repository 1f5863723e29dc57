//! `wardroom samples dump`: writes every retained sample once, in the format of promtool or as JSON.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use wardroom_domain::{Matcher, TenantId, Timestamp, query::SeriesQuery, visible_json, visible_line};
use wardroom_roles::config;

use crate::blocking::block_on;
use crate::logging;
use wardroom_cli::client::RemoteArgs;
use wardroom_cli::output::{CommandResult, stdout};
use wardroom_cli::sample_pages::{Samples, fetch_samples};

/// Raw samples.
#[derive(Clone, Debug, Args)]
pub(crate) struct SamplesArgs {
    #[command(subcommand)]
    command: SamplesCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum SamplesCommand {
    #[command(after_help = "\
Examples:
  wardroom samples dump --match 'up{job=\"node\"}' --start 2026-01-02T00:00:00Z
  wardroom samples dump --data /var/lib/wardroom > samples.txt")]
    /// Write every retained sample.
    Dump(DumpArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DumpFormat {
    Promtool,
    Json,
}

#[derive(Clone, Debug, Args)]
struct DumpArgs {
    #[command(flatten)]
    remote: RemoteArgs,
    /// Read this data folder instead of querying a server.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Tenant, with --data.
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Series selector such as up{job="node"}; may repeat.
    #[arg(long = "match")]
    matchers: Vec<String>,
    /// Start of the range, inclusive: RFC 3339 or seconds since the epoch.
    #[arg(long)]
    start: Option<String>,
    /// End of the range: RFC 3339 or seconds since the epoch.
    #[arg(long)]
    end: Option<String>,
    /// Output format.
    #[arg(long, value_enum, default_value_t = DumpFormat::Promtool)]
    format: DumpFormat,
}

pub(crate) fn run(args: SamplesArgs) -> CommandResult {
    let SamplesCommand::Dump(args) = args.command;
    logging::init_warnings()?;
    let samples = match &args.data {
        Some(data) => read_from_folder(data, &args)?,
        None => fetch_samples(&args.remote.client(), &args.matchers, args.start.as_deref(), args.end.as_deref())?,
    };
    let is_terminal = std::io::stdout().is_terminal();
    let mut stdout = std::io::BufWriter::new(stdout());
    for (labels, points) in &samples {
        for (ts_ms, (text, bits)) in &points.samples {
            match args.format {
                // promtool needs the labels as they are; a terminal would obey control characters in them.
                DumpFormat::Promtool if is_terminal => {
                    writeln!(stdout, "{} {text} {ts_ms}", visible_line(&labels.to_string()))?;
                }
                DumpFormat::Promtool => writeln!(stdout, "{labels} {text} {ts_ms}")?,
                DumpFormat::Json => {
                    let sample = json!({ "labels": labels, "ts_ms": ts_ms, "value": text, "bits": bits });
                    writeln!(stdout, "{}", visible_json(&sample.to_string()))?;
                }
            }
        }
        // promtool omits native histograms.
        for (ts_ms, histogram) in points.histograms.iter().filter(|_| matches!(args.format, DumpFormat::Json)) {
            let histogram = json!({ "labels": labels, "ts_ms": ts_ms, "histogram": histogram });
            writeln!(stdout, "{}", visible_json(&histogram.to_string()))?;
        }
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn read_from_folder(data: &Path, args: &DumpArgs) -> anyhow::Result<Samples> {
    let tenant = TenantId::new(args.tenant.as_str()).map_err(|error| anyhow::anyhow!("--tenant: {error}"))?;
    let query = parse_query(&args.matchers, args.start.as_deref(), args.end.as_deref())?;
    let config = config::load(None)?;
    let found = block_on(async { Ok(wardroom_roles::dump(&config.pipeline(), data, &tenant, &query).await?) })?;
    let mut samples = Samples::new();
    for series in found {
        let points = samples.entry(series.labels).or_default();
        points.samples.extend(series.samples.into_iter().map(|(ts_ms, text, bits)| (ts_ms, (text, bits))));
        for histogram in series.histograms {
            points.histograms.insert(histogram.ts_ms, serde_json::to_value(histogram)?);
        }
    }
    Ok(samples)
}

fn parse_query(matchers: &[String], start: Option<&str>, end: Option<&str>) -> anyhow::Result<SeriesQuery> {
    let mut selectors = Vec::new();
    for matcher in matchers {
        selectors.push(Matcher::parse_selector(matcher).map_err(|error| anyhow::anyhow!("--match: {error}"))?);
    }
    let time = |flag: &str, text: Option<&str>, default_nanos: i64| match text {
        None => Ok(Timestamp::from_nanos(default_nanos)),
        Some(text) => match text.parse::<f64>() {
            Ok(seconds) => Ok(Timestamp::from_millis((seconds * 1000.0) as i64)),
            Err(_) => Timestamp::parse(text).map_err(|error| anyhow::anyhow!("--{flag}: {error}")),
        },
    };
    let (start, end) = (time("start", start, i64::MIN)?, time("end", end, i64::MAX)?);
    Ok(SeriesQuery { selectors, start, end, step_ms: None })
}
