//! Passkeys of users: registered by their owner, and used for logins.

use std::net::IpAddr;

use serde_json::json;
use wardroom_api::{Asking, NewSession, PasskeyOptions, PasskeyView};
use wardroom_domain::{Identity, TenantId};
use wardroom_edge::{Problem, Status};
use wardroom_identity::secret::random_text;
use wardroom_identity::sessions::LoginMethod;
use wardroom_identity::webauthn::{
    Assertion, Passkey, Registration, RelyingParty, verify_assertion, verify_registration,
};
use wardroom_process::clock;
use wardroom_store::PasskeyRow;

use crate::audit::entry;
use crate::problems::{bad_login, forbidden, not_found, store_problem};
use crate::service::{AccessService, Proved};

impl AccessService {
    fn relying_party(&self) -> Result<RelyingParty, Problem> {
        let detail = "passkeys need identity.public-url, the URL under which people reach this server";
        self.inner.config.relying_party().ok_or_else(|| not_found("no_passkeys", detail))
    }

    /// A challenge for a login: any passkey of this server may answer.
    pub(crate) fn login_challenge(&self) -> Result<(PasskeyOptions, String), Problem> {
        let (challenge, party) = (random_text(), self.relying_party()?);
        Ok((PasskeyOptions { challenge: challenge.clone(), rp_id: party.id, passkeys: Vec::new() }, challenge))
    }

    /// Begins a session by a passkey.
    pub(crate) async fn log_in_by_passkey(
        &self,
        challenge: &str,
        assertion: &Assertion,
        address: Option<IpAddr>,
    ) -> Result<NewSession, Problem> {
        let party = self.relying_party()?;
        // Guesses are counted for the address; a passkey cannot be guessed.
        self.check_throttle("", address)?;
        let found = self.inner.store.passkey(&assertion.id).await.map_err(store_problem)?;
        let tenant = found.as_ref().map_or_else(TenantId::main, |passkey| passkey.tenant.clone());
        match self.check_passkey(found, challenge, assertion, &party).await? {
            Ok(proved) => self.begin(proved, address).await,
            Err((name, reason)) => {
                self.note_refused((&tenant, &name), LoginMethod::Passkey, address, &reason).await;
                Err(bad_login(format!("the passkey is not accepted: {reason}")))
            }
        }
    }

    /// Returns who a passkey's answer proves, or the name to be audited and the reason why it proves nothing.
    async fn check_passkey(
        &self,
        found: Option<PasskeyRow>,
        challenge: &str,
        assertion: &Assertion,
        party: &RelyingParty,
    ) -> Result<Result<Proved, (String, String)>, Problem> {
        let Some(found) = found else { return Ok(Err((String::new(), "it is not registered here".to_owned()))) };
        let refuse = |reason: &str| Ok(Err((found.principal.to_string(), reason.to_owned())));
        let passkey =
            Passkey { id: found.id.clone(), public_key: found.public_key.clone(), sign_count: found.sign_count };
        let count = match verify_assertion(assertion, &passkey, challenge, party) {
            Ok(count) => count,
            Err(error) => return refuse(&error.to_string()),
        };
        let user = self.inner.store.user(&found.tenant, &found.principal).await.map_err(store_problem)?;
        let user = user.filter(|user| user.disabled_at.is_none());
        let Some(scopes) = user.and_then(|user| self.inner.roles.scopes(&user.role)) else {
            return refuse("its owner may not enter");
        };
        let noted = self.inner.store.note_passkey_used(&found.id, (found.sign_count, count), clock::now()).await;
        if !noted.map_err(store_problem)? {
            return refuse("the same answer was used at the same time");
        }
        let PasskeyRow { id, tenant, principal, .. } = found;
        Ok(Ok(Proved { tenant, principal, method: LoginMethod::Passkey, scopes, credential: Some(id) }))
    }

    pub(crate) async fn own_passkeys(&self, caller: &Identity) -> Result<Vec<PasskeyView>, Problem> {
        let found = self.inner.store.passkeys(&caller.tenant, &caller.principal).await.map_err(store_problem)?;
        Ok(found.into_iter().map(view).collect())
    }

    /// Only what is as strong as a passkey may register one: a stolen password must not become more.
    async fn check_registrant(&self, caller: &Asking) -> Result<(), Problem> {
        let method = caller.session.as_ref().map(|session| session.method);
        if method.is_some_and(LoginMethod::is_for_reading) {
            let detail = "a login by password is for reading; log in with a token of yours to register a passkey";
            return Err(forbidden("weak_login", detail));
        }
        let Identity { tenant, principal, .. } = &caller.identity;
        let user = self.inner.store.user(tenant, principal).await.map_err(store_problem)?;
        let detail = format!("{principal} is no user here; an administrator creates one (POST /api/v1/users)");
        user.map(drop).ok_or_else(|| not_found("no_such_user", detail))
    }

    pub(crate) async fn begin_registration(&self, caller: &Asking) -> Result<(PasskeyOptions, String), Problem> {
        self.check_registrant(caller).await?;
        let (challenge, party) = (random_text(), self.relying_party()?);
        let passkeys = self.own_passkeys(&caller.identity).await?.into_iter().map(|passkey| passkey.id).collect();
        Ok((PasskeyOptions { challenge: challenge.clone(), rp_id: party.id, passkeys }, challenge))
    }

    pub(crate) async fn finish_registration(
        &self,
        caller: &Asking,
        challenge: &str,
        (name, registration): (String, Registration),
    ) -> Result<PasskeyView, Problem> {
        self.check_registrant(caller).await?;
        let made = verify_registration(&registration, challenge, &self.relying_party()?);
        let made = made.map_err(|error| Problem::bad_request("bad_passkey", error.to_string()))?;
        let Identity { tenant, principal, .. } = &caller.identity;
        let passkey = PasskeyRow {
            id: made.id,
            tenant: tenant.clone(),
            principal: principal.clone(),
            public_key: made.public_key,
            name,
            sign_count: made.sign_count,
            created_at: clock::now(),
            used_at: None,
        };
        let decision = json!({ "passkey": passkey.id, "name": passkey.name });
        let audit = entry(tenant, principal, "register_passkey", decision);
        if !self.inner.store.create_passkey(&passkey, &audit).await.map_err(store_problem)? {
            return Err(Problem::new(Status::CONFLICT, "passkey_exists", "this passkey is registered already"));
        }
        Ok(view(passkey))
    }

    pub(crate) async fn remove_passkey(&self, caller: &Identity, id: &str) -> Result<(), Problem> {
        let audit = entry(&caller.tenant, &caller.principal, "delete_passkey", json!({ "passkey": id }));
        let owner = (&caller.tenant, &caller.principal);
        let deleted = self.inner.store.delete_passkey(owner, id, &audit).await.map_err(store_problem)?;
        if deleted { Ok(()) } else { Err(not_found("no_such_passkey", "there is no passkey of yours with this id")) }
    }
}

fn view(passkey: PasskeyRow) -> PasskeyView {
    let PasskeyRow { id, principal, public_key, name, created_at, used_at, .. } = passkey;
    PasskeyView { approver_line: format!("{principal} {id} {public_key}"), id, name, created_at, used_at }
}
