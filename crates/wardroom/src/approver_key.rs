//! The key with which an approver signs.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use wardroom_domain::approval_proof::Statement;
use wardroom_roles::executor::ApprovalSigner;

#[derive(Clone, Debug, Args)]
pub(crate) struct KeyArgs {
    /// The approver's SSH key: a private key without a passphrase (Ed25519), or the public key of one in the SSH agent.
    #[arg(long, env = "WARDROOM_APPROVER_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Socket of the SSH agent.
    #[arg(long, env = "SSH_AUTH_SOCK", value_name = "SOCKET", hide = true)]
    agent: Option<PathBuf>,
}

impl KeyArgs {
    pub(crate) const fn is_given(&self) -> bool {
        self.key.is_some()
    }

    /// Signs a statement. Returns the proof of a request; null without a key.
    pub(crate) fn sign(&self, statement: &Statement) -> anyhow::Result<Value> {
        let Some(key) = &self.key else { return Ok(Value::Null) };
        let signer = ApprovalSigner::open(key, self.agent.as_deref()).context("--key")?;
        Ok(json!(signer.sign(statement).context("--key")?))
    }
}
