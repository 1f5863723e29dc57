//! A small real shop with real faults: the demo's patient.
//!
//! Eight services, each a process of its own, talk HTTP to each other. A supervisor starts them,
//! keeps their versions and settings, restarts what exits, and offers a control API. A seed decides
//! what breaks, when, and what was deployed before; only `truth.json` says so.
//!
//! ```text
//!  load ─► storefront ─┬─► cart ──────┐
//!                      ├─► catalogue ─┼─► database        load ─► newsletter  (apart from all others)
//!                      └─► payments ──┘
//!                             └─► queue ◄── fulfilment
//! ```
//!
//! It knows nothing of whoever watches it: metrics leave by Prometheus remote_write, logs and
//! deployments as JSON, or all but the deployments by OpenTelemetry's protocol, to whatever address it is given.

#![forbid(unsafe_code)]

mod control;
mod fault;
mod load;
mod names;
mod otlp;
mod service;
mod supervisor;
mod telemetry;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// A small shop with real faults.
#[derive(Debug, Parser)]
#[command(name = "shop", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the shop until a signal comes.
    Run(Box<RunArgs>),
    /// Say what runs.
    Status {
        /// The shop's folder.
        #[arg(long)]
        dir: PathBuf,
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
    /// One service; started by `run`, told everything on its standard input.
    #[command(hide = true)]
    Service,
}

/// What `shop run` takes.
#[derive(Clone, Debug, Args)]
struct RunArgs {
    /// Where releases, settings, logs, effects and the truth are kept.
    #[arg(long)]
    dir: PathBuf,
    /// Decides fault, service, case and times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Renames services, metrics, settings and log texts.
    #[arg(long)]
    names_seed: Option<u64>,
    /// How often telemetry is sent.
    #[arg(long, default_value = "1s", value_parser = seconds)]
    interval: Duration,
    /// Requests per second at the storefront, on average.
    #[arg(long, default_value_t = 40.0)]
    rps: f64,
    /// Where metrics go (Prometheus remote_write 1.0).
    #[arg(long)]
    remote_write: Option<String>,
    /// Where logs go (JSON).
    #[arg(long)]
    logs: Option<String>,
    /// Where metrics, logs and spans go by OpenTelemetry's protocol (OTLP/HTTP), instead of the two above: the
    /// address before `/v1/metrics`. The spans alone then tell who calls whom.
    #[arg(long, conflicts_with_all = ["remote_write", "logs"])]
    otlp: Option<String>,
    /// Where deployments are told (JSON).
    #[arg(long)]
    deployments: Option<String>,
    /// A file with the bearer token for the three.
    #[arg(long)]
    bearer_token_file: Option<PathBuf>,
    /// Address of the control API; none without it.
    #[arg(long)]
    control: Option<std::net::SocketAddr>,
    /// A file with the control API's bearer token.
    #[arg(long, requires = "control")]
    control_token_file: Option<PathBuf>,
    /// This fault instead of the seed's; `none` for a healthy shop.
    #[arg(long)]
    fault: Option<String>,
    /// This service (its role's plain name) instead of the seed's.
    #[arg(long)]
    service: Option<String>,
    /// When the fault strikes, after the start.
    #[arg(long, value_parser = seconds)]
    at: Option<Duration>,
    /// The fault comes back this long after it was healed.
    #[arg(long, value_parser = seconds)]
    fix_lasts: Option<Duration>,
    /// Control answers 200 and changes nothing.
    #[arg(long)]
    ignore_control: bool,
    /// Deploy this service harmlessly at `--deploy-at` (for soaks).
    #[arg(long)]
    deploy: Option<String>,
    /// When `--deploy` happens.
    #[arg(long, default_value = "120s", value_parser = seconds, overrides_with = "deploy_at")]
    deploy_at: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => match text.strip_suffix('m') {
            Some(number) => (number, 60.0),
            None => (text.strip_suffix('s').unwrap_or(text), 1.0),
        },
    };
    let value: f64 = number.parse().map_err(|_| format!("{text:?} is not a duration: write 30s, 2m or 500ms"))?;
    Duration::try_from_secs_f64(value * unit).map_err(|error| error.to_string())
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    threads.block_on(async {
        match cli.command {
            Command::Run(args) => supervisor::run(*args).await,
            Command::Status { dir, json } => supervisor::status(&dir, json).await,
            Command::Service => service::run().await,
        }
    })
}
