//! Users: created, changed and listed by administrators of their tenant.

use serde_json::json;
use wardroom_api::{UserRequest, UserView};
use wardroom_domain::{AccessRole, Identity, Principal, TenantId};
use wardroom_edge::{Problem, Status};
use wardroom_identity::password::{check_new_password, hash_password, password_matches};
use wardroom_identity::sessions::LoginMethod;
use wardroom_process::clock;
use wardroom_store::{EndedSessions, UserChange, UserRow};

use crate::audit::entry;
use crate::problems::{bad_login, not_found, store_problem};
use crate::service::{AccessService, Proved};

impl AccessService {
    /// Begins a session by a password.
    pub(crate) async fn log_in_by_password(
        &self,
        login: wardroom_api::PasswordLogin,
    ) -> Result<wardroom_api::NewSession, Problem> {
        let wardroom_api::PasswordLogin { tenant, principal, password, address } = login;
        self.check_throttle(principal.as_str(), address)?;
        let user = self.inner.store.user(&tenant, &principal).await.map_err(store_problem)?;
        let user = user.filter(|user| user.disabled_at.is_none());
        let hash = user.as_ref().and_then(|user| user.password.clone());
        let matches = self.hash(move || password_matches(&password, hash.as_deref())).await?;
        let scopes = user.filter(|_| matches).and_then(|user| self.inner.roles.scopes(&user.role));
        let Some(scopes) = scopes else {
            let wrong = "the name or the password is wrong";
            self.note_refused((&tenant, principal.as_str()), LoginMethod::Password, address, wrong).await;
            return Err(bad_login(wrong));
        };
        let proved = Proved { tenant, principal, method: LoginMethod::Password, scopes, credential: None };
        self.begin(proved, address).await
    }

    /// Runs the hashing of a password on another thread, a few at a time.
    async fn hash<T: Send + 'static>(&self, hash: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let unavailable = |reason: String| Problem::unavailable("hashing_unavailable", reason);
        let _permit = self.inner.hashing.acquire().await.map_err(|error| unavailable(error.to_string()))?;
        tokio::task::spawn_blocking(hash).await.map_err(|error| unavailable(error.to_string()))
    }

    pub(crate) async fn list_users(&self, tenant: &TenantId) -> Result<Vec<UserView>, Problem> {
        let mut views = Vec::new();
        for user in self.inner.store.users(tenant).await.map_err(store_problem)? {
            views.push(self.user_view(user).await?);
        }
        Ok(views)
    }

    async fn user_view(&self, user: UserRow) -> Result<UserView, Problem> {
        let passkeys = self.inner.store.passkeys(&user.tenant, &user.principal).await.map_err(store_problem)?;
        Ok(UserView {
            principal: user.principal.to_string(),
            role: user.role,
            enabled: user.disabled_at.is_none(),
            has_password: user.password.is_some(),
            passkeys: passkeys.len(),
            created_at: user.created_at,
        })
    }

    pub(crate) async fn add_user(
        &self,
        caller: &Identity,
        principal: Principal,
        request: UserRequest,
    ) -> Result<UserView, Problem> {
        let role = request.role.clone().unwrap_or_else(|| AccessRole::Viewer.as_str().to_owned());
        self.check_role(&role)?;
        let user = UserRow {
            tenant: caller.tenant.clone(),
            principal,
            role,
            password: self.hashed(request.password).await?,
            created_at: clock::now(),
            disabled_at: None,
        };
        let decision = json!({ "user": user.principal, "role": user.role, "password": user.password.is_some() });
        let audit = entry(&caller.tenant, &caller.principal, "create_user", decision);
        if !self.inner.store.create_user(&user, &audit).await.map_err(store_problem)? {
            let detail = format!("there is a user {} already; change it", user.principal);
            return Err(Problem::new(Status::CONFLICT, "user_exists", detail));
        }
        self.user_view(user).await
    }

    pub(crate) async fn update_user(
        &self,
        caller: &Identity,
        principal: Principal,
        request: UserRequest,
    ) -> Result<UserView, Problem> {
        if let Some(role) = &request.role {
            self.check_role(role)?;
        }
        let decision = json!({ "user": principal, "role": request.role, "enabled": request.enabled,
            "password": request.password.is_some() });
        let ends_sessions = request.password.is_some() || request.enabled == Some(false);
        let password = self.hashed(request.password).await?;
        let change = UserChange { role: request.role, password, enabled: request.enabled };
        let audit = entry(&caller.tenant, &caller.principal, "change_user", decision);
        let changed = self.inner.store.change_user(&caller.tenant, &principal, &change, clock::now(), &audit).await;
        let unknown = || not_found("no_such_user", format!("there is no user {principal}"));
        if !changed.map_err(store_problem)? {
            return Err(unknown());
        }
        if ends_sessions {
            let which = EndedSessions::OfPrincipal(principal.clone());
            self.end((&caller.tenant, &caller.principal), which, "end_sessions").await?;
        }
        let user = self.inner.store.user(&caller.tenant, &principal).await.map_err(store_problem)?;
        self.user_view(user.ok_or_else(unknown)?).await
    }

    fn check_role(&self, role: &str) -> Result<(), Problem> {
        if role == AccessRole::Sender.as_str() {
            return Err(Problem::bad_request("bad_role", "field role: a sender is a program; create a token for it"));
        }
        let known = self.inner.roles.scopes(role).is_some();
        let names = self.inner.roles.names();
        let detail = || format!("field role: there is no role {role:?}; there are {names}");
        if known { Ok(()) } else { Err(Problem::bad_request("bad_role", detail())) }
    }

    async fn hashed(&self, password: Option<String>) -> Result<Option<String>, Problem> {
        let Some(password) = password else { return Ok(None) };
        let bad = |reason: String| Problem::bad_request("bad_password", format!("field password: {reason}"));
        check_new_password(&password).map_err(bad)?;
        self.hash(move || hash_password(&password)).await?.map(Some).map_err(bad)
    }
}
