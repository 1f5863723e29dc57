//! `wardroom incidents`.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardroom_domain::approval_proof::{ProofAction, Statement};
use wardroom_domain::{Plan, visible_line};
use wardroom_roles::clock;

use crate::approver_key::KeyArgs;
use crate::client::{RemoteArgs, RemoteJsonArgs};
use crate::output::{CommandResult, print_json, print_line, stdout};

/// Exit code of `approve` if the user does not confirm.
const NOT_CONFIRMED_EXIT_CODE: u8 = 3;

/// Incidents: list, show, approve, reject, close, verdict, postmortem.
#[derive(Clone, Debug, Args)]
pub(crate) struct IncidentsArgs {
    #[command(subcommand)]
    command: IncidentsCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum IncidentsCommand {
    /// List incidents, newest first.
    List {
        #[command(flatten)]
        remote: RemoteJsonArgs,
    },
    /// Show one incident.
    Show {
        /// Incident id, such as INC-1.
        id: String,
        #[command(flatten)]
        remote: RemoteJsonArgs,
    },
    /// Approve the plan of an incident; without a terminal, --plan is required.
    Approve(ApproveArgs),
    /// Confirm that an execution by break-glass was reviewed, by another approver than who approved it.
    Review {
        /// Incident id, such as INC-1.
        id: String,
        #[command(flatten)]
        key: KeyArgs,
        #[command(flatten)]
        remote: RemoteJsonArgs,
    },
    /// Reject the plan of an incident.
    Reject {
        /// Incident id, such as INC-1.
        id: String,
        /// Reason, for the timeline and the audit log.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        remote: RemoteJsonArgs,
    },
    /// Close an escalated incident.
    Close {
        /// Incident id, such as INC-1.
        id: String,
        /// Reason, for the timeline and the audit log.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        remote: RemoteJsonArgs,
    },
    /// Record whether an incident was real.
    Verdict {
        /// Incident id, such as INC-1.
        id: String,
        /// real, noise or wrong_cause.
        verdict: String,
        /// The actual cause.
        #[arg(long)]
        cause: Option<String>,
        #[command(flatten)]
        remote: RemoteJsonArgs,
    },
    /// Print the postmortem in Markdown.
    Postmortem {
        /// Incident id, such as INC-1.
        id: String,
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

#[derive(Clone, Debug, Args)]
struct ApproveArgs {
    /// Incident id, such as INC-1.
    id: String,
    /// SHA-256 of the plan.
    #[arg(long)]
    plan: Option<String>,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    /// Reason, for the timeline and the audit log.
    #[arg(long, default_value = "")]
    reason: String,
    /// Do not wait for a second person or the end of a freeze: an emergency. Needs --key and --reason, and another
    /// approver has to review it.
    #[arg(long, requires = "key")]
    break_glass: bool,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    remote: RemoteJsonArgs,
}

pub(crate) fn run(args: IncidentsArgs) -> CommandResult {
    match args.command {
        IncidentsCommand::List { remote } => {
            let response = remote.client().get("/api/v1/incidents")?;
            if remote.json {
                print_json(&response)?;
            } else {
                for item in response["incidents"].as_array().into_iter().flatten() {
                    let text = |key: &str| visible_line(item[key].as_str().unwrap_or_default());
                    let (id, state, severity, title) = (text("id"), text("state"), text("severity"), text("title"));
                    print_line(format!("{id:8} {state:18} {severity:9} {title}"))?;
                }
            }
        }
        IncidentsCommand::Show { id, remote } => {
            let response = remote.client().get(&format!("/api/v1/incidents/{id}"))?;
            if remote.json { print_json(&response)? } else { print_incident(&response)? }
        }
        IncidentsCommand::Approve(args) => return approve(&args),
        IncidentsCommand::Review { id, key, remote } => {
            let client = remote.client();
            let incident = client.get(&format!("/api/v1/incidents/{id}"))?;
            let statement = plan_statement(&incident, ProofAction::Review, None)?;
            client.post_without_answer(
                &format!("/api/v1/incidents/{id}/review"),
                &json!({ "proof": key.sign(&statement)? }),
            )?;
            remote.print(&json!({ "reviewed": id }), &format!("{id} reviewed"))?;
        }
        IncidentsCommand::Reject { id, reason, remote } => {
            let body = json!({ "reason": reason });
            let response = remote.client().post(&format!("/api/v1/incidents/{id}/reject"), &body)?;
            remote.print(&response, &format!("{id} rejected"))?;
        }
        IncidentsCommand::Close { id, reason, remote } => {
            let body = json!({ "reason": reason });
            let response = remote.client().post(&format!("/api/v1/incidents/{id}/close"), &body)?;
            remote.print(&response, &format!("{id} closed"))?;
        }
        IncidentsCommand::Verdict { id, verdict, cause, remote } => {
            let body = json!({ "verdict": verdict, "cause": cause });
            let response = remote.client().post(&format!("/api/v1/incidents/{id}/verdict"), &body)?;
            remote.print(&response, &format!("{id}: {verdict}"))?;
        }
        IncidentsCommand::Postmortem { id, remote } => {
            print_line(remote.client().get_text(&format!("/api/v1/incidents/{id}/postmortem"))?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn approve(args: &ApproveArgs) -> CommandResult {
    let (id, client) = (&args.id, args.remote.client());
    let plan_sha256 = match &args.plan {
        Some(plan) => plan.clone(),
        None if !std::io::stdin().is_terminal() => {
            bail!("without a terminal, --plan must give the plan's SHA-256; `wardroom incidents show {id}` prints it")
        }
        None => {
            let incident = client.get(&format!("/api/v1/incidents/{id}"))?;
            print_incident(&incident)?;
            let plan = incident["plan_sha256"].as_str().map(str::to_owned);
            let plan = plan.with_context(|| format!("{id} has no plan to approve"))?;
            if !args.yes && !confirm("Approve this plan? [y/N] ")? {
                print_line("not approved")?;
                return Ok(ExitCode::from(NOT_CONFIRMED_EXIT_CODE));
            }
            plan
        }
    };
    let mut body = json!({ "plan_sha256": plan_sha256, "reason": args.reason, "channel": "cli" });
    if args.key.is_given() {
        // Signed is what the server shows now, if its hash is the approved one.
        let incident = client.get(&format!("/api/v1/incidents/{id}"))?;
        let reason = args.break_glass.then(|| args.reason.clone());
        let action = if args.break_glass { ProofAction::BreakGlass } else { ProofAction::Approve };
        let statement = plan_statement(&incident, action, reason)?;
        if statement.plan_sha256.as_ref() != Some(&plan_sha256) {
            bail!("the pending plan of {id} is another one; `wardroom incidents show {id}` prints it");
        }
        body["proof"] = args.key.sign(&statement)?;
    }
    let response = client.post(&format!("/api/v1/incidents/{id}/approve"), &body)?;
    args.remote.print(&response, &format!("{id} approved"))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the statement about the plan of an incident, after computing the plan's hash here: what is signed is what the
/// fields say, not what the server says of them.
fn plan_statement(incident: &Value, action: ProofAction, reason: Option<String>) -> anyhow::Result<Statement> {
    let plan: Plan =
        serde_json::from_value(incident["plan"]["document"].clone()).context("the incident has no plan")?;
    let sha256 = plan.sha256().map_err(anyhow::Error::msg)?;
    if incident["plan_sha256"].as_str() != Some(&sha256) {
        bail!("the server shows a plan whose hash is {sha256}, and says that it is {}", incident["plan_sha256"]);
    }
    let statement = Statement::about_plan(action, plan.tenant, plan.incident, sha256, clock::now());
    Ok(Statement { reason, ..statement })
}

fn confirm(question: &str) -> anyhow::Result<bool> {
    write!(stdout(), "{question}")?;
    stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str()))
}

fn print_incident(incident: &Value) -> std::io::Result<()> {
    let text = |value: &Value| visible_line(value.as_str().unwrap_or_default()).into_owned();
    print_line(format!("{}  {}  ({})", text(&incident["id"]), text(&incident["title"]), text(&incident["state"])))?;
    let entities = incident["entities"].as_array().into_iter().flatten();
    let entities: Vec<_> = entities.map(|it| format!("{} {}", text(&it["kind"]), text(&it["name"]))).collect();
    print_line(format!("affects {}", entities.join(", ")))?;
    if let Some(cause) = incident["hypotheses"].get(0) {
        let confidence = cause["confidence"].as_f64().unwrap_or_default() * 100.0;
        print_line(format!(
            "cause   {} at {} ({confidence:.0} %): {}",
            text(&cause["rule"]),
            text(&cause["entity"]["name"]),
            text(&cause["reasoning"])
        ))?;
        for check in cause["next_checks"].as_array().into_iter().flatten() {
            print_line(format!("        check: {}", text(check)))?;
        }
    }
    if let Some(plan) = incident["plan"].as_object() {
        let field = |key: &str| plan.get(key).map(text).unwrap_or_default();
        print_line(format!("plan    {} {} of {}", field("tool"), field("operation"), field("target")))?;
        print_line(format!("        {}; risk {}; {}", field("diff"), field("risk"), field("blast_radius")))?;
        print_line(format!("        sha256 {}", field("plan_sha256")))?;
    }
    if let Some(policy) = incident["policy"].as_object() {
        let field = |key: &str| policy.get(key).map(text).unwrap_or_default();
        let rules: Vec<String> = policy["rules"].as_array().into_iter().flatten().map(text).collect();
        print_line(format!("policy  {}: {} ({})", field("answer"), field("reason"), rules.join(", ")))?;
    }
    if let Some(approval) = incident["approval"].as_object() {
        let field = |key: &str| approval.get(key).map(text).unwrap_or_default();
        let reason = Some(field("reason")).filter(|reason| !reason.is_empty());
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        print_line(format!("approved by {} at {} ({}){reason}", field("by"), field("at"), field("channel")))?;
    }
    for item in incident["timeline"].as_array().into_iter().flatten() {
        print_line(format!("{}  {}", text(&item["at"]), text(&item["text"])))?;
    }
    Ok(())
}
