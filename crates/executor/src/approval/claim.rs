//! What a proof must be about, and what it shows.

use std::time::Duration;

use wardroom_domain::approval_proof::{ProofAction, SignedProof, Statement};
use wardroom_domain::executor::ProofKind;
use wardroom_domain::{Principal, TenantId};

/// How far the approver's clock may be ahead.
pub(super) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);

/// A decision whose proof is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    /// Who decided.
    pub(crate) principal: Principal,
    pub(crate) kind: ProofKind,
    /// Fingerprint of the key that signed, or the name of the passkey or account; `None` for a token.
    pub(crate) key: Option<String>,
    /// Why the plan cannot wait, if it was approved by break-glass.
    pub(crate) break_glass: Option<String>,
}

/// What a proof must be about.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) action: ProofAction,
    pub(crate) tenant: TenantId,
    /// Key of the incident and hash of the plan, if it is about a plan.
    pub(crate) plan: Option<(String, String)>,
    /// The stop that ends, if it is about one.
    pub(crate) stop: Option<String>,
}

impl Claim {
    /// A claim about a plan.
    pub(crate) fn about_plan(action: ProofAction, tenant: &TenantId, incident: &str, plan_sha256: &str) -> Self {
        let plan = Some((incident.to_owned(), plan_sha256.to_owned()));
        Self { action, tenant: tenant.clone(), plan, stop: None }
    }

    /// A claim to end a stop.
    pub(crate) fn resume(tenant: TenantId, stop: &str) -> Self {
        Self { action: ProofAction::Resume, tenant, plan: None, stop: Some(stop.to_owned()) }
    }

    /// Returns the statement that must have been signed.
    pub(super) fn statement(&self, proof: &SignedProof) -> Statement {
        let (tenant, time) = (self.tenant.clone(), proof.time);
        let mut statement = match (&self.plan, &self.stop) {
            (Some((incident, plan_sha256)), _) => {
                Statement::about_plan(self.action, tenant, incident.clone(), plan_sha256.clone(), time)
            }
            (None, stop) => Statement::resume(tenant, stop.clone().unwrap_or_default(), time),
        };
        if proof.break_glass.is_some() {
            statement.action = ProofAction::BreakGlass;
            statement.reason.clone_from(&proof.break_glass);
        }
        statement
    }
}
