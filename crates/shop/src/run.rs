//! `shop run` and `shop status`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::arguments::RunArgs;
use crate::names::Role;
use crate::supervisor::Supervisor;
use crate::{control_api, load_generator};

/// Runs the shop until it receives SIGTERM or SIGINT.
///
/// # Errors
/// Returns an error if the arguments are invalid or a service or the control API cannot be started.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let supervisor = Arc::new(Supervisor::new(args)?);
    supervisor.start_all().await?;
    let control = control_api::listen(Arc::clone(&supervisor)).await?;
    supervisor.write_status(control).await?;
    for role in [Role::Storefront, Role::Newsletter] {
        let (rps, seed) = (supervisor.args.rps, supervisor.args.seed);
        tokio::spawn(load_generator::run(supervisor.url(role), rps, seed));
    }
    tokio::spawn(Arc::clone(&supervisor).restart_exited());
    tokio::spawn(Arc::clone(&supervisor).run_scenario());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    supervisor.kill_all().await;
    Ok(())
}

/// Prints the running services, from the folder's `run.json`.
///
/// # Errors
/// Returns an error if no shop was started in the folder.
pub(crate) async fn print_status(dir: &Path, as_json: bool) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(dir.join("run.json"))
        .map_err(|error| anyhow::anyhow!("no shop was started in {}: {error}", dir.display()))?;
    let status: serde_json::Value = serde_json::from_str(&text)?;
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{status}")?;
    } else {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
    }
    Ok(())
}
