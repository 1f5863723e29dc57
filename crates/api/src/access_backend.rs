//! What the routes of logins, users and passkeys ask; the composition root supplies the answers.

use std::net::IpAddr;

use serde::Serialize;
use utoipa::ToSchema;
use wardroom_domain::{Identity, Principal, TenantId, Timestamp};
use wardroom_identity::oidc_login::PendingLogin;
use wardroom_identity::scopes::Scopes;
use wardroom_identity::sessions::ActiveSession;
use wardroom_identity::webauthn::{Assertion, Registration};

use crate::backend_future::BackendFuture;

/// How people may log in.
#[derive(Clone, Debug, Default)]
pub struct LoginOptions {
    /// Names of the providers of OpenID Connect.
    pub providers: Vec<String>,
    /// Whether passkeys can be used.
    pub has_passkeys: bool,
}

/// What a person types in, and where from.
#[derive(Clone)]
pub struct PasswordLogin {
    /// The tenant; `main` by default.
    pub tenant: TenantId,
    /// The name.
    pub principal: Principal,
    /// The password.
    pub password: String,
    /// Address of the client.
    pub address: Option<IpAddr>,
}

impl std::fmt::Debug for PasswordLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordLogin").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// A session that has begun. `Debug` does not print its secret.
#[derive(Clone)]
pub struct NewSession {
    /// The value of the cookie.
    pub secret: String,
    /// Who has logged in.
    pub identity: Identity,
    /// The session.
    pub session: ActiveSession,
}

impl std::fmt::Debug for NewSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSession").field("id", &self.session.id).finish_non_exhaustive()
    }
}

/// Where a browser is sent for a login or an approval, and what is kept in its cookie.
#[derive(Clone, Debug)]
pub struct BegunLogin {
    /// The provider's page.
    pub location: String,
    /// The value of the cookie.
    pub cookie: String,
}

/// What a provider answers through the browser.
#[derive(Clone, Debug)]
pub struct LoginAnswer {
    /// Name of the provider.
    pub provider: String,
    /// The code.
    pub code: String,
    /// The issuer that the answer names (RFC 9207), if it does.
    pub issuer: Option<String>,
    /// What the login that has begun knows.
    pub pending: PendingLogin,
}

/// A plan for which a person is asked to authenticate.
#[derive(Clone, Debug)]
pub struct PlanToApprove {
    /// Key of the incident.
    pub incident: String,
    /// Hash of the plan.
    pub plan_sha256: String,
    /// The page to return to.
    pub return_to: String,
}

/// A request whose caller matters.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The caller.
    pub identity: Identity,
    /// What they may do.
    pub scopes: Scopes,
    /// Their session, if it is one.
    pub session: Option<ActiveSession>,
}

/// Whether the caller may approve plans, and by what.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct MayApprove {
    /// Whether an approval of theirs can count.
    pub may_approve: bool,
    /// Why not; null if it can.
    #[schema(required)]
    pub reason: Option<String>,
    /// What the executor accepts as proof from them: `ssh`, `passkey`, `oidc`, `token`.
    pub proofs: Vec<String>,
    /// Names of the providers that may be asked for it.
    pub providers: Vec<String>,
    /// Ids of their passkeys that may sign it.
    pub passkeys: Vec<String>,
    /// Relying party of the passkeys; null if none is configured.
    #[schema(required)]
    pub rp_id: Option<String>,
}

/// A user.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UserView {
    /// Name in plans and in the audit log.
    pub principal: String,
    /// Name of a role.
    pub role: String,
    /// Whether they may enter.
    pub enabled: bool,
    /// Whether they have a password, which is for reading.
    pub has_password: bool,
    /// Number of passkeys.
    pub passkeys: usize,
    /// When the user was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A change of a user; what is `None` stays.
