//! What a person signs to prove a decision to the executor, and how the signature is transmitted.
//!
//! ```text
//! statement: action, tenant, incident, plan hash (or stop), time ─► RFC 8785 JSON ─► SSH signature ─► proof
//! ```
//!
//! Problem: a credential that also reads the API can be copied by everything that sees it, the server included. Model:
//! the approver signs one statement with their SSH key, in a namespace of its own (`sshsig`), so that no signature made
//! for another purpose counts, and this one counts for nothing else. Guarantee: a proof is good for one action on one
//! plan of one incident, and for minutes; who relays it can do nothing else with it. The program `ssh-keygen -Y sign`
//! makes the same signatures. A browser proves the same statement by its hash: as the challenge of a passkey, or as the
//! nonce of an ID token of OpenID Connect.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::canonical::canonical_json;
use crate::identity::TenantId;
use crate::time::Timestamp;

/// Namespace of the signatures (`ssh-keygen -n`).
pub const PROOF_NAMESPACE: &str = "approval@wardroom";
/// Format version of the statements that this build makes and accepts.
pub const STATEMENT_VERSION: u8 = 1;

/// What a proof permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofAction {
    /// Execute a plan.
    Approve,
    /// Execute a plan that needs more approvals than there are; another person must review it afterwards.
    BreakGlass,
    /// Undo an executed plan.
    Undo,
    /// End the authority to undo a plan.
    Settle,
    /// Confirm that an execution by break-glass was reviewed.
    Review,
    /// End a stop of all actions.
    Resume,
}

/// The statement that is signed. Fields that do not apply are absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// [`STATEMENT_VERSION`].
    pub version: u8,
    /// What is permitted.
    pub action: ProofAction,
    /// Tenant of the incident and of the approver.
    pub tenant: TenantId,
    /// Key of the incident, as in the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// Hash of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_sha256: Option<String>,
    /// The stop that ends, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
    /// Why the plan cannot wait for the approvals that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it is signed.
    pub time: Timestamp,
}

impl Statement {
    /// Makes a statement about a plan.
    pub fn about_plan(
        action: ProofAction,
        tenant: TenantId,
        incident: String,
        plan_sha256: String,
        time: Timestamp,
    ) -> Self {
        let (incident, plan_sha256) = (Some(incident), Some(plan_sha256));
        Self { version: STATEMENT_VERSION, action, tenant, incident, plan_sha256, stop: None, reason: None, time }
    }

    /// Makes the statement that ends a stop.
    pub fn resume(tenant: TenantId, stop: String, time: Timestamp) -> Self {
        let (action, stop) = (ProofAction::Resume, Some(stop));
        Self { version: STATEMENT_VERSION, action, tenant, incident: None, plan_sha256: None, stop, reason: None, time }
    }

    /// Returns the text that is signed: RFC 8785 JSON without a line end.
    ///
    /// # Errors
    /// Returns an error if the statement cannot be represented in JSON.
    pub fn message(&self) -> Result<String, String> {
        canonical_json(self)
    }

    /// Returns the SHA-256 of the text in base64url: what a browser proves.
    ///
    /// # Errors
    /// See [`Statement::message`].
    pub fn challenge(&self) -> Result<String, String> {
        Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(self.message()?)))
    }
}

/// What proved an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofKind {
    /// A signature with the approver's SSH key.
    Ssh,
    /// An assertion of the approver's passkey.
    Passkey,
    /// An ID token of the approver's provider of OpenID Connect.
    Oidc,
    /// A bearer token, which the server has seen: for evaluation only.
    Token,
}

impl ProofKind {
    /// Returns the JSON spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Passkey => "passkey",
            Self::Oidc => "oidc",
            Self::Token => "token",
        }
    }
}

/// What a passkey has signed; every part is in base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasskeyAssertion {
    /// Id of the passkey.
    pub id: String,
    /// `clientDataJSON` of WebAuthn; its challenge is [`Statement::challenge`].
    pub client_data: String,
    /// `authenticatorData` of WebAuthn.
    pub authenticator_data: String,
    /// The signature.
    pub signature: String,
}

