//! `wardroom lake maintain`: runs table maintenance now, with a dry run.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;
use wardroom_roles::config;
use wardroom_roles::data_lock::DataLock;
use wardroom_roles::{Lake, MaintenanceKind, MaintenanceTask, VacuumPolicy, clock};

use crate::blocking::block_on;
use wardroom_cli::duration::parse_duration;
use wardroom_cli::output::{CommandResult, print_document, print_line};
use wardroom_cli::presentation::OutputArgs;

#[derive(Clone, Debug, Args)]
pub(crate) struct MaintainArgs {
    /// The data folder; a server may be running on it.
    #[arg(long)]
    data: PathBuf,
    /// Delete files that were replaced longer ago than this; older table versions stay readable until then.
    #[arg(long, default_value = "7d")]
    sweep_after: String,
    /// Accept a --sweep-after of less than a day.
    #[arg(long)]
    force: bool,
    /// Print the tasks without running them.
    #[arg(long)]
    dry_run: bool,
    /// Configuration file (YAML) of the server.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &MaintainArgs) -> CommandResult {
    let config = config::load(args.config.as_deref())?;
    let keep = parse_duration("--sweep-after", &args.sweep_after)?;
    let policy = VacuumPolicy::after(clock::now(), keep, args.force)?;
    let dry_run = args.dry_run;
    let _lock = if dry_run { None } else { DataLock::acquire_beside_server(&args.data, "lake maintain")? };
    let tasks = block_on(async {
        let lake = Lake::open_for_maintenance(&config.lake, &args.data).await?;
        let lake = lake.with_context(|| format!("{} has no tables", args.data.display()))?;
        let tasks = lake.due_tasks(Some(policy)).await?;
        if dry_run {
            return Ok(tasks);
        }
        let bar = ProgressBar::new(tasks.len() as u64);
        bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len}  {wide_msg}")?);
        for task in &tasks {
            bar.set_message(describe(task));
            lake.run_task(task).await.with_context(|| describe(task))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(tasks)
    })?;
    if args.output.is_document() {
        let tasks = tasks.iter().map(|task| {
            json!({ "table": task.table, "what": task.kind.as_str(), "files": task.files, "rows": task.rows,
                "bytes": task.bytes })
        });
        let document = json!({ "dry_run": dry_run, "chores": tasks.collect::<Vec<_>>() });
        print_document(&document, &args.output.presentation())?;
        return Ok(ExitCode::SUCCESS);
    }
    tasks.iter().try_for_each(|task| print_line(describe(task)))?;
    print_line(format!("{} tasks {}", tasks.len(), if dry_run { "due" } else { "done" }))?;
    Ok(ExitCode::SUCCESS)
}

fn describe(task: &MaintenanceTask) -> String {
    let MaintenanceTask { table, kind, files, rows, bytes, .. } = task;
    let effect = match kind {
        MaintenanceKind::Expire => "past retention",
        MaintenanceKind::Vacuum(_) => return format!("{table:22} sweep   {files} unreferenced files"),
        MaintenanceKind::Merge | MaintenanceKind::Join => "to compact",
    };
    format!("{table:22} {:7} {files} files with {rows} rows, {} {effect}", kind.as_str(), HumanBytes(*bytes))
}
