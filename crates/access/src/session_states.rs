//! What a stored session permits now: its user, its token and its method decide.

use wardroom_domain::Timestamp;
use wardroom_identity::scopes::{Roles, Scopes};
use wardroom_identity::sessions::{LoginMethod, SessionRecord};
use wardroom_store::{SessionRow, SessionState};

/// Returns a session as it counts now; `None` if its user may not enter, or its token is not in force.
pub(crate) fn session_in_force(state: SessionState, roles: &Roles, now: Timestamp) -> Option<SessionRecord> {
    let method = LoginMethod::parse(&state.session.method)?;
    if state.is_disabled {
        return None;
    }
    let scopes = match method {
        LoginMethod::Password | LoginMethod::Passkey => roles.scopes(state.user_role.as_deref()?)?,
        LoginMethod::Oidc => Scopes::of_words(state.session.scopes.split(' ')),
        LoginMethod::Token => {
            state.token_ends_at.is_none_or(|end| end > now).then_some(())?;
            Scopes::of_role(state.token_role?)
        }
    };
    Some(record(state.session, method, method.limit(scopes)))
}

fn record(row: SessionRow, method: LoginMethod, scopes: Scopes) -> SessionRecord {
    SessionRecord {
        id: row.id,
        sha256: row.sha256,
        previous: row.previous,
        csrf_token: row.csrf_token,
        tenant: row.tenant,
        principal: row.principal,
        scopes,
        method,
        created_at: row.created_at,
        rotated_at: row.rotated_at,
        used_at: row.used_at,
        ends_at: row.ends_at,
    }
}

/// Returns the row of a session, for the columns that change.
pub(crate) fn row(record: &SessionRecord, credential: Option<String>) -> SessionRow {
    SessionRow {
        id: record.id.clone(),
        sha256: record.sha256.clone(),
        previous: record.previous.clone(),
        csrf_token: record.csrf_token.clone(),
        tenant: record.tenant.clone(),
        principal: record.principal.clone(),
        method: record.method.as_str().to_owned(),
        scopes: if record.method == LoginMethod::Oidc { record.scopes.words() } else { String::new() },
        credential,
        created_at: record.created_at,
        rotated_at: record.rotated_at,
        used_at: record.used_at,
        ends_at: record.ends_at,
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{AccessRole, Principal, TenantId};

    use super::*;

    fn state(method: &str) -> SessionState {
        let at = Timestamp::from_millis(0);
        SessionState {
            session: SessionRow {
                id: "id".into(),
                sha256: "hash".into(),
                previous: None,
                csrf_token: "csrf".into(),
                tenant: TenantId::main(),
                principal: Principal::new("alice").unwrap(),
                method: method.into(),
                scopes: "incidents:read incidents:write".into(),
                credential: None,
                created_at: at,
                rotated_at: at,
                used_at: at,
                ends_at: at,
            },
            user_role: Some("admin".into()),
            is_disabled: false,
            token_role: Some(AccessRole::Responder),
            token_ends_at: Some(Timestamp::from_millis(10)),
        }
    }

    fn words(state: SessionState) -> Option<String> {
        session_in_force(state, &Roles::default(), Timestamp::from_millis(9)).map(|session| session.scopes.words())
    }

    #[test]
    fn user_token_and_method_decide_what_a_session_permits() {
        assert_eq!(words(state("password")).as_deref(), Some("incidents:read"));
        assert!(words(state("passkey")).unwrap().contains("tools:manage"));
        assert_eq!(words(state("oidc")).as_deref(), Some("incidents:read incidents:write"));
        assert_eq!(words(state("token")).as_deref(), Some("incidents:read incidents:write actions:approve"));
        for method in ["password", "passkey", "oidc", "token"] {
            assert_eq!(words(SessionState { is_disabled: true, ..state(method) }), None, "{method}");
        }
        assert_eq!(words(SessionState { user_role: None, ..state("passkey") }), None, "the user is gone");
        assert_eq!(words(SessionState { user_role: Some("gone".into()), ..state("passkey") }), None);
        assert_eq!(words(SessionState { token_role: None, ..state("token") }), None, "the token was revoked");
        let expired = SessionState { token_ends_at: Some(Timestamp::from_millis(9)), ..state("token") };
        assert_eq!(words(expired), None);
        assert_eq!(words(state("other")), None);
    }
}