/// A proven statement as it is transmitted: what the executor cannot know by itself, and one of signature, passkey and
/// ID token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedProof {
    /// Time of the statement.
    pub time: Timestamp,
    /// The SSH signature: `-----BEGIN SSH SIGNATURE-----` and so on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature: String,
    /// The assertion of a passkey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<PasskeyAssertion>,
    /// An ID token of OpenID Connect, whose nonce is [`Statement::challenge`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<String>,
    /// Reason of a break-glass approval; it makes the statement one of [`ProofAction::BreakGlass`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<String>,
}

impl SignedProof {
    /// Makes a proof by an SSH signature.
    pub const fn ssh(time: Timestamp, signature: String, break_glass: Option<String>) -> Self {
        Self { time, signature, passkey: None, id_token: None, break_glass }
    }

    /// Returns the proof as one line of JSON.
    ///
    /// # Errors
    /// Returns an error if it cannot be represented in JSON.
    pub fn to_text(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }

    /// Reads a proof. `None` if the text is no JSON object, such as a token.
    ///
    /// # Errors
    /// Returns the field that is missing, unknown or invalid.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        text.trim_start().starts_with('{').then(|| serde_json::from_str(text).map_err(|error| error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        let time = Timestamp::parse("2026-11-30T14:00:00Z").unwrap();
        Statement::about_plan(ProofAction::Approve, TenantId::main(), "incident-key".into(), "ab".repeat(32), time)
    }

    /// People sign this text with other programs: it may never change.
    #[test]
    fn message_of_version_1_is_stable() {
        insta::assert_snapshot!(statement().message().unwrap(), @r#"{"action":"approve","incident":"incident-key","plan_sha256":"abababababababababababababababababababababababababababababababab","tenant":"main","time":"2026-11-30T14:00:00Z","version":1}"#);
        let time = Timestamp::parse("2026-11-30T14:00:00Z").unwrap();
        let resume = Statement::resume(TenantId::main(), "3f2a".into(), time);
        insta::assert_snapshot!(resume.message().unwrap(), @r#"{"action":"resume","stop":"3f2a","tenant":"main","time":"2026-11-30T14:00:00Z","version":1}"#);
    }

    /// A passkey's challenge and an ID token's nonce.
    #[test]
    fn challenge_of_version_1_is_stable() {
        insta::assert_snapshot!(statement().challenge().unwrap(), @"pGiXZvnO074S65xprMXApEDfrcDXK-5p--ixoFsZ6JA");
    }

    #[test]
    fn every_field_changes_the_message() {
        let message = statement().message().unwrap();
        let other = |change: fn(&mut Statement)| {
            let mut changed = statement();
            change(&mut changed);
            changed.message().unwrap()
        };
        for changed in [
            other(|it| it.action = ProofAction::BreakGlass),
            other(|it| it.tenant = TenantId::new("other").unwrap()),
            other(|it| it.incident = Some("incident-kez".into())),
            other(|it| it.plan_sha256 = Some("ac".repeat(32))),
            other(|it| it.stop = Some(String::new())),
            other(|it| it.reason = Some(String::new())),
            other(|it| it.time = it.time.plus(std::time::Duration::from_nanos(1))),
        ] {
            assert_ne!(changed, message);
        }
    }

    #[test]
    fn a_proof_is_told_from_a_token() {
        let proof = SignedProof::ssh(Timestamp::from_millis(0), "-----BEGIN".into(), None);
        assert_eq!(SignedProof::parse(&proof.to_text().unwrap()), Some(Ok(proof)));
        assert!(SignedProof::parse("wr_0123456789").is_none() && SignedProof::parse("").is_none());
        assert!(SignedProof::parse(r#"{"signature":""}"#).unwrap().unwrap_err().contains("time"));
        assert!(SignedProof::parse(r#"{"time":"2026-11-30T14:00:00Z","signature":"","x":1}"#).unwrap().is_err());
    }
}
