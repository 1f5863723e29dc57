//! The service: what all steps share, and the begin and end of sessions.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use wardroom_api::NewSession;
use wardroom_domain::executor::{ListedApprover, Request, Response};
use wardroom_domain::{Principal, TenantId};
use wardroom_edge::{AuthMode, Callers, Problem, TokenTable};
use wardroom_executor::ExecutorClient;
use wardroom_identity::Config;
use wardroom_identity::machine_tokens::MachineTokens;
use wardroom_identity::scopes::{Roles, Scopes};
use wardroom_identity::secret::{random_secret, random_text};
use wardroom_identity::sessions::{ActiveSession, LoginMethod, SessionRecord, SessionTable};
use wardroom_identity::throttle::LoginThrottle;
use wardroom_process::clock;
use wardroom_store::{EndedSessions, Store};

use crate::audit::{RefusalAudit, entry};
use crate::key_requests::KeyRequests;
use crate::problems::{store_problem, too_many_logins};
use crate::providers::Providers;
use crate::session_states::row;

/// Passwords that are hashed at the same time: each takes 19 MiB and tens of milliseconds of a processor.
const HASHING_AT_ONCE: usize = 2;
/// Keys that are asked for and not read yet.
const KEY_REQUESTS: usize = 64;

/// The steps of logins, users and passkeys; cheap to clone.
#[derive(Clone)]
pub struct AccessService {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) roles: Roles,
    pub(crate) sessions: SessionTable,
    pub(crate) machines: MachineTokens,
    pub(crate) tokens: TokenTable,
    pub(crate) executor: ExecutorClient,
    pub(crate) providers: Providers,
    pub(crate) refusals: RefusalAudit,
    pub(crate) hashing: Semaphore,
    throttle: Mutex<LoginThrottle>,
    key_requests: mpsc::Sender<String>,
}

impl std::fmt::Debug for AccessService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessService").finish_non_exhaustive()
    }
}

/// A login that was proved.
pub(crate) struct Proved {
    pub(crate) tenant: TenantId,
    pub(crate) principal: Principal,
    pub(crate) method: LoginMethod,
    /// What the person's role permits.
    pub(crate) scopes: Scopes,
    /// The token or passkey.
    pub(crate) credential: Option<String>,
}

/// Creates the service, and what its polling task needs.
pub fn new_service(
    config: &Config,
    store: &Store,
    tokens: &TokenTable,
    executor: &ExecutorClient,
) -> (AccessService, KeyRequests) {
    let (key_requests, receiver) = mpsc::channel(KEY_REQUESTS);
    let inner = Inner {
        store: store.clone(),
        roles: config.role_table(),
        sessions: SessionTable::new(Duration::from_secs(config.session_idle_minutes.saturating_mul(60))),
        machines: MachineTokens::new(&config.machines),
        tokens: tokens.clone(),
        executor: executor.clone(),
        providers: Providers::new(config),
        refusals: RefusalAudit::default(),
        hashing: Semaphore::new(HASHING_AT_ONCE),
        throttle: Mutex::default(),
        key_requests,
        config: config.clone(),
    };
    (AccessService { inner: Arc::new(inner) }, KeyRequests(receiver))
}

impl AccessService {
    /// Returns the credentials that the listeners accept beside tokens.
    pub fn callers(&self) -> Callers {
        let Inner { sessions, machines, key_requests, store, config, .. } = self.inner.as_ref();
        let (key_requests, store) = (key_requests.clone(), store.clone());
        Callers {
            sessions: sessions.clone(),
            machines: machines.clone(),
            read_keys: Arc::new(move |issuer| {
                // A full channel means that they are being read.
                let _result = key_requests.try_send(issuer);
            }),
            store_rotation: Arc::new(move |session: SessionRecord| {
                let store = store.clone();
                Box::pin(async move {
                    let stored = store.rotate_session(&row(&session, None)).await;
                    if let Err(error) = &stored {
                        tracing::error!(%error, "storing the new secret of a session failed");
                    }
                    stored.is_ok()
                })
            }),
            is_https: config.is_https(),
        }
    }

    fn throttle(&self) -> MutexGuard<'_, LoginThrottle> {
        self.inner.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a login while too many have failed.
    pub(crate) fn check_throttle(&self, account: &str, address: Option<IpAddr>) -> Result<(), Problem> {
        self.throttle().check(account, address, clock::now()).map_err(too_many_logins)
    }

    /// Counts and audits a refused login.
    pub(crate) async fn note_refused(
        &self,
        (tenant, account): (&TenantId, &str),
        method: LoginMethod,
        address: Option<IpAddr>,
        reason: &str,
    ) {
        self.throttle().note_failure(account, address, clock::now());
        let decision = json!({ "method": method.as_str(), "name": account, "address": address, "reason": reason });
        self.inner.refusals.note(&self.inner.store, tenant, decision).await;
    }

    /// Begins a session, with its audit entry.
    pub(crate) async fn begin(&self, proved: Proved, address: Option<IpAddr>) -> Result<NewSession, Problem> {
        let Proved { tenant, principal, method, scopes, credential } = proved;
        let (now, (secret, sha256)) = (clock::now(), random_secret());
        let hours = self.inner.config.session_hours;
        let record = SessionRecord {
            id: format!("ses_{}", random_text().chars().take(16).collect::<String>()),
            sha256,
            previous: None,
            csrf_token: random_text(),
            scopes: method.limit(scopes),
            method,
            created_at: now,
            rotated_at: now,
            used_at: now,
            ends_at: now.plus(Duration::from_secs(hours.saturating_mul(3600))),
            tenant,
            principal,
        };
        let decision = json!({ "method": method.as_str(), "session": record.id, "scopes": record.scopes.words(),
            "address": address });
        let audit = entry(&record.tenant, &record.principal, "login", decision);
        let stored = self.inner.store.create_session(&row(&record, credential), &audit).await;
        stored.map_err(store_problem)?;
        self.throttle().note_success(record.principal.as_str());
        let identity = record.caller(false).identity;
        let session = ActiveSession {
            id: record.id.clone(),
            method,
            csrf_token: record.csrf_token.clone(),
            ends_at: record.ends_at,
            needs_rotation: false,
        };
        self.inner.sessions.insert(record, clock::now());
        Ok(NewSession { secret, identity, session })
    }

    /// Ends sessions: in this process at once, in others with their next poll. Returns their number.
    pub(crate) async fn end(
        &self,
        (tenant, by): (&TenantId, &Principal),
        which: EndedSessions,
        action: &str,
    ) -> Result<u64, Problem> {
        let decision = match &which {
            EndedSessions::One(id) => json!({ "session": id }),
            EndedSessions::OfPrincipal(principal) => json!({ "principal": principal }),
        };
        let audit = entry(tenant, by, action, decision);
        let ended = self.inner.store.end_sessions(tenant, &which, clock::now(), &audit).await.map_err(store_problem)?;
        self.inner.sessions.remove(|session| {
            session.tenant == *tenant
                && match &which {
                    EndedSessions::One(id) => session.id == *id,
                    EndedSessions::OfPrincipal(principal) => session.principal == *principal,
                }
        });
        Ok(ended)
    }

    /// Returns the executor's approvers.
    pub(crate) async fn approvers(&self) -> Result<Vec<ListedApprover>, String> {
        match self.inner.executor.check(&Request::Approvers).await {
            Ok(Response::Approvers { approvers, .. }) => Ok(approvers),
            Ok(Response::Refused { detail, .. }) => Err(detail),
            Ok(_) => Err("it gave another answer".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns whether callers are authenticated.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.inner.tokens.mode() == AuthMode::On
    }
}
