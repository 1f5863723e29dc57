//! Whether a person may approve, before they try: by role and session, and by the executor's list.

use wardroom_api::{Asking, MayApprove};
use wardroom_domain::Principal;
use wardroom_domain::executor::{ListedApprover, ProofKind};
use wardroom_identity::scopes::Scope;

/// Returns whether an approval of the caller can count, with the reason if it cannot.
pub(crate) fn may_approve(caller: &Asking, approvers: Result<&[ListedApprover], &str>) -> MayApprove {
    let refuse = |reason: String| MayApprove { reason: Some(reason), ..MayApprove::default() };
    if !caller.scopes.has(Scope::ActionsApprove) {
        let is_password = caller.session.as_ref().is_some_and(|session| session.method.is_for_reading());
        return refuse(if is_password {
            "a login by password is for reading; log in with a passkey, by your provider or with a token".to_owned()
        } else {
            let role = caller.identity.role.as_str();
            format!("your role ({role}) has not {}; ask an administrator", Scope::ActionsApprove.as_str())
        });
    }
    let approvers = match approvers {
        Ok(approvers) => approvers,
        Err(reason) => return refuse(format!("the executor does not respond: {reason}")),
    };
    let identity = &caller.identity;
    // Without authentication any caller may be an approver; the proof tells who.
    let is_theirs = |listed: &&ListedApprover| {
        listed.tenant == identity.tenant
            && (listed.principal == identity.principal || identity.principal == Principal::anonymous())
    };
    let theirs: Vec<&ListedApprover> = approvers.iter().filter(is_theirs).collect();
    if theirs.is_empty() {
        let (principal, tenant) = (&identity.principal, &identity.tenant);
        return refuse(format!(
            "{principal} is not an approver of tenant {tenant} in the executor's file; an operator adds a key, passkey \
             or account of yours there"
        ));
    }
    let mut proofs: Vec<String> = Vec::new();
    for proof in [ProofKind::Ssh, ProofKind::Passkey, ProofKind::Oidc, ProofKind::Token] {
        if theirs.iter().any(|listed| listed.proof == proof) {
            proofs.push(proof.as_str().to_owned());
        }
    }
    let passkeys = theirs.iter().filter_map(|listed| listed.key.strip_prefix("passkey:")).map(str::to_owned).collect();
    MayApprove { may_approve: true, proofs, passkeys, ..MayApprove::default() }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{AccessRole, Identity, TenantId};
    use wardroom_identity::scopes::Scopes;

    use super::*;

    fn caller(name: &str, role: AccessRole) -> Asking {
        let identity = Identity { tenant: TenantId::main(), principal: Principal::new(name).unwrap(), role };
        Asking { identity, scopes: Scopes::of_role(role), session: None }
    }

    fn listed(name: &str, proof: ProofKind, key: &str) -> ListedApprover {
        let (principal, tenant) = (Principal::new(name).unwrap(), TenantId::main());
        ListedApprover { principal, tenant, proof, token_id: String::new(), key: key.to_owned() }
    }

    #[test]
    fn the_reason_is_known_before_the_click() {
        let approvers = [
            listed("alice", ProofKind::Passkey, "passkey:id"),
            listed("alice", ProofKind::Ssh, "SHA256:x"),
            listed("bob", ProofKind::Token, ""),
        ];
        let ask = |name: &str, role| may_approve(&caller(name, role), Ok(&approvers));
        let alice = ask("alice", AccessRole::Responder);
        assert!(alice.may_approve && alice.reason.is_none());
        assert_eq!((alice.proofs, alice.passkeys), (vec!["ssh".into(), "passkey".into()], vec!["id".to_owned()]));
        assert_eq!(ask("bob", AccessRole::Admin).proofs, ["token"]);
        assert!(ask("alice", AccessRole::Viewer).reason.unwrap().contains("role (viewer)"));
        assert!(ask("carol", AccessRole::Admin).reason.unwrap().contains("carol is not an approver"));
        let other = Asking {
            identity: Identity {
                tenant: TenantId::new("other").unwrap(),
                ..caller("alice", AccessRole::Admin).identity
            },
            ..caller("alice", AccessRole::Admin)
        };
        assert!(!may_approve(&other, Ok(&approvers)).may_approve, "of another tenant");
        let down = may_approve(&caller("alice", AccessRole::Admin), Err("it is stopped"));
        assert!(down.reason.unwrap().contains("it is stopped"));
        assert_eq!(ask("anonymous", AccessRole::Admin).proofs, ["ssh", "passkey", "token"]);
    }
}
