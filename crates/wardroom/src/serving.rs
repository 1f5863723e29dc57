//! `wardroom serve` and the two processes it starts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use wardroom_roles::{ServeError, ServeOptions};

use crate::options::{LogFormat, ServeArgs, Switch};
use crate::supervisor;
use crate::{backup, configuration};

/// The process the user started: it starts the others and passes signals on.
pub(crate) fn supervise(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    log_to_stderr(args)?;
    // Mistakes are told before anything is started.
    let config = configuration::load(args.config.as_deref())?;
    private_folder(&args.data)?;
    let mut server = vec!["server".to_owned()];
    server.extend(std::env::args().skip(2));
    let backups = backup::Daily::new(config.backup, &args.data, args.config.as_deref());
    let code = supervisor::supervise(&server, &args.data, args.executor_config.as_deref(), backups)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// The confined server.
pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    hear_signals()?;
    log_to_stderr(args)?;
    let config = configuration::load(args.config.as_deref())?;
    private_folder(&args.data)?;
    let options = ServeOptions {
        data: args.data.clone(),
        listen: args.listen,
        auth: if args.auth == Switch::On { wardroom_roles::AuthMode::On } else { wardroom_roles::AuthMode::Off },
        admin_token_file: args.admin_token_file.clone(),
        executor: args.executor_config.is_some(),
    };
    let mut out = std::io::stdout();
    let announce = |line: String| {
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            tracing::warn!(%error, "stdout is closed");
        }
    };
    match wardroom_roles::serve(options, config, announce, told_to_stop) {
        Err(again @ ServeError::Again) => {
            tracing::info!("{again}");
            Ok(ExitCode::from(supervisor::AGAIN))
        }
        served => Ok(served.map(|()| ExitCode::SUCCESS)?),
    }
}

/// The executor.
pub(crate) fn execute(data: &Path, config: &Path) -> anyhow::Result<ExitCode> {
    hear_signals()?;
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    wardroom_roles::executor::run(data, config)?;
    Ok(ExitCode::SUCCESS)
}

/// The supervisor blocks the signals it waits for, and children inherit that.
pub(crate) fn hear_signals() -> nix::Result<()> {
    nix::sys::signal::SigSet::all().thread_unblock()
}

/// What the confined server could open: the same walls, put up here.
pub(crate) fn probe(data: &Path, paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let isolation = wardroom_roles::isolation::confine_server(data, None, &[]);
    anyhow::ensure!(isolation == wardroom_roles::isolation::Isolation::Landlock, "this kernel has no Landlock");
    for path in paths {
        let opened = std::fs::File::open(path).is_ok();
        writeln!(std::io::stdout(), "{} {}", path.display(), if opened { "opened" } else { "refused" })?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn told_to_stop() {
    let waiting = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = waiting else {
        tracing::error!("signals cannot be waited for; stop with SIGKILL");
        return std::future::pending().await;
    };
    // A Ctrl-C in a terminal reaches this process too; the supervisor's SIGTERM follows.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn log_to_stderr(args: &ServeArgs) -> anyhow::Result<()> {
    // The lake's library tells every snapshot it reads at INFO.
    let levels = format!("buoyant_kernel=warn,deltalake_core=warn,datafusion=warn,{}", args.log_level);
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(levels)?).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Pretty => builder.init(),
    }
    Ok(())
}

/// The data folder is its owner's alone.
fn private_folder(data: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))
}
