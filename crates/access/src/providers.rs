//! Logins and approvals by providers of OpenID Connect.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use wardroom_api::{BegunLogin, LoginAnswer};
use wardroom_domain::Timestamp;
use wardroom_edge::Problem;
use wardroom_identity::config::Provider;
use wardroom_identity::jwk_set::JwkSet;
use wardroom_identity::jws;
use wardroom_identity::oidc_client::{CodeExchange, IssuerClient, IssuerError, IssuerMetadata};
use wardroom_identity::oidc_login::{LoggedIn, PendingLogin};
use wardroom_identity::scopes::Roles;
use wardroom_identity::{Config, KEYS_LIFETIME, KEYS_PAUSE};
use wardroom_process::clock;

use crate::problems::{bad_login, not_found};

/// The configured providers, with what they say about themselves; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Providers {
    base_url: String,
    listed: Arc<[Provider]>,
    /// By issuer.
    known: Arc<Mutex<HashMap<String, KnownIssuer>>>,
}

#[derive(Clone, Debug)]
struct KnownIssuer {
    metadata: IssuerMetadata,
    keys: JwkSet,
    read_at: Timestamp,
}

impl Providers {
    pub(crate) fn new(config: &Config) -> Self {
        Self { base_url: config.base_url(), listed: config.providers.as_slice().into(), known: Arc::default() }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.listed.iter().map(|provider| provider.name.clone()).collect()
    }

    /// Names of the providers that prove approvals.
    pub(crate) fn names_for_approvals(&self) -> Vec<String> {
        let proving = self.listed.iter().filter(|provider| provider.approval_client_id.is_some());
        proving.map(|provider| provider.name.clone()).collect()
    }

    pub(crate) fn find(&self, name: &str) -> Result<&Provider, Problem> {
        let found = self.listed.iter().find(|provider| provider.name == name);
        found.ok_or_else(|| not_found("no_such_provider", format!("there is no provider {name:?}")))
    }

    fn redirect(&self, pending: &PendingLogin) -> String {
        let end = if pending.time.is_some() { "approved" } else { "callback" };
        format!("{}/auth/oidc/{}/{end}", self.base_url, pending.provider)
    }

    /// Returns where a browser is sent for what has begun.
    pub(crate) async fn begin(&self, pending: PendingLogin) -> Result<BegunLogin, Problem> {
        let provider = self.find(&pending.provider)?.clone();
        let known = self.issuer(&provider, None).await?;
        let endpoint = &known.metadata.authorization_endpoint;
        let failed = |reason: String| Problem::unavailable("issuer_unavailable", reason);
        let location = pending.authorization_url(&provider, endpoint, &self.redirect(&pending)).map_err(failed)?;
        Ok(BegunLogin { location, cookie: pending.to_cookie().map_err(failed)? })
    }

    /// Exchanges the code of an answer for an ID token.
    pub(crate) async fn id_token(&self, answer: &LoginAnswer) -> Result<String, Problem> {
        let provider = self.find(&answer.provider)?.clone();
        // An answer of another provider, whose code must not be shown to this one.
        if answer.issuer.as_ref().is_some_and(|issuer| *issuer != provider.issuer) {
            return Err(Problem::bad_request("login_refused", "the answer is one of another issuer; begin again"));
        }
        let known = self.issuer(&provider, None).await?;
        let (code, pending, redirect) = (answer.code.clone(), answer.pending.clone(), self.redirect(&answer.pending));
        let exchanged = tokio::task::spawn_blocking(move || {
            let failed = |reason: String| IssuerError { url: provider.issuer.clone(), reason };
            // The client for approvals is public.
            let secret = if pending.time.is_some() { None } else { provider.read_secret().map_err(failed)? };
            let exchange = CodeExchange {
                client_id: pending.client_id(&provider).map_err(failed)?,
                client_secret: secret.as_deref(),
                code: &code,
                verifier: &pending.verifier,
                redirect: &redirect,
            };
            IssuerClient::new(provider.ca_file.as_deref())?.exchange(&known.metadata, exchange)
        });
        joined(exchanged.await)
            .map_err(|error| Problem::bad_request("login_refused", format!("the code cannot be exchanged: {error}")))
    }

    /// Verifies the ID token of a login, and returns who has logged in.
    pub(crate) async fn person(&self, answer: &LoginAnswer, token: &str, roles: &Roles) -> Result<LoggedIn, Problem> {
        let provider = self.find(&answer.provider)?;
        let key_id = jws::key_id(token).map_err(|error| bad_login(error.to_string()))?;
        let known = self.issuer(provider, key_id.as_deref()).await?;
        let person = answer.pending.finish(token, provider, &known.keys, roles, clock::now());
        person.map_err(|error| Problem::bad_request("login_refused", error.to_string()))
    }

    /// Returns what an issuer says about itself, with its keys; read again when that is old or lacks a key.
    async fn issuer(&self, provider: &Provider, key_id: Option<&str>) -> Result<KnownIssuer, Problem> {
        let (issuer, now) = (provider.issuer.clone(), clock::now());
        let kept = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&issuer).cloned();
        if let Some(kept) = kept {
            let lifetime = if key_id.is_none_or(|id| kept.keys.has(id)) { KEYS_LIFETIME } else { KEYS_PAUSE };
            if kept.read_at.plus(lifetime) > now {
                return Ok(kept);
            }
        }
        let ca_file = provider.ca_file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let client = IssuerClient::new(ca_file.as_deref())?;
            let metadata = client.discover(&issuer)?;
            let keys = client.keys(&metadata.jwks_uri)?;
            Ok(KnownIssuer { metadata, keys, read_at: now })
        });
        let known = joined(read.await).map_err(|error| Problem::unavailable("issuer_unavailable", error))?;
        let mut table = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(provider.issuer.clone(), known.clone());
        Ok(known)
    }
}

fn joined<T>(result: Result<Result<T, IssuerError>, tokio::task::JoinError>) -> Result<T, String> {
    match result {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
