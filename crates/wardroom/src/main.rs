//! Wardroom, a self-hosted incident response agent in one binary.
//!
//! ```text
//! serve ─► supervisor ─┬─► server (sandboxed)      sql, incidents, … ─► client ─► HTTP API of a running server
//!                      ├─► executor                 token, backup, …  ─► the data folder
//!                      └─► backup, when due
//! ```
//!
//! `wardroom serve` ingests telemetry, detects and diagnoses incidents, proposes plans, and executes approved plans.
//! The other commands query a running server, or work on its data folder. Each command is one file in `commands`.

#![forbid(unsafe_code)]

mod approver_key;
mod blocking;
mod commands;
mod copy_progress;
mod logging;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use commands::Cli;

fn main() -> ExitCode {
    wardroom_cli::output::finish(Cli::parse().command.run())
}
