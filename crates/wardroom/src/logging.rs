//! Log output of the processes, on stderr, and their traces.

use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use wardroom_roles::log_output::LogOutput;
use wardroom_roles::{Config, clock};
use wardroom_traces::{ExportSettings, STATUS_TARGET, SpanQueue, TraceLayer};

/// How long the end of a process waits until its last spans are sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Pretty,
    Json,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LogArgs {
    /// Format of the log lines on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub(crate) log_format: LogFormat,
    /// Log level, or tracing filter directives.
    #[arg(long, default_value = "info")]
    pub(crate) log_level: String,
}

impl LogArgs {
    /// Installs the subscriber of a process that exports no traces.
    pub(crate) fn init(&self) -> anyhow::Result<()> {
        self.init_with(None)
    }

    /// Installs the subscriber of the server, whose spans are exported if its configuration or the environment names a
    /// collector. Returns what sends the last ones.
    pub(crate) fn init_server(&self, config: &Config) -> anyhow::Result<Traces> {
        let (from_environment, headers) = environment();
        let queue = config.tracing.otlp_endpoint.clone().or(from_environment).map(|endpoint| {
            let authorization = config.read_tracing_authorization().map_err(anyhow::Error::msg)?;
            let authorization = authorization.map(|value| ("authorization".to_owned(), value));
            let headers = authorization.map_or(headers, |authorization| vec![authorization]);
            let sample_ratio = config.tracing.sample_ratio;
            anyhow::Ok(SpanQueue::new(ExportSettings { endpoint, headers, service: "wardroom", sample_ratio }))
        });
        let queue = queue.transpose()?;
        self.init_with(queue.clone())?;
        Ok(Traces(queue))
    }

    fn init_with(&self, queue: Option<SpanQueue>) -> anyhow::Result<()> {
        // Below warn, these crates log every table snapshot they read. The target is for the traces only.
        let quiet = format!("buoyant_kernel=warn,deltalake_core=warn,datafusion=warn,{STATUS_TARGET}=off");
        let filter = EnvFilter::try_new(format!("{quiet},{}", self.log_level))?;
        // An internal error would be printed with a macro that panics if stderr fails.
        let log = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(|| LogOutput);
        let log = match self.log_format {
            LogFormat::Json => log.json().with_filter(filter).boxed(),
            LogFormat::Pretty => log.with_filter(filter).boxed(),
        };
        let traces = TraceLayer::new(queue, clock::now);
        let of_traces = traces.filter();
        tracing_subscriber::registry().with(log).with(traces.with_filter(of_traces)).init();
        Ok(())
    }
}

/// The spans that are not sent yet.
pub(crate) struct Traces(Option<SpanQueue>);

impl Traces {
    /// Sends them, before the process ends.
    pub(crate) fn flush(&self) {
        if let Some(queue) = &self.0 {
            queue.flush(FLUSH_TIMEOUT);
        }
    }
}

/// Returns the collector that OpenTelemetry's variables name, and the headers for it.
#[expect(clippy::disallowed_methods, reason = "the variables are OpenTelemetry's")]
fn environment() -> (Option<String>, Vec<(String, String)>) {
    let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok().filter(|endpoint| !endpoint.trim().is_empty());
    let headers = std::env::var("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default();
    (endpoint, ExportSettings::parse_headers(&headers))
}

/// Installs a subscriber for warnings, for commands that read a data folder.
pub(crate) fn init_warnings() -> anyhow::Result<()> {
    let warnings = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .log_internal_errors(false)
        .with_writer(|| LogOutput);
    warnings.try_init().map_err(|error| anyhow::anyhow!(error))
}

/// Installs the subscriber of the executor, which has no options; the environment may name a collector.
pub(crate) fn init_executor() -> anyhow::Result<()> {
    let (endpoint, headers) = environment();
    let settings = |endpoint| ExportSettings { endpoint, headers, service: "wardroom-executor", sample_ratio: 1.0 };
    let queue = endpoint.map(settings).map(SpanQueue::new);
    LogArgs { log_format: LogFormat::Json, log_level: "info".to_owned() }.init_with(queue)
}
