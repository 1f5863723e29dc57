//! `wardroom incidents approve`: shows the plan, asks, and signs what was shown.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use wardroom_domain::Plan;
use wardroom_domain::approval_proof::{ProofAction, Statement};
use wardroom_process::clock;

use super::incident_text::incident_lines;
use crate::approver_key::{KeyArgs, Sign};
use crate::client::RemoteOutputArgs;
use crate::exit_code::NOT_CONFIRMED;
use crate::output::{CommandResult, print_line, print_prepared, stdout};

#[derive(Clone, Debug, Args)]
pub(super) struct ApproveArgs {
    /// Incident id, such as INC-1.
    id: String,
    /// SHA-256 of the plan.
    #[arg(long, value_name = "SHA256")]
    plan: Option<String>,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    /// Reason, for the timeline and the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Do not wait for a second person or the end of a freeze: an emergency. Needs --key and --reason, and another
    /// approver has to review it.
    #[arg(long, requires = "key")]
    break_glass: bool,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

pub(super) fn run(args: &ApproveArgs, sign: Sign) -> CommandResult {
    let (id, client) = (&args.id, args.remote.client());
    let plan_sha256 = match &args.plan {
        Some(plan) => plan.clone(),
        None if !std::io::stdin().is_terminal() => {
            bail!("without a terminal, --plan must give the plan's SHA-256; `wardroom incidents show {id}` prints it")
        }
        None => {
            let incident = client.get(&format!("/api/v1/incidents/{id}"))?;
            print_prepared(&incident_lines(&incident, &args.remote.output.presentation()))?;
            let plan = incident["plan_sha256"].as_str().map(str::to_owned);
            let plan = plan.with_context(|| format!("{id} has no plan to approve"))?;
            if !args.yes && !confirm("Approve this plan? [y/N] ")? {
                print_line("not approved")?;
                return Ok(ExitCode::from(NOT_CONFIRMED));
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
        body["proof"] = args.key.sign(&statement, sign)?;
    }
    args.remote.post(&format!("/api/v1/incidents/{id}/approve"), &body, |_| format!("{id} approved"))
}

/// Makes the statement about the plan of an incident, after computing the plan's hash here: what is signed is what the
/// fields say, not what the server says of them.
pub(super) fn plan_statement(
    incident: &Value,
    action: ProofAction,
    reason: Option<String>,
) -> anyhow::Result<Statement> {
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
