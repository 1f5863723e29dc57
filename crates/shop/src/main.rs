//! A small shop with injected faults, for Wardroom's demo and tests.
//!
//! Eight services, each in its own process, call each other over HTTP. A supervisor starts them, keeps their versions
//! and settings, restarts those that exit, and serves a control API. The seed decides which fault is injected, where
//! and when, and what was deployed before; only `truth.json` contains the ground truth.
//!
//! ```text
//!  load ─► storefront ─┬─► cart ──────┐
//!                      ├─► catalogue ─┼─► database        load ─► newsletter  (connected to no other service)
//!                      └─► payments ──┘
//!                             └─► queue ◄── fulfilment
//! ```
//!
//! It does not depend on Wardroom: it sends metrics by Prometheus remote_write, and logs and deployments as JSON, or
//! all but the deployments by OTLP, to the addresses on its command line.

#![forbid(unsafe_code)]

mod arguments;
mod control_api;
mod faults;
mod ledger;
mod load_generator;
mod names;
mod otlp;
mod run;
mod scenario;
mod service;
mod supervisor;
mod telemetry;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use arguments::RunArgs;

/// A small shop with injected faults.
#[derive(Debug, Parser)]
#[command(name = "shop", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the shop until it receives SIGTERM or SIGINT.
    Run(Box<RunArgs>),
    /// Print the running services.
    Status {
        /// The shop's folder.
        #[arg(long)]
        dir: PathBuf,
        /// Print one JSON object on one line.
        #[arg(long)]
        json: bool,
    },
    /// Run one service; started by `run`, which writes its specification to standard input.
    #[command(hide = true)]
    Service,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(*args).await,
            Command::Status { dir, json } => run::print_status(&dir, json).await,
            Command::Service => service::run().await,
        }
    })
}
