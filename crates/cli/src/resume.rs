//! `wardroom resume`.

use clap::Args;
use serde_json::json;
use wardroom_domain::TenantId;
use wardroom_domain::approval_proof::Statement;
use wardroom_process::clock;

use crate::approver_key::{KeyArgs, Sign};
use crate::client::RemoteOutputArgs;
use crate::output::{CommandResult, print_result};

/// End the stop of all actions; an approver of the tenant `main` signs it.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  wardroom resume --key ~/.ssh/id_ed25519.pub")]
pub struct ResumeArgs {
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

/// Runs the command; `sign` makes the proof.
///
/// # Errors
/// Returns an error if the server does not answer, or does not accept it.
pub fn run(args: ResumeArgs, sign: Sign) -> CommandResult {
    let state = args.remote.client().get("/api/v1/stop-all")?;
    let Some(stop) = state["id"].as_str() else {
        return print_result(&state, "actions are not stopped", &args.remote.output);
    };
    let proof = args.key.sign(&Statement::resume(TenantId::main(), stop.to_owned(), clock::now()), sign)?;
    args.remote.post("/api/v1/resume", &json!({ "proof": proof }), |_| "actions are possible again".to_owned())
}
