//! The key with which an approver signs.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::Value;
use wardroom_domain::approval_proof::Statement;

/// Signs a statement with the key in a file, or with the one of an agent whose socket is given. Returns the proof of a
/// request. The program supplies it: formats of keys belong to the executor.
pub type Sign = fn(&Path, Option<&Path>, &Statement) -> anyhow::Result<Value>;

/// Which key signs.
#[derive(Clone, Debug, Args)]
pub struct KeyArgs {
    /// The approver's SSH key: a private key without a passphrase (Ed25519), or the public key of one in the SSH agent.
    #[arg(long, env = "WARDROOM_APPROVER_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Socket of the SSH agent.
    #[arg(long, env = "SSH_AUTH_SOCK", value_name = "SOCKET", hide = true)]
    agent: Option<PathBuf>,
}

impl KeyArgs {
    /// Whether a key was given.
    pub const fn is_given(&self) -> bool {
        self.key.is_some()
    }

    /// Signs a statement. Returns the proof of a request; null without a key.
    ///
    /// # Errors
    /// Returns an error if the key cannot sign.
    pub fn sign(&self, statement: &Statement, sign: Sign) -> anyhow::Result<Value> {
        let Some(key) = &self.key else { return Ok(Value::Null) };
        sign(key, self.agent.as_deref(), statement).context("--key")
    }
}
