//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The always-staffed war room of a production estate.
#[derive(Debug, Parser)]
#[command(name = "wardroom", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run Wardroom.
    Serve(ServeArgs),
    /// The confined server process; started by `serve`.
    #[command(hide = true)]
    Server(ServeArgs),
    /// The executor process; started by `serve`.
    #[command(hide = true)]
    Executor {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        executor_config: PathBuf,
    },
    /// Make, list and revoke tokens; works beside a running server.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Raw samples.
    Samples {
        #[command(subcommand)]
        command: SamplesCommand,
    },
    /// Ask the tables in SQL.
    Sql {
        /// The query; - reads it from standard input.
        query: String,
        #[command(flatten)]
        answer: TableAnswer,
    },
    /// Search log lines: service=billing level>=error "pool".
    Logs {
        /// Conditions that all hold: field=value, field!=value, level>=error, words of the message.
        filter: Vec<String>,
        #[command(flatten)]
        time: Time,
        #[command(flatten)]
        answer: TableAnswer,
    },
    /// Show the spans of a trace.
    Trace {
        /// 32 hexadecimal digits.
        id: String,
        #[command(flatten)]
        answer: TableAnswer,
    },
    /// Ask a question that has a name: detect_anomalies, correlate_error_logs, check_recent_deployments.
    Ask {
        /// Its name; without one all are listed.
        name: Option<String>,
        /// One service only.
        #[arg(long)]
        service: Option<String>,
        /// Share of failed requests above which detect_anomalies shows a service.
        #[arg(long)]
        error_rate: Option<f64>,
        /// Milliseconds above which detect_anomalies shows a service's 99th percentile.
        #[arg(long)]
        p99_ms: Option<f64>,
        #[command(flatten)]
        time: Time,
        #[command(flatten)]
        answer: TableAnswer,
    },
    /// What the tables hold: files, rows, bytes, and what retention lets go next.
    #[command(args_conflicts_with_subcommands = true)]
    Lake {
        #[command(subcommand)]
        command: Option<LakeCommand>,
        #[command(flatten)]
        remote: Remote,
        #[arg(long)]
        json: bool,
    },
    /// Run a stored stretch through the configuration as it is now, and see what would be found.
    Replay(ReplayArgs),
    /// Copy a data folder, beside a running server or without one.
    Backup(BackupArgs),
    /// Make a data folder of a backup.
    Restore(RestoreArgs),
    /// Incidents: list, show, approve, reject, judge.
    Incidents {
        #[command(subcommand)]
        command: IncidentsCommand,
    },
    /// The durable log.
    Bus {
        #[command(subcommand)]
        command: BusCommand,
    },
    /// The audit book.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// The configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Put the server's walls up, then try to open files; for tests and auditors.
    #[command(hide = true)]
    ConfinedProbe {
        #[arg(long)]
        data: PathBuf,
        paths: Vec<PathBuf>,
    },
    /// List the points at which a crash test can aim.
    #[command(hide = true)]
    CrashPoints,
    /// Print the API's description (OpenAPI).
    #[command(hide = true)]
    Openapi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Pretty,
    Json,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where everything is kept.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Address of API, page and receivers; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Configuration file (YAML).
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// The executor's file (YAML, mode 0600, outside the data folder): targets and approvers.
    #[arg(long)]
    pub(crate) executor_config: Option<PathBuf>,
    /// Whether ports ask for credentials; `off` is accepted on loopback only.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub(crate) auth: Switch,
    /// Where the first administrator's token goes (mode 0600); stdout without it.
    #[arg(long)]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Form of log lines on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub(crate) log_format: LogFormat,
    /// What is logged: a level, or tracing directives.
    #[arg(long, default_value = "info")]
    pub(crate) log_level: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BackupArgs {
    /// The data folder.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Folder that gets one more backup; `backup.to` without it.
    #[arg(long)]
    pub(crate) to: Option<PathBuf>,
    /// How many are kept there; all without it.
    #[arg(long)]
    pub(crate) keep: Option<u32>,
    /// Say what would be copied, and copy nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Configuration file (YAML) of the server.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    #[arg(long)]
    pub(crate) json: bool,
    /// End with the supervisor that started it.
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RestoreArgs {
    /// A backup, or the folder with backups: then the newest.
    #[arg(long)]
    pub(crate) from: PathBuf,
    /// The data folder to be: new or empty.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Open everything afterwards and look through it.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Configuration file (YAML) of the server to be.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make one; it is shown once.
    Create {
        #[arg(long)]
        data: PathBuf,
        /// Who it stands for.
        #[arg(long)]
        principal: String,
        /// sender, viewer, responder or admin.
        #[arg(long)]
        role: String,
        #[arg(long, default_value = "main")]
        tenant: String,
        /// How long it is valid, such as 90d, 12h, 30m.
        #[arg(long)]
        expires: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// List all, without their secrets.
    List {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Revoke one; in force within a second.
    Revoke {
        #[arg(long)]
        data: PathBuf,
        id: String,
    },
}

/// A stretch of time.
#[derive(Clone, Debug, Args)]
pub(crate) struct Time {
    /// How far back, such as 1h, 30m, 7d.
    #[arg(long, default_value = "1h")]
    pub(crate) since: String,
    /// Up to when: RFC 3339; now without it.
    #[arg(long)]
    pub(crate) until: Option<String>,
    /// Rows at most.
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u32,
}

/// Where an answer comes from, and its form.
#[derive(Clone, Debug, Args)]
pub(crate) struct TableAnswer {
    #[arg(long, value_enum, default_value_t = TableFormat::Pretty)]
    pub(crate) format: TableFormat,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// Where a running server is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Remote {
    /// Address of the server.
    #[arg(long, env = "WARDROOM_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// Token for it.
    #[arg(long, env = "WARDROOM_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LakeCommand {
    /// Merge short files, let go what retention lets go, delete what nobody needs; the server does it by itself.
    Maintain(MaintainArgs),
    /// Judge the records of a request that were refused once more, by the limits as they are now.
    Redrive {
        /// Where the request stands on the bus: `offset` in silver.quarantine.
        offset: u64,
        #[command(flatten)]
        remote: Remote,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct MaintainArgs {
    /// The data folder; a server may be running on it.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Delete files that were replaced so long ago; older versions can be read until then.
    #[arg(long, default_value = "7d")]
    pub(crate) sweep_after: String,
    /// Also if that is less than a day.
    #[arg(long)]
    pub(crate) force: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Configuration file (YAML) of the server.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The data folder; a server may be running on it.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Incidents that opened from here on are told: RFC 3339, or how long ago, such as 2h.
    #[arg(long)]
    pub(crate) from: String,
    /// Up to here; now without it.
    #[arg(long)]
    pub(crate) to: Option<String>,
    /// So many times as fast as it happened; as fast as possible without it.
    #[arg(long)]
    pub(crate) speed: Option<f64>,
    /// How long before the stretch detection begins to learn what is normal.
    #[arg(long, default_value = "45m")]
    pub(crate) warm_up: String,
    /// Whose telemetry.
    #[arg(long, default_value = "main")]
    pub(crate) tenant: String,
    /// Configuration file (YAML) to try.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Folder for the tables of the outcome; below `replays` in the data folder without it.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DumpFormat {
    Promtool,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TableFormat {
    /// A table for people.
    Pretty,
    /// An array of objects.
    Json,
    /// Comma-separated, with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl TableFormat {
    /// As the API names it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SamplesCommand {
    /// Write every retained sample.
    Dump {
        #[arg(long, env = "WARDROOM_URL", conflicts_with = "data", required_unless_present = "data")]
        url: Option<String>,
        /// A data folder instead of a server.
        #[arg(long)]
        data: Option<PathBuf>,
        #[arg(long, env = "WARDROOM_TOKEN", hide_env_values = true)]
        token: Option<String>,
        /// Tenant, with --data.
        #[arg(long, default_value = "main")]
        tenant: String,
        /// Selectors such as up{job="node"}.
        #[arg(long = "match")]
        matchers: Vec<String>,
        /// RFC 3339 or seconds since the epoch.
        #[arg(long)]
        start: Option<String>,
        #[arg(long)]
        end: Option<String>,
        #[arg(long, value_enum, default_value_t = DumpFormat::Promtool)]
        format: DumpFormat,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum IncidentsCommand {
    /// Newest first.
    List {
        #[command(flatten)]
        remote: Remote,
        #[arg(long)]
        json: bool,
    },
    /// One incident.
    Show {
        id: String,
        #[command(flatten)]
        remote: Remote,
        #[arg(long)]
        json: bool,
    },
    /// Approve its plan; without a terminal --plan must name it.
    Approve {
        id: String,
        /// The plan's SHA-256.
        #[arg(long)]
        plan: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        remote: Remote,
        #[arg(long)]
        json: bool,
    },
    /// Reject its plan.
    Reject {
        id: String,
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        remote: Remote,
        #[arg(long)]
        json: bool,
    },
    /// Say whether it was real.
    Verdict {
        id: String,
        /// real, noise or wrong_cause.
        verdict: String,
        /// The right cause.
        #[arg(long)]
        cause: Option<String>,
        #[command(flatten)]
        remote: Remote,
        #[arg(long)]
        json: bool,
    },
    /// The postmortem in Markdown.
    Postmortem {
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BusCommand {
    /// Dead letters: records that detection could not take.
    Dlq {
        #[command(subcommand)]
        command: LettersCommand,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LettersCommand {
    /// All of them, oldest first.
    List {
        #[command(flatten)]
        remote: Remote,
        /// A data folder instead of a server.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Tenant, with --data.
        #[arg(long, default_value = "main")]
        tenant: String,
        #[arg(long)]
        json: bool,
    },
    /// One of them.
    Show {
        id: u64,
        #[command(flatten)]
        remote: Remote,
        #[arg(long)]
        json: bool,
    },
    /// Put one back on the bus; once, however often it is asked.
    Replay {
        id: u64,
        #[command(flatten)]
        remote: Remote,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Recompute the chain; exit 1 if it is broken.
    Verify {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// What is in force: defaults, file, environment.
    Show {
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Whether a file can be used.
    Check {
        #[arg(long)]
        config: PathBuf,
    },
    /// JSON Schema of the file.
    Schema,
}
