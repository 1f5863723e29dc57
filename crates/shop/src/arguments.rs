//! Arguments of `shop run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Arguments of `shop run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// Folder for releases, settings, logs, effects and the truth file.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Seed that determines fault, service, case and times.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Seed that renames services, metrics, settings and log texts.
    #[arg(long)]
    pub(crate) names_seed: Option<u64>,
    /// Interval at which telemetry is sent.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// Average number of requests per second at the storefront.
    #[arg(long, default_value_t = 40.0)]
    pub(crate) rps: f64,
    /// URL for metrics (Prometheus remote_write 1.0).
    #[arg(long)]
    pub(crate) remote_write: Option<String>,
    /// URL for logs (JSON).
    #[arg(long)]
    pub(crate) logs: Option<String>,
    /// Base URL for metrics, logs and spans over OTLP/HTTP, instead of the two above, without `/v1/metrics`. Calls
    /// between services are then reported as spans only.
    #[arg(long, conflicts_with_all = ["remote_write", "logs"])]
    pub(crate) otlp: Option<String>,
    /// URL for deployments (JSON).
    #[arg(long)]
    pub(crate) deployments: Option<String>,
    /// File with the bearer token for these URLs.
    #[arg(long)]
    pub(crate) bearer_token_file: Option<PathBuf>,
    /// Address of the control API; without it there is none.
    #[arg(long)]
    pub(crate) control: Option<std::net::SocketAddr>,
    /// File with the control API's bearer token.
    #[arg(long, requires = "control")]
    pub(crate) control_token_file: Option<PathBuf>,
    /// Fault to inject instead of the seed's; `none` for a healthy shop.
    #[arg(long)]
    pub(crate) fault: Option<String>,
    /// Service to inject it into (its default name) instead of the seed's.
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Time from the start to the fault.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) at: Option<Duration>,
    /// Time after a repair at which the fault is injected again.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) fix_lasts: Option<Duration>,
    /// Let the control API return 200 without changing anything.
    #[arg(long)]
    pub(crate) ignore_control: bool,
    /// Deploy this service without a fault at `--deploy-at` (for soak tests).
    #[arg(long)]
    pub(crate) deploy: Option<String>,
    /// Time from the start to `--deploy`.
    #[arg(long, default_value = "120s", value_parser = parse_duration, overrides_with = "deploy_at")]
    pub(crate) deploy_at: Duration,
}

/// Parses `30s`, `2m`, `500ms` or a number of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
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
