//! `wardroom lake verify`: reads all files of the tables and compares them with their checksums.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use wardroom_roles::lake_tables::missing_tables;
use wardroom_roles::{Lake, TableVerification, VerificationProgress, config};

use crate::blocking::block_on;
use wardroom_cli::output::{CommandResult, print_document, print_line};
use wardroom_cli::presentation::OutputArgs;

#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The data folder; a server may be running on it.
    #[arg(long)]
    data: PathBuf,
    /// Configuration file (YAML) of the server.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &VerifyArgs) -> CommandResult {
    let config = config::load(args.config.as_deref())?;
    let (tables, missing) = block_on(async {
        let lake = Lake::open_read_only(&config.lake, &args.data).await?;
        let lake = lake.with_context(|| format!("{} has no tables", args.data.display()))?;
        lake.check_series().await?;
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template(
            "{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec}  {wide_msg}",
        )?);
        let tables = lake.verify(|progress| match progress {
            VerificationProgress::Table { table, bytes } => {
                bar.inc_length(bytes);
                bar.set_message(table);
            }
            VerificationProgress::Bytes(bytes) => bar.inc(bytes),
        });
        let tables = tables.await?;
        bar.finish_and_clear();
        Ok((tables, missing_tables(&args.data, &lake)?))
    })?;
    let damaged: Vec<_> = missing.iter().chain(tables.iter().flat_map(|table| &table.damaged)).collect();
    if args.output.is_document() {
        let files = damaged.iter().map(|file| json!({ "file": file.path, "detail": file.detail }));
        let document = json!({ "ok": damaged.is_empty(), "tables": tables.iter().map(table_json).collect::<Vec<_>>(),
            "damaged": files.collect::<Vec<_>>() });
        print_document(&document, &args.output.presentation())?;
    } else {
        tables.iter().try_for_each(|table| print_line(describe(table)))?;
        for file in &damaged {
            print_line(format!("damaged: {}: {}", file.path, file.detail))?;
        }
        if damaged.is_empty() {
            print_line("all files are intact")?;
        } else {
            print_line(format!(
                "damaged files: {}. A file never changes: put back the one of the same name from a backup or a replica",
                damaged.len()
            ))?;
        }
    }
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table_json(table: &TableVerification) -> Value {
    json!({ "table": table.table, "version": table.version, "files": table.files, "rows": table.rows,
        "bytes": table.bytes, "without_checksum": table.unchecked, "damaged": table.damaged.len() })
}

fn describe(table: &TableVerification) -> String {
    let TableVerification { table, version, files, rows, bytes, unchecked, .. } = table;
    let unchecked = match unchecked {
        0 => String::new(),
        count => format!(", {count} files of other programs without a checksum"),
    };
    format!("{table:20} version {version}, {files} files, {rows} rows, {}{unchecked}", HumanBytes(*bytes))
}
