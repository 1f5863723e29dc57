//! Reads sessions and keys again and again: what other processes changed is in force within a second.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use wardroom_domain::Timestamp;
use wardroom_identity::oidc_client::IssuerClient;
use wardroom_identity::{KEYS_LIFETIME, KEYS_PAUSE};
use wardroom_process::clock;

use crate::key_requests::KeyRequests;
use crate::service::AccessService;
use crate::session_states::session_in_force;

/// Interval between reads of the sessions. Including the time of a query, a change is in force within a second.
const SESSION_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Uses of a session are stored at most this often; the idle end is as exact.
const USED_INTERVAL: Duration = Duration::from_secs(60);
/// Sessions that ended longer ago are deleted.
const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);
/// Interval between looks at the age of keys.
const KEYS_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Polls until it is cancelled.
pub async fn run(service: AccessService, mut requests: KeyRequests) {
    tokio::join!(poll_sessions(&service), store_uses(&service), read_keys(&service, &mut requests.0));
}

async fn poll_sessions(service: &AccessService) {
    if !service.is_authenticated() {
        return;
    }
    loop {
        let (inner, now) = (&service.inner, clock::now());
        match inner.store.sessions(now).await {
            Ok(states) => {
                let in_force = states.into_iter().filter_map(|state| session_in_force(state, &inner.roles, now));
                inner.sessions.replace(Some(in_force.collect()), now);
            }
            Err(error) => {
                tracing::error!(%error, "reading sessions failed; retrying");
                inner.sessions.replace(None, now);
            }
        }
        tokio::time::sleep(SESSION_POLL_INTERVAL).await;
    }
}

async fn store_uses(service: &AccessService) {
    let mut stored: HashMap<String, Timestamp> = HashMap::new();
    loop {
        tokio::time::sleep(USED_INTERVAL).await;
        let used = service.inner.sessions.used();
        let changed: Vec<_> = used.iter().filter(|(id, at)| stored.get(id) != Some(at)).cloned().collect();
        if !changed.is_empty() {
            match service.inner.store.note_sessions_used(&changed).await {
                Ok(()) => stored = used.into_iter().collect(),
                Err(error) => tracing::error!(%error, "storing when sessions were used failed; retrying"),
            }
        }
        if let Err(error) = service.inner.store.delete_sessions_before(clock::now().minus(KEPT_AFTER_END)).await {
            tracing::error!(%error, "deleting old sessions failed; retrying");
        }
    }
}

async fn read_keys(service: &AccessService, requests: &mut mpsc::Receiver<String>) {
    let machines = &service.inner.machines;
    if machines.issuers().is_empty() {
        return;
    }
    loop {
        for issuer in machines.issuers() {
            let read_at = machines.keys_read_at(&issuer.issuer);
            if read_at.is_none_or(|at| at.plus(KEYS_LIFETIME) <= clock::now()) {
                fetch(service, &issuer.issuer).await;
            }
        }
        let asked = tokio::time::timeout(KEYS_CHECK_INTERVAL, requests.recv()).await;
        if let Ok(Some(issuer)) = asked {
            let read_at = machines.keys_read_at(&issuer);
            if read_at.is_none_or(|at| at.plus(KEYS_PAUSE) <= clock::now()) {
                fetch(service, &issuer).await;
            }
        }
    }
}

async fn fetch(service: &AccessService, name: &str) {
    let machines = &service.inner.machines;
    let Some(issuer) = machines.issuers().iter().find(|issuer| issuer.issuer == name).cloned() else { return };
    let read = tokio::task::spawn_blocking(move || {
        IssuerClient::new(issuer.ca_file.as_deref())?.keys_of(&issuer.issuer, issuer.jwks_url.as_deref())
    });
    match read.await {
        Ok(Ok(keys)) => machines.set_keys(name, keys, clock::now()),
        Ok(Err(error)) => {
            tracing::error!(issuer = name, %error, "reading an issuer's keys failed; retrying");
            // Not again at once, whatever is asked for.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(error) => tracing::error!(issuer = name, %error, "reading an issuer's keys failed"),
    }
}
