//! `wardroom samples dump`: writes every retained sample once, in the format of promtool or as JSON.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use wardroom_domain::{Labels, Matcher, TenantId, Timestamp, query::SeriesQuery, visible_json, visible_line};
use wardroom_roles::config;

use crate::blocking::block_on;
use crate::client::RemoteArgs;
use crate::logging;
use crate::output::{CommandResult, stdout};

/// Raw samples.
#[derive(Clone, Debug, Args)]
pub(crate) struct SamplesArgs {
    #[command(subcommand)]
    command: SamplesCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum SamplesCommand {
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

/// Samples and histograms by series and time (ms); duplicates from retried requests collapse.
type Samples = BTreeMap<Labels, Points>;

#[derive(Default)]
struct Points {
    /// Time → (value as text, IEEE 754 bits as hex).
    samples: BTreeMap<i64, (String, String)>,
    histograms: BTreeMap<i64, Value>,
}

pub(crate) fn run(args: SamplesArgs) -> CommandResult {
    let SamplesCommand::Dump(args) = args.command;
    logging::init_warnings()?;
    let samples = match &args.data {
        Some(data) => read_from_folder(data, &args)?,
        None => fetch_from_server(&args)?,
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

fn fetch_from_server(args: &DumpArgs) -> anyhow::Result<Samples> {
    let client = args.remote.client();
    let mut filter = String::new();
    for matcher in &args.matchers {
        filter.push_str(&format!("&match[]={}", percent_encode(matcher)));
    }
    for (name, value) in [("start", &args.start), ("end", &args.end)] {
        filter.push_str(&value.as_ref().map(|value| format!("&{name}={}", percent_encode(value))).unwrap_or_default());
    }
    let (mut samples, mut cursor) = (Samples::new(), "0".to_owned());
    loop {
        let page = client.get(&format!("/api/v1/samples?cursor={cursor}{filter}"))?;
        for series in page["series"].as_array().context("the response has no series")? {
            let labels: Labels = serde_json::from_value(series["labels"].clone())?;
            let points = samples.entry(labels).or_default();
            for sample in series["samples"].as_array().into_iter().flatten() {
                let text = |index: usize| sample[index].as_str().unwrap_or_default().to_owned();
                points.samples.insert(sample[0].as_i64().context("a sample has no time")?, (text(1), text(2)));
            }
            for histogram in series["histograms"].as_array().into_iter().flatten() {
                let ts_ms = histogram["ts_ms"].as_i64().context("a histogram has no time")?;
                points.histograms.insert(ts_ms, histogram.clone());
            }
        }
        match &page["next"] {
            Value::String(next) => cursor.clone_from(next),
            _ => return Ok(samples),
        }
    }
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

fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
