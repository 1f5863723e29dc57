//! Answers what the routes ask.

use std::net::IpAddr;

use wardroom_api::{
    AccessBackend, Asking, BackendFuture, BegunLogin, LoginAnswer, LoginOptions, MayApprove, NewSession,
    PasskeyOptions, PasskeyView, PasswordLogin, PlanToApprove, UserRequest, UserView,
};
use wardroom_domain::approval_proof::{ProofAction, SignedProof, Statement};
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::identity::token_id;
use wardroom_domain::{Identity, Principal, TenantId, Timestamp};
use wardroom_edge::Problem;
use wardroom_identity::oidc_login::PendingLogin;
use wardroom_identity::scopes::Scopes;
use wardroom_identity::sessions::LoginMethod;
use wardroom_identity::webauthn::{Assertion, Registration};
use wardroom_process::clock;
use wardroom_store::EndedSessions;

use crate::approvers::may_approve;
use crate::service::{AccessService, Proved};

impl AccessService {
    async fn log_in_by_token(&self, token: &str, address: Option<IpAddr>) -> Result<NewSession, Problem> {
        self.check_throttle("", address)?;
        let identity = match self.inner.tokens.authenticate_secret(token, clock::now()) {
            Ok(identity) => identity,
            Err(problem) => {
                self.note_refused((&TenantId::main(), ""), LoginMethod::Token, address, problem.code()).await;
                return Err(problem);
            }
        };
        let Identity { tenant, principal, role } = identity;
        let credential = Some(token_id(&sha256_hex(token.as_bytes())));
        let proved =
            Proved { tenant, principal, method: LoginMethod::Token, scopes: Scopes::of_role(role), credential };
        self.begin(proved, address).await
    }

    async fn log_in_by_provider(&self, answer: LoginAnswer) -> Result<NewSession, Problem> {
        let provider = self.inner.providers.find(&answer.provider)?.clone();
        let person = async {
            if answer.pending.time.is_some() {
                return Err(Problem::bad_request(
                    "login_refused",
                    "this browser has begun an approval and not a login",
                ));
            }
            let token = self.inner.providers.id_token(&answer).await?;
            self.inner.providers.person(&answer, &token, &self.inner.roles).await
        };
        let person = match person.await {
            Ok(person) => person,
            Err(problem) => {
                let account = (&provider.tenant, answer.provider.as_str());
                self.note_refused(account, LoginMethod::Oidc, None, problem.detail()).await;
                return Err(problem);
            }
        };
        let user = self.inner.store.user(&provider.tenant, &person.principal).await;
        let user = user.map_err(crate::problems::store_problem)?;
        if user.is_some_and(|user| user.disabled_at.is_some()) {
            let account = (&provider.tenant, person.principal.as_str());
            self.note_refused(account, LoginMethod::Oidc, None, "the user is disabled").await;
            return Err(Problem::bad_request("login_refused", format!("{} may not enter", person.principal)));
        }
        let proved = Proved {
            tenant: provider.tenant,
            principal: person.principal,
            method: LoginMethod::Oidc,
            scopes: person.scopes,
            credential: Some(format!("{} {}", provider.issuer, person.subject)),
        };
        self.begin(proved, None).await
    }

    async fn begin_proof(&self, caller: Asking, provider: String, plan: PlanToApprove) -> Result<BegunLogin, Problem> {
        let (tenant, time) = (caller.identity.tenant, clock::now());
        let statement = Statement::about_plan(ProofAction::Approve, tenant, plan.incident, plan.plan_sha256, time);
        let challenge = statement.challenge().map_err(|error| Problem::unavailable("no_statement", error))?;
        let pending = PendingLogin::begin_approval(&provider, &plan.return_to, challenge, time);
        self.inner.providers.begin(pending).await
    }

    async fn finish_proof(&self, answer: LoginAnswer) -> Result<String, Problem> {
        let not_begun = || Problem::bad_request("login_refused", "this browser has begun a login and not an approval");
        let time = answer.pending.time.ok_or_else(not_begun)?;
        let token = self.inner.providers.id_token(&answer).await?;
        // Verified by the executor only: with its own settings.
        let proof = SignedProof { id_token: Some(token), ..SignedProof::ssh(time, String::new(), None) };
        proof.to_text().map_err(|error| Problem::unavailable("no_statement", error))
    }

    async fn end_own_session(&self, caller: Asking) -> Result<(), Problem> {
        let Some(session) = caller.session else { return Ok(()) };
        let Identity { tenant, principal, .. } = &caller.identity;
        self.end((tenant, principal), EndedSessions::One(session.id), "logout").await.map(drop)
    }

