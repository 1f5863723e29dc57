//! `wardroom incidents`.

mod approve;
mod incident_changes;
mod incident_creation;
mod incident_filter;
mod incident_text;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardroom_domain::approval_proof::ProofAction;

use crate::approver_key::{KeyArgs, Sign};
use crate::client::{RemoteArgs, RemoteOutputArgs};
use crate::columns::{Column, severity_tone, state_tone};
use crate::output::{CommandResult, print_line, print_prepared, print_result};
use crate::presentation::Presentation;
use crate::watch::{WatchArgs, Watched};

use approve::{ApproveArgs, plan_statement};
use incident_changes::{AssignArgs, ChangedArgs, CommentArgs, DecideArgs, HistoryArgs, MergeArgs, SuppressArgs};
use incident_creation::{CreateArgs, SplitArgs};
use incident_filter::FilterArgs;
use incident_text::incident_lines;

/// Incidents: list, show, work on them, decide about their plans.
#[derive(Clone, Debug, Args)]
pub struct IncidentsArgs {
    #[command(subcommand)]
    command: IncidentsCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum IncidentsCommand {
    /// List incidents, newest first.
    #[command(after_help = "\
Examples:
  wardroom incidents list --active
  wardroom incidents list --state escalated --severity critical,high --since 24h
  wardroom incidents list --entity checkout -o wide
  wardroom incidents list --watch
  wardroom incidents list -o json | jq -r '.incidents[].id'")]
    List {
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Show one incident: cause, plan, policy, timeline.
    #[command(after_help = "\
Examples:
  wardroom incidents show INC-1
  wardroom incidents show INC-1 --watch
  wardroom incidents show INC-1 -o json | jq -r .plan_sha256")]
    Show {
        /// Incident id, such as INC-1.
        id: String,
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Open an incident by hand: it is diagnosed like one that was detected.
    #[command(after_help = "\
Examples:
  wardroom incidents create 'orders are late' --entity checkout
  wardroom incidents create 'the vendor is down' --entity external:api.example.com --severity critical --began 20m
  wardroom incidents create 'slow queries' --entity database:orders --description 'seen by support' -o json")]
    Create(CreateArgs),
    /// Approve the plan of an incident; without a terminal, --plan is required.
    #[command(after_help = "\
Examples:
  wardroom incidents approve INC-1 --key ~/.ssh/id_ed25519.pub
  wardroom incidents approve INC-1 --plan SHA256 --key approver.key --reason 'seen in the dashboard'
  wardroom incidents approve INC-1 --break-glass --key approver.key --reason 'the site is down'")]
    Approve(ApproveArgs),
    /// Confirm that an execution by break-glass was reviewed, by another approver than who approved it.
    #[command(after_help = "Example:\n  wardroom incidents review INC-1 --key ~/.ssh/id_ed25519.pub")]
    Review {
        /// Incident id, such as INC-1.
        id: String,
        #[command(flatten)]
        key: KeyArgs,
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Reject the plan of an incident.
    #[command(
        after_help = "Example:\n  wardroom incidents reject INC-1 --reason 'the deployment is being rolled back'"
    )]
    Reject(DecideArgs),
    /// Acknowledge an incident: a person works on it.
    #[command(after_help = "Example:\n  wardroom incidents ack INC-1")]
    Ack(ChangedArgs),
    /// Assign an incident to a person, or to none.
    #[command(after_help = "\
Examples:
  wardroom incidents assign INC-1 --to alice
  wardroom incidents assign INC-1 --unassign")]
    Assign(AssignArgs),
    /// Add a comment.
    #[command(after_help = "Example:\n  wardroom incidents comment INC-1 'the vendor confirms an outage'")]
    Comment(CommentArgs),
    /// Note that an incident is the same as another one; an escalated one is closed.
    #[command(after_help = "Example:\n  wardroom incidents merge INC-2 --into INC-1 --reason 'same disk'")]
    Merge(MergeArgs),
    /// Make another incident of some entities of an incident.
    #[command(after_help = "\
Examples:
  wardroom incidents split INC-1 --entity mail --reason 'another fault'
  wardroom incidents split INC-1 --entity database:orders --entity reports --title 'orders: replication stopped'")]
    Split(SplitArgs),
    /// Investigate an incident again that is resolved, suppressed or closed.
    #[command(after_help = "Example:\n  wardroom incidents reopen INC-1 --reason 'it is back'")]
    Reopen(DecideArgs),
    /// Send no messages about an incident for a time.
    #[command(after_help = "Example:\n  wardroom incidents suppress INC-1 --for 4h --reason 'planned work'")]
    Suppress(SuppressArgs),
    /// List who has changed what, oldest first.
    #[command(after_help = "Example:\n  wardroom incidents history INC-1 -o wide")]
    History(HistoryArgs),
    /// Close an escalated incident.
    #[command(after_help = "Example:\n  wardroom incidents close INC-1 --reason 'mended by hand'")]
    Close(DecideArgs),
    /// Record whether an incident was real.
    #[command(after_help = "\
Examples:
  wardroom incidents verdict INC-1 real
  wardroom incidents verdict INC-1 wrong_cause --cause 'the disk of db-2 was full'")]
    Verdict {
        /// Incident id, such as INC-1.
        id: String,
        /// real, noise or wrong_cause.
        #[arg(value_parser = ["real", "noise", "wrong_cause"])]
        verdict: String,
        /// The actual cause.
        #[arg(long)]
        cause: Option<String>,
        #[command(flatten)]
        remote: RemoteOutputArgs,
    },
    /// Print the postmortem in Markdown.
    #[command(after_help = "Example:\n  wardroom incidents postmortem INC-1 > INC-1.md")]
    Postmortem {
        /// Incident id, such as INC-1.
        id: String,
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// Columns of the list.
const COLUMNS: &[Column] = &[
    Column::text("ID", "/id"),
    Column::text("STATE", "/state").toned(state_tone),
    Column::text("SEVERITY", "/severity").toned(severity_tone),
    Column::time("OPENED", "/opened_at"),
    Column::time("UPDATED", "/updated_at").wide(),
    Column::text("OWNER", "/owner").wide(),
    Column::made("ENTITIES", entity_names).wide(),
    Column::text("TITLE", "/title"),
];

fn entity_names(incident: &Value) -> String {
    let names = incident["entities"].as_array().into_iter().flatten();
    let names = names.map(|it| {
        let text = |key: &str| it[key].as_str().unwrap_or_default();
        format!("{}:{}", text("kind"), text("name"))
    });
    names.collect::<Vec<_>>().join(",")
}

/// Runs the command; `sign` makes the proof of an approval.
///
/// # Errors
/// Returns an error if the server does not answer, or does not accept it.
pub fn run(args: IncidentsArgs, sign: Sign) -> CommandResult {
    match args.command {
        IncidentsCommand::List { filter, watch, remote } => {
            let (client, filter) = (remote.client(), filter.parse()?);
            let watched = Watched { rows: "incidents", id: "/id", columns: COLUMNS };
            watch.print_list(|| filter.fetch(&client), &watched, &remote.output)
        }
        IncidentsCommand::Show { id, watch, remote } => {
            let client = remote.client();
            let fetch = || client.get(&format!("/api/v1/incidents/{id}"));
            let print = |incident: &Value, presentation: &Presentation| {
                Ok(print_prepared(&incident_lines(incident, presentation))?)
            };
            watch.print_one(fetch, print, &remote.output)
        }
        IncidentsCommand::Approve(args) => approve::run(&args, sign),
        IncidentsCommand::Review { id, key, remote } => {
            let client = remote.client();
            let incident = client.get(&format!("/api/v1/incidents/{id}"))?;
            let statement = plan_statement(&incident, ProofAction::Review, None)?;
            let proof = json!({ "proof": key.sign(&statement, sign)? });
            client.post(&format!("/api/v1/incidents/{id}/review"), &proof)?;
            print_result(&json!({ "reviewed": id }), format!("{id} reviewed"), &remote.output)
        }
        IncidentsCommand::Reject(args) => args.send("reject", "rejected"),
        IncidentsCommand::Ack(args) => args.send("acknowledge", &json!({}), "acknowledged"),
        IncidentsCommand::Assign(args) => args.send(),
        IncidentsCommand::Comment(args) => args.send(),
        IncidentsCommand::Create(args) => args.send(),
        IncidentsCommand::Merge(args) => args.send(),
        IncidentsCommand::Split(args) => args.send(),
        IncidentsCommand::Reopen(args) => args.send("reopen", "is investigated again"),
        IncidentsCommand::Suppress(args) => args.send(),
        IncidentsCommand::History(args) => args.print(),
        IncidentsCommand::Close(args) => args.send("close", "closed"),
        IncidentsCommand::Verdict { id, verdict, cause, remote } => {
            let body = json!({ "verdict": verdict, "cause": cause });
            remote.post(&format!("/api/v1/incidents/{id}/verdict"), &body, |_| format!("{id}: {verdict}"))
        }
        IncidentsCommand::Postmortem { id, remote } => {
            print_line(remote.client().get_text(&format!("/api/v1/incidents/{id}/postmortem"))?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
