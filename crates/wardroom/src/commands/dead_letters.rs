//! `wardroom bus`: lists, shows and replays dead letters, and continues a bus that has lost records.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardroom_domain::{TenantId, visible_line};

use super::bus_new_epoch::{self, NewEpochArgs};
use crate::client::{RemoteArgs, RemoteJsonArgs};
use crate::output::{CommandResult, print_json, print_line};

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
    /// Continue a bus that has lost records after the highest offset that was processed; no server may be running.
    NewEpoch(NewEpochArgs),
}

#[derive(Clone, Debug, Subcommand)]
enum DeadLettersCommand {
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
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter.
    Show {
        /// Number of the dead letter.
        id: u64,
        #[command(flatten)]
        remote: RemoteJsonArgs,
    },
    /// Append a dead letter to the bus again; repeated calls append it once.
    Replay {
        /// Number of the dead letter.
        id: u64,
        #[command(flatten)]
        remote: RemoteJsonArgs,
    },
}

pub(crate) fn run(args: BusArgs) -> CommandResult {
    match args.command {
        BusCommand::Dlq { command } => run_dead_letters(command),
        BusCommand::NewEpoch(args) => bus_new_epoch::run(&args),
    }
}

fn run_dead_letters(command: DeadLettersCommand) -> CommandResult {
    match command {
        DeadLettersCommand::List { remote, data, tenant, json } => {
            let response = match data {
                Some(data) => {
                    let tenant = TenantId::new(tenant).map_err(|error| anyhow::anyhow!("--tenant: {error}"))?;
                    json!({ "dead_letters": wardroom_roles::dead_letters(&data, &tenant)? })
                }
                None => remote.client().get("/api/v1/dead-letters")?,
            };
            if json {
                print_json(&response)?;
            } else {
                for dead_letter in response["dead_letters"].as_array().into_iter().flatten() {
                    print_line(format_row(dead_letter))?;
                }
            }
        }
        DeadLettersCommand::Show { id, remote } => {
            let response = remote.client().get(&format!("/api/v1/dead-letters/{id}"))?;
            print_json(if remote.json { response.to_string() } else { serde_json::to_string_pretty(&response)? })?;
        }
        DeadLettersCommand::Replay { id, remote } => {
            let response = remote.client().post(&format!("/api/v1/dead-letters/{id}/replay"), &json!({}))?;
            remote.print(&response, &format!("{id} was appended to the bus at {}", response["offset"]))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn format_row(dead_letter: &Value) -> String {
    let text = |key: &str| visible_line(dead_letter[key].as_str().unwrap_or_default());
    let state = match &dead_letter["replayed_as"] {
        Value::Null => "pending".to_owned(),
        offset => format!("replayed as {offset}"),
    };
    format!("{:>4}  {}  {:24}  {}  {state}", dead_letter["id"], text("last_try"), text("protocol"), text("reason"))
}