#[derive(Clone, Default)]
pub struct UserRequest {
    /// Name of a role.
    pub role: Option<String>,
    /// The new password.
    pub password: Option<String>,
    /// Whether they may enter.
    pub enabled: Option<bool>,
}

impl std::fmt::Debug for UserRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserRequest").field("role", &self.role).field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

/// A passkey of the caller.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PasskeyView {
    /// Its id, in base64url.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last used for a login.
    #[schema(value_type = Option<String>, format = DateTime, required)]
    pub used_at: Option<Timestamp>,
    /// The line for `approvers[].passkeys` of the executor's file, by which it may approve.
    pub approver_line: String,
}

/// What a browser needs to make a passkey, or to sign with one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PasskeyOptions {
    /// What is signed, in base64url.
    pub challenge: String,
    /// Id of the relying party.
    pub rp_id: String,
    /// Ids of the passkeys that the caller has.
    pub passkeys: Vec<String>,
}

/// What the routes ask.
pub trait AccessBackend: Send + Sync {
    /// Returns the time.
    fn now(&self) -> Timestamp;
    /// Returns how people may log in.
    fn login_options(&self) -> LoginOptions;
    /// Begins a session by a password: for reading.
    fn password_login(&self, login: PasswordLogin) -> BackendFuture<NewSession>;
    /// Begins a session by a bearer token.
    fn token_login(&self, token: String, address: Option<IpAddr>) -> BackendFuture<NewSession>;
    /// Returns a challenge for a login by a passkey, and what is kept in the cookie.
    fn passkey_challenge(&self) -> BackendFuture<(PasskeyOptions, String)>;
    /// Begins a session by a passkey that has signed the challenge.
    fn passkey_login(
        &self,
        challenge: String,
        assertion: Assertion,
        address: Option<IpAddr>,
    ) -> BackendFuture<NewSession>;
    /// Begins a login by a provider.
    fn begin_login(&self, provider: String, return_to: String) -> BackendFuture<BegunLogin>;
    /// Ends a login by a provider.
    fn finish_login(&self, answer: LoginAnswer) -> BackendFuture<NewSession>;
    /// Sends a person to a provider to authenticate for a plan.
    fn begin_approval(&self, caller: Asking, provider: String, plan: PlanToApprove) -> BackendFuture<BegunLogin>;
    /// Returns the proof of a person who has authenticated for a plan, as JSON.
    fn finish_approval(&self, answer: LoginAnswer) -> BackendFuture<String>;
    /// Ends the caller's session.
    fn logout(&self, caller: Asking) -> BackendFuture<()>;
    /// Returns whether the caller may approve plans.
    fn may_approve(&self, caller: Asking) -> BackendFuture<MayApprove>;
    /// Lists the users of a tenant.
    fn users(&self, tenant: TenantId) -> BackendFuture<Vec<UserView>>;
    /// Creates a user.
    fn create_user(&self, caller: Identity, principal: Principal, user: UserRequest) -> BackendFuture<UserView>;
    /// Changes a user.
    fn change_user(&self, caller: Identity, principal: Principal, user: UserRequest) -> BackendFuture<UserView>;
    /// Ends all sessions of a person; returns their number.
    fn end_sessions(&self, caller: Identity, principal: Principal) -> BackendFuture<u64>;
    /// Lists the caller's passkeys.
    fn passkeys(&self, caller: Identity) -> BackendFuture<Vec<PasskeyView>>;
    /// Returns a challenge for a new passkey, and what is kept in the cookie.
    fn registration_challenge(&self, caller: Asking) -> BackendFuture<(PasskeyOptions, String)>;
    /// Keeps a new passkey of the caller, with its name.
    fn register_passkey(
        &self,
        caller: Asking,
        challenge: String,
        passkey: (String, Registration),
    ) -> BackendFuture<PasskeyView>;
    /// Deletes a passkey of the caller.
    fn delete_passkey(&self, caller: Identity, id: String) -> BackendFuture<()>;
}
