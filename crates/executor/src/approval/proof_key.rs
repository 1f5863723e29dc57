//! How the ledger names what has proved an approval.

use wardroom_domain::executor::ProofKind;

use crate::config::browser_approvers::ListedAccount;

/// How a passkey is named in the ledger.
pub(crate) fn passkey_key(id: &str) -> String {
    format!("passkey:{id}")
}

/// How an account is named in the ledger.
pub(crate) fn account_key(account: &ListedAccount) -> String {
    format!("oidc:{} {}", account.issuer, account.subject)
}

/// Returns what proved an approval of which the ledger has this key.
pub(crate) fn kind_of(key: Option<&str>) -> ProofKind {
    match key {
        None => ProofKind::Token,
        Some(key) if key.starts_with("passkey:") => ProofKind::Passkey,
        Some(key) if key.starts_with("oidc:") => ProofKind::Oidc,
        Some(_) => ProofKind::Ssh,
    }
}
