//! `wardroom bus`: lists, shows and replays dead letters, and continues a bus that has lost records.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use wardroom_domain::TenantId;

use super::bus_new_epoch::{self, NewEpochArgs};
use wardroom_cli::client::RemoteArgs;
use wardroom_cli::dead_letters::{self, DeadLetterArgs};
use wardroom_cli::output::CommandResult;
use wardroom_cli::presentation::OutputArgs;

/// The bus, the durable log of ingested requests.
#[derive(Clone, Debug, Args)]
pub(crate) struct BusArgs {
    #[command(subcommand)]
    command: BusCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum BusCommand {
    /// Dead letters: records that detection could not process.
    Dlq {
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    #[command(after_help = "Example:\n  wardroom bus new-epoch --data /var/lib/wardroom")]
    /// Continue a bus that has lost records after the highest offset that was processed; no server may be running.
    NewEpoch(NewEpochArgs),
}

#[derive(Clone, Debug, Subcommand)]
enum DeadLettersCommand {
    #[command(after_help = "\
Examples:
  wardroom bus dlq list
  wardroom bus dlq list --data /var/lib/wardroom")]
    /// List dead letters, oldest first.
    List {
        #[command(flatten)]
        remote: RemoteArgs,
        /// Read this data folder instead of querying a server.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Tenant, with --data.
        #[arg(long, default_value = "main")]
        tenant: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    #[command(after_help = "Example:\n  wardroom bus dlq show 0")]
    /// Show one dead letter.
    Show(DeadLetterArgs),
    #[command(after_help = "Example:\n  wardroom bus dlq replay 0")]
    /// Append a dead letter to the bus again; repeated calls append it once.
    Replay(DeadLetterArgs),
}

pub(crate) fn run(args: BusArgs) -> CommandResult {
    match args.command {
        BusCommand::Dlq { command } => run_dead_letters(command),
        BusCommand::NewEpoch(args) => bus_new_epoch::run(&args),
    }
}

fn run_dead_letters(command: DeadLettersCommand) -> CommandResult {
    match command {
        DeadLettersCommand::List { remote, data, tenant, output } => {
            let response = match data {
                Some(data) => {
                    let tenant = TenantId::new(tenant).map_err(|error| anyhow::anyhow!("--tenant: {error}"))?;
                    json!({ "dead_letters": wardroom_roles::dead_letters(&data, &tenant)? })
                }
                None => remote.client().get("/api/v1/dead-letters")?,
            };
            dead_letters::print_list(&response, &output)
        }
        DeadLettersCommand::Show(args) => dead_letters::show(&args),
        DeadLettersCommand::Replay(args) => dead_letters::replay(&args),
    }
}
