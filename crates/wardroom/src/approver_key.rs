//! The key with which an approver signs.

use std::path::Path;

use serde_json::{Value, json};
use wardroom_domain::approval_proof::Statement;
use wardroom_roles::executor::ApprovalSigner;

/// Signs a statement; see [`wardroom_cli::approver_key::Sign`].
pub(crate) fn sign(key: &Path, agent: Option<&Path>, statement: &Statement) -> anyhow::Result<Value> {
    Ok(json!(ApprovalSigner::open(key, agent)?.sign(statement)?))
}
