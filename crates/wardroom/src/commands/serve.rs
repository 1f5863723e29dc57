//! `wardroom serve`: the supervisor process, which starts the server and the executor.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use wardroom_roles::backup::BackupSchedule;
use wardroom_roles::config;
use wardroom_roles::data_lock::{DataLock, SERVE};
use wardroom_roles::executor::check_socket_path;
use wardroom_roles::supervisor::{DueBackup, QueryWorkerOptions, supervise};
use wardroom_roles::{Config, check_executor_files};

use crate::logging::LogArgs;
use wardroom_cli::output::CommandResult;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Run the server.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom serve --data /var/lib/wardroom --config wardroom.yaml --executor-config executor.yaml
  wardroom serve --data ./data --admin-token-file admin.token --log-format pretty")]
pub(crate) struct ServeArgs {
    /// The data folder.
    #[arg(long)]
    pub(super) data: PathBuf,
    /// Address of API, incident page and receivers; port 0 selects a free port.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(super) listen: SocketAddr,
    /// Configuration file (YAML).
    #[arg(long)]
    pub(super) config: Option<PathBuf>,
    /// Configuration file of the executor (YAML, mode 0600, outside the data folder): targets and approvers.
    #[arg(long)]
    pub(super) executor_config: Option<PathBuf>,
    /// Whether requests need credentials; `off` is accepted on loopback addresses only.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    auth: Switch,
    /// File for the first administrator's token (mode 0600); stdout if omitted.
    #[arg(long)]
    pub(super) admin_token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

impl ServeArgs {
    pub(super) fn auth_enabled(&self) -> bool {
        self.auth == Switch::On
    }
}

pub(crate) fn run(args: ServeArgs) -> CommandResult {
    args.log.init()?;
    // Validates the configuration before any process starts.
    let config = config::load_with_folders(args.config.as_deref())?;
    create_private_folder(&args.data)?;
    let lock = DataLock::acquire(&args.data, SERVE)?;
    // Free only once the server and the executor have ended, too, even if this process is killed.
    lock.inherit()?;
    if let Some(executor_config) = &args.executor_config {
        check_socket_path(&args.data)?;
        check_executor_files(&args.data, &config, executor_config)?;
    }
    let mut server = vec!["server".to_owned()];
    let query_workers = query_workers(&config, &args.data)?;
    if query_workers.is_some() {
        server.push("--query-workers".to_owned());
    }
    server.extend(std::env::args().skip(2));
    let schedule = BackupSchedule::new(config.backup, &args.data, args.config.as_deref());
    let due_backup = schedule.map(|schedule| -> Box<DueBackup> { Box::new(move || schedule.due_arguments()) });
    let code = supervise(&server, &args.data, args.executor_config.as_deref(), query_workers.as_ref(), due_backup)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Returns how query workers are started; `None` if there are no tables.
fn query_workers(config: &Config, data: &Path) -> anyhow::Result<Option<QueryWorkerOptions>> {
    if !config.lake.enabled {
        return Ok(None);
    }
    let is_remote = config.lake.folder(data)?.is_none();
    // Clients of object stores read their credentials from the environment; otherwise settings are all that is needed.
    #[expect(clippy::disallowed_methods, reason = "query workers get a selected part of the environment")]
    let environment = std::env::vars().filter(|(name, _)| is_remote || is_setting(name)).collect();
    let arguments = ["query-worker".to_owned()].into_iter().chain(std::env::args().skip(2)).collect();
    Ok(Some(QueryWorkerOptions { count: config.lake.query.workers, arguments, environment }))
}

/// Whether an environment variable overrides a field of the configuration.
fn is_setting(variable: &str) -> bool {
    variable.starts_with("WARDROOM_") && variable.contains("__")
}

/// Creates the data folder, accessible to its owner only.
pub(super) fn create_private_folder(data: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    let private = created.and_then(|()| std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700)));
    let named = |error: std::io::Error| {
        let detail = format!("data folder {}: {error}; it must be a folder that this user owns", data.display());
        std::io::Error::new(error.kind(), detail)
    };
    private.map_err(named)
}
