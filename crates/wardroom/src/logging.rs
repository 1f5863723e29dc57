//! Log output of the processes, on stderr.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use wardroom_roles::log_output::LogOutput;

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
    /// Installs the subscriber of a server process.
    pub(crate) fn init(&self) -> anyhow::Result<()> {
        // Below warn, these crates log every table snapshot they read.
        let directives = format!("buoyant_kernel=warn,deltalake_core=warn,datafusion=warn,{}", self.log_level);
        let filter = EnvFilter::try_new(directives)?;
        // An internal error would be printed with a macro that panics if stderr fails.
        let builder =
            tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(|| LogOutput);
        match self.log_format {
            LogFormat::Json => builder.json().init(),
            LogFormat::Pretty => builder.init(),
        }
        Ok(())
    }
}

/// Installs a subscriber for warnings, for commands that read a data folder.
pub(crate) fn init_warnings() -> anyhow::Result<()> {
    let warnings = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .log_internal_errors(false)
        .with_writer(|| LogOutput);
    warnings.try_init().map_err(|error| anyhow::anyhow!(error))
}

/// Installs the subscriber of the executor, which has no options.
pub(crate) fn init_executor() {
    tracing_subscriber::fmt().json().log_internal_errors(false).with_writer(|| LogOutput).init();
}
