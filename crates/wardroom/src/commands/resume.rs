//! `wardroom resume`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use wardroom_domain::TenantId;
use wardroom_domain::approval_proof::Statement;
use wardroom_roles::clock;

use crate::approver_key::KeyArgs;
use crate::client::RemoteJsonArgs;
use crate::output::CommandResult;

/// End the stop of all actions; an approver of the tenant `main` signs it.
#[derive(Clone, Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    remote: RemoteJsonArgs,
}

pub(crate) fn run(args: ResumeArgs) -> CommandResult {
    let client = args.remote.client();
    let state = client.get("/api/v1/stop-all")?;
    let Some(stop) = state["id"].as_str() else {
        args.remote.print(&state, "actions are not stopped")?;
        return Ok(ExitCode::SUCCESS);
    };
    let proof = args.key.sign(&Statement::resume(TenantId::main(), stop.to_owned(), clock::now()))?;
    let state = client.post("/api/v1/resume", &json!({ "proof": proof }))?;
    args.remote.print(&state, "actions are possible again")?;
    Ok(ExitCode::SUCCESS)
}
