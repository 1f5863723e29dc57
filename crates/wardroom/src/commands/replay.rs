//! `wardroom replay`: runs stored telemetry through detection again, with the current or another configuration.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use wardroom_domain::{TenantId, Timestamp, visible_line};
use wardroom_roles::config;
use wardroom_roles::{ReplayOptions, ReplayReport, clock};

use crate::blocking::block_on;
use crate::logging;
use wardroom_cli::duration::{parse_duration, parse_time_or_age};
use wardroom_cli::output::{CommandResult, print_document, print_line};
use wardroom_cli::presentation::OutputArgs;

/// Telemetry, in milliseconds, between two updates of the progress bar.
const PROGRESS_INTERVAL_MS: u64 = 1000;
/// The stored range counts as incomplete if it starts more than this after --from.
const START_TOLERANCE: Duration = Duration::from_secs(60);

/// Replay stored telemetry with the current configuration, and print the incidents it would open.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  wardroom replay --data /var/lib/wardroom --from 2h --config stricter.yaml")]
pub(crate) struct ReplayArgs {
    /// The data folder; a server may be running on it.
    #[arg(long)]
    data: PathBuf,
    /// Start of the range: RFC 3339, or time before now, such as 2h.
    #[arg(long)]
    from: String,
    /// End of the range; now by default.
    #[arg(long)]
    to: Option<String>,
    /// Replay at this multiple of real time; as fast as possible if omitted.
    #[arg(long)]
    speed: Option<f64>,
    /// Telemetry before the range that detection learns its baselines from.
    #[arg(long, default_value = "45m")]
    warm_up: String,
    /// Tenant.
    #[arg(long, default_value = "main")]
    tenant: String,
    /// Configuration file (YAML) to try.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder for the result tables; by default below `replays` in the data folder.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: ReplayArgs) -> CommandResult {
    logging::init_warnings()?;
    let config = config::load(args.config.as_deref())?;
    let from = parse_time_or_age("--from", &args.from)?;
    let to = args.to.as_deref().map_or_else(|| Ok(clock::now()), |to| parse_time_or_age("--to", to))?;
    ensure!(from < to, "--from {from} is not before --to {to}");
    ensure!(args.speed.is_none_or(|speed| speed > 0.0), "--speed must be greater than 0");
    ensure!(args.data.join("bus").is_dir(), "{} is not a data folder", args.data.display());
    let out = args.out.unwrap_or_else(|| {
        let range = [from, to].map(|at| at.to_string().replace(':', "-"));
        args.data.join("replays").join(range.join("_"))
    });
    let options = ReplayOptions {
        data: args.data,
        out,
        tenant: TenantId::new(args.tenant).map_err(|error| anyhow::anyhow!("--tenant: {error}"))?,
        from,
        to,
        warm_up: parse_duration("--warm-up", &args.warm_up)?,
        speed: args.speed,
    };
    let start_ms = from.minus(options.warm_up).millis();
    let bar = ProgressBar::new(u64::try_from(to.millis() - start_ms).unwrap_or_default());
    bar.set_style(ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}  {eta} left")?);
    let mut shown_ms = 0;
    let mut on_progress = |at: Timestamp| {
        let done_ms = u64::try_from(at.millis() - start_ms).unwrap_or_default();
        if done_ms >= shown_ms + PROGRESS_INTERVAL_MS {
            shown_ms = done_ms;
            bar.set_position(done_ms);
            bar.set_message(at.to_string());
        }
    };
    let replayed = block_on(async { Ok(wardroom_roles::replay(&config, &options, &mut on_progress).await?) })?;
    bar.finish_and_clear();
    if args.output.is_document() {
        print_report(&replayed, &options, &args.output)
    } else {
        print_text(&replayed, &options)
    }
}

fn print_report(replayed: &ReplayReport, options: &ReplayOptions, output: &OutputArgs) -> CommandResult {
    let incidents: Vec<_> = replayed
        .incidents
        .iter()
        .map(|(incident, original_id)| {
            json!({ "key": incident.key, "id": original_id, "title": incident.title, "severity": incident.severity,
                "services": incident.services, "trigger": incident.trigger, "began_at": incident.began_at,
                "opened_at": incident.opened_at })
        })
        .collect();
    let missing: Vec<_> = replayed.missing.iter().map(|(id, title)| json!({ "id": id, "title": title })).collect();
    let report = json!({ "from": options.from, "to": options.to, "begun": replayed.oldest_request_at,
        "requests": replayed.requests, "samples": replayed.samples, "anomalies": replayed.anomalies,
        "skipped": replayed.skipped, "incidents": incidents, "missing": missing,
        "tables": options.out.join("lake") });
    print_document(&report, &output.presentation())?;
    Ok(ExitCode::SUCCESS)
}

fn print_text(replayed: &ReplayReport, options: &ReplayOptions) -> CommandResult {
    match replayed.oldest_request_at {
        None => print_line("no telemetry of this range is stored")?,
        Some(start) if start > options.from.plus(START_TOLERANCE) => {
            print_line(format!("telemetry of this range is stored only from {start} on"))?;
        }
        Some(_) => {}
    }
    for (incident, original_id) in &replayed.incidents {
        let id = original_id.as_deref().unwrap_or("new");
        print_line(format!(
            "{id:8} {}  {}  {}",
            incident.opened_at,
            visible_line(&incident.key),
            visible_line(&incident.title)
        ))?;
    }
    for (id, title) in &replayed.missing {
        print_line(format!("{id:8} not opened: {}", visible_line(title)))?;
    }
    let reopened = replayed.incidents.iter().filter(|(_, original_id)| original_id.is_some()).count();
    print_line(format!(
        "{} incidents: {reopened} as before, {} new, {} not opened; {} requests with {} samples, {} anomalies, {} skipped",
        replayed.incidents.len(),
        replayed.incidents.len() - reopened,
        replayed.missing.len(),
        replayed.requests,
        replayed.samples,
        replayed.anomalies,
        replayed.skipped
    ))?;
    print_line(format!("tables: {}", options.out.join("lake").display()))?;
    Ok(ExitCode::SUCCESS)
}
