//! Compares the approvers of the executor's configuration with the tokens.
//!
//! Problem: who may approve is decided in two places: a token gives the role, the executor's configuration names the
//! approver and what proves their approvals. A person of whom one of them does not know finds out when they approve an
//! incident. Model: whenever the executor has started, or its file has changed, each such person is reported. Changes
//! of the file are audited.

use serde_json::Value;
use wardroom_domain::executor::{ListedApprover, ProofKind, Request, Response};
use wardroom_domain::{Principal, TenantId, Timestamp};
use wardroom_executor::ExecutorClient;
use wardroom_store::{Store, TokenRow};

use super::audit_configuration::audit_executor_configuration;
use crate::clock;
use wardroom_response::OTHER_ANSWER;

/// A person who cannot approve, and what to do about it.
#[derive(Debug, PartialEq)]
struct CannotApprove {
    principal: Principal,
    tenant: TenantId,
    reason: String,
}

/// The configuration that the executor has last described.
#[derive(Debug, Default)]
pub(super) struct KnownConfiguration {
    described: Option<(Vec<ListedApprover>, Value)>,
    /// The executor's name for what it has described; see [`Response::Pong`].
    version: Option<String>,
}

impl KnownConfiguration {
    /// Asks the executor, which reads its file at every use, for its configuration, unless `version` says that it is
    /// the known one: it may have thousands of targets. If it has changed, audits that, and logs every person who
    /// might expect to approve and cannot.
    ///
    /// # Errors
    /// Returns why the executor cannot use its configuration: then it refuses all requests that need it.
    pub(super) async fn update(
        &mut self,
        executor: &ExecutorClient,
        store: &Store,
        version: Option<String>,
    ) -> Result<(), String> {
        if version.is_some() && self.version == version {
            return Ok(());
        }
        let (approvers, settings) = match executor.check(&Request::Approvers).await {
            Ok(Response::Approvers { approvers, settings }) => (approvers, settings),
            Ok(Response::Refused { detail, .. }) => return Err(detail),
            Ok(_) => return Err(OTHER_ANSWER.to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let current = (approvers, settings);
        if self.described.as_ref() == Some(&current) {
            self.version = version;
            return Ok(());
        }
        let (approvers, settings) = &current;
        let noted = async {
            audit_executor_configuration(store, approvers, settings).await?;
            store.tokens().await
        };
        match noted.await {
            Ok(tokens) => {
                for CannotApprove { principal, tenant, reason } in who_cannot_approve(approvers, &tokens, clock::now())
                {
                    tracing::warn!(%principal, %tenant, reason, "a principal cannot approve plans");
                }
                (self.described, self.version) = (Some(current), version);
            }
            Err(error) => tracing::error!(%error, "auditing the executor's configuration failed; retrying"),
        }
        Ok(())
    }
}

impl KnownConfiguration {
    /// Says what proves approvals, for readiness; without names, which every caller could read.
    pub(super) fn describe_proofs(&self) -> String {
        let approvers = self.described.iter().flat_map(|(approvers, _)| approvers);
        match approvers.filter(|approver| approver.proof == ProofKind::Token).count() {
            0 => "ssh".to_owned(),
            1 => "weak: 1 approver proves approvals by a token that the server sees".to_owned(),
            count => format!("weak: {count} approvers prove approvals by tokens that the server sees"),
        }
    }
}

fn who_cannot_approve(approvers: &[ListedApprover], tokens: &[TokenRow], now: Timestamp) -> Vec<CannotApprove> {
    let in_force =
        |token: &&TokenRow| token.revoked_at.is_none() && token.expires_at.is_none_or(|expires_at| expires_at > now);
    // Any token of theirs may relay what they sign.
    let of_signer = |approver: &ListedApprover| {
        let is_theirs = |token: &TokenRow| {
            let identity = &token.identity;
            identity.tenant == approver.tenant
                && identity.principal == approver.principal
                && identity.role.may_respond()
        };
        (!tokens.iter().filter(in_force).any(is_theirs)).then(|| CannotApprove {
            principal: approver.principal.clone(),
            tenant: approver.tenant.clone(),
            reason: "no token in force is theirs; create one with --role responder".to_owned(),
        })
    };
    let of_approver = |approver: &ListedApprover| {
        if approver.proof != ProofKind::Token {
            return of_signer(approver);
        }
        let token = tokens.iter().filter(in_force).find(|token| token.id == approver.token_id);
        let reason = match token.map(|token| &token.identity) {
            None => {
                "no token in force has the hash of the executor's configuration; create one and enter its hash".into()
            }
            Some(identity) if identity.tenant != approver.tenant || identity.principal != approver.principal => {
                let (tenant, principal) = (&identity.tenant, &identity.principal);
                format!(
                    "the token belongs to {principal} of tenant {tenant}; enter the hash of the approver's own token"
                )
            }
            Some(identity) if !identity.role.may_respond() => {
                format!("the token has the role {}; create one with --role responder", identity.role.as_str())
            }
            Some(_) => return None,
        };
        Some(CannotApprove { principal: approver.principal.clone(), tenant: approver.tenant.clone(), reason })
    };
    let of_token = |token: &TokenRow| {
        let identity = &token.identity;
        let is_listed = approvers.iter().any(|approver| match approver.proof {
            ProofKind::Token => approver.token_id == token.id,
            _ => approver.tenant == identity.tenant && approver.principal == identity.principal,
        });
        (identity.role.may_respond() && !is_listed).then(|| CannotApprove {
            principal: identity.principal.clone(),
            tenant: identity.tenant.clone(),
            reason: format!(
                "token {} has the role {}, but is not in the executor's configuration; add it to `approvers` if they \
                 shall approve",
                token.id,
                identity.role.as_str()
            ),
        })
    };
    let listed = approvers.iter().filter_map(of_approver);
    listed.chain(tokens.iter().filter(in_force).filter_map(of_token)).collect()
}

#[cfg(test)]
mod tests {
    use wardroom_domain::identity::token_id;
    use wardroom_domain::{AccessRole, Identity};

    use super::*;

    fn token(principal: &str, hash: &str, role: AccessRole) -> TokenRow {
        let identity = Identity { tenant: TenantId::main(), principal: Principal::new(principal).unwrap(), role };
        let created_at = Timestamp::from_millis(0);
        let (id, sha256) = (token_id(hash), hash.to_owned());
        TokenRow { id, sha256, identity, created_at, expires_at: None, revoked_at: None }
    }

    fn approver(principal: &str, hash: &str) -> ListedApprover {
        let (principal, tenant) = (Principal::new(principal).unwrap(), TenantId::main());
        ListedApprover { principal, tenant, proof: ProofKind::Token, token_id: token_id(hash), key: String::new() }
    }

    #[test]
    fn who_signs_needs_any_token_of_theirs() {
        let signer = |principal: &str| ListedApprover {
            proof: ProofKind::Ssh,
            token_id: String::new(),
            key: "SHA256:x".into(),
            ..approver(principal, "")
        };
        let tokens = [
            token("alice", &"a".repeat(64), AccessRole::Responder),
            token("carol", &"c".repeat(64), AccessRole::Viewer),
        ];
        let found =
            who_cannot_approve(&[signer("alice"), signer("bob"), signer("carol")], &tokens, Timestamp::default());
        let named: Vec<&str> = found.iter().map(|one| one.principal.as_str()).collect();
        assert_eq!(named, ["bob", "carol"]);
        assert!(found[0].reason.contains("no token in force is theirs"), "{found:?}");
    }

    #[test]
    fn everybody_who_cannot_approve_is_named_with_the_reason() {
        let (a, b, c, d) = ("a".repeat(64), "b".repeat(64), "c".repeat(64), "d".repeat(64));
        let approvers = [approver("alice", &a), approver("bob", &b), approver("carol", &c), approver("dave", &d)];
        let expired =
            TokenRow { expires_at: Some(Timestamp::from_millis(5)), ..token("dave", &d, AccessRole::Responder) };
        let tokens = [
            token("alice", &a, AccessRole::Responder),
            token("robert", &b, AccessRole::Responder),
            token("carol", &c, AccessRole::Viewer),
            expired,
            token("admin", &"e".repeat(64), AccessRole::Admin),
            token("prometheus", &"f".repeat(64), AccessRole::Sender),
        ];
        let found = who_cannot_approve(&approvers, &tokens, Timestamp::from_millis(5));
        let named: Vec<(&str, &str)> = found.iter().map(|one| (one.principal.as_str(), one.reason.as_str())).collect();
        let words = ["belongs to robert", "role viewer", "no token in force", "role admin, but is not in"];
        assert_eq!(
            named.iter().map(|(principal, _)| *principal).collect::<Vec<_>>(),
            ["bob", "carol", "dave", "admin"]
        );
        assert!(named.iter().zip(words).all(|((_, reason), word)| reason.contains(word)), "{named:?}");
    }
}