    async fn ask_may_approve(&self, caller: Asking) -> MayApprove {
        let approvers = self.approvers().await;
        let answer = may_approve(&caller, approvers.as_deref().map_err(String::as_str));
        let rp_id = self.inner.config.relying_party().map(|party| party.id);
        let providers = if answer.may_approve { self.inner.providers.names_for_approvals() } else { Vec::new() };
        MayApprove { rp_id, providers, ..answer }
    }
}

impl AccessBackend for AccessService {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn login_options(&self) -> LoginOptions {
        let has_passkeys = self.inner.config.relying_party().is_some();
        LoginOptions { providers: self.inner.providers.names(), has_passkeys }
    }

    fn password_login(&self, login: PasswordLogin) -> BackendFuture<NewSession> {
        let it = self.clone();
        Box::pin(async move { it.log_in_by_password(login).await })
    }

    fn token_login(&self, token: String, address: Option<IpAddr>) -> BackendFuture<NewSession> {
        let it = self.clone();
        Box::pin(async move { it.log_in_by_token(&token, address).await })
    }

    fn passkey_challenge(&self) -> BackendFuture<(PasskeyOptions, String)> {
        let it = self.clone();
        Box::pin(async move { it.login_challenge() })
    }

    fn passkey_login(
        &self,
        challenge: String,
        assertion: Assertion,
        address: Option<IpAddr>,
    ) -> BackendFuture<NewSession> {
        let it = self.clone();
        Box::pin(async move { it.log_in_by_passkey(&challenge, &assertion, address).await })
    }

    fn begin_login(&self, provider: String, return_to: String) -> BackendFuture<BegunLogin> {
        let it = self.clone();
        Box::pin(async move { it.inner.providers.begin(PendingLogin::begin(&provider, &return_to)).await })
    }

    fn finish_login(&self, answer: LoginAnswer) -> BackendFuture<NewSession> {
        let it = self.clone();
        Box::pin(async move { it.log_in_by_provider(answer).await })
    }

    fn begin_approval(&self, caller: Asking, provider: String, plan: PlanToApprove) -> BackendFuture<BegunLogin> {
        let it = self.clone();
        Box::pin(async move { it.begin_proof(caller, provider, plan).await })
    }

    fn finish_approval(&self, answer: LoginAnswer) -> BackendFuture<String> {
        let it = self.clone();
        Box::pin(async move { it.finish_proof(answer).await })
    }

    fn logout(&self, caller: Asking) -> BackendFuture<()> {
        let it = self.clone();
        Box::pin(async move { it.end_own_session(caller).await })
    }

    fn may_approve(&self, caller: Asking) -> BackendFuture<MayApprove> {
        let it = self.clone();
        Box::pin(async move { Ok(it.ask_may_approve(caller).await) })
    }

    fn users(&self, tenant: TenantId) -> BackendFuture<Vec<UserView>> {
        let it = self.clone();
        Box::pin(async move { it.list_users(&tenant).await })
    }

    fn create_user(&self, caller: Identity, principal: Principal, user: UserRequest) -> BackendFuture<UserView> {
        let it = self.clone();
        Box::pin(async move { it.add_user(&caller, principal, user).await })
    }

    fn change_user(&self, caller: Identity, principal: Principal, user: UserRequest) -> BackendFuture<UserView> {
        let it = self.clone();
        Box::pin(async move { it.update_user(&caller, principal, user).await })
    }

    fn end_sessions(&self, caller: Identity, principal: Principal) -> BackendFuture<u64> {
        let it = self.clone();
        Box::pin(async move {
            let which = EndedSessions::OfPrincipal(principal);
            it.end((&caller.tenant, &caller.principal), which, "end_sessions").await
        })
    }

    fn passkeys(&self, caller: Identity) -> BackendFuture<Vec<PasskeyView>> {
        let it = self.clone();
        Box::pin(async move { it.own_passkeys(&caller).await })
    }

    fn registration_challenge(&self, caller: Asking) -> BackendFuture<(PasskeyOptions, String)> {
        let it = self.clone();
        Box::pin(async move { it.begin_registration(&caller).await })
    }

    fn register_passkey(
        &self,
        caller: Asking,
        challenge: String,
        passkey: (String, Registration),
    ) -> BackendFuture<PasskeyView> {
        let it = self.clone();
        Box::pin(async move { it.finish_registration(&caller, &challenge, passkey).await })
    }

    fn delete_passkey(&self, caller: Identity, id: String) -> BackendFuture<()> {
        let it = self.clone();
        Box::pin(async move { it.remove_passkey(&caller, &id).await })
    }
}
