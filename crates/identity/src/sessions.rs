//! Sessions of people: which secret stands for whom, and when that ends.
//!
//! ```text
//! login ─► secret (cookie) ─► hash ─► SessionTable ─► Caller
//!              ▲                          │ idle end, absolute end, revocation, role of the user
//!              └── rotation ◄─────────────┘
//! ```
//!
//! Problem: a cookie is sent by itself, and may be copied. Model: only the hash of the secret is kept; the secret
//! changes every quarter of an hour, the old one counting for half a minute; a session ends when it is not used, when
//! its time is over, when it is revoked, and with its user. Guarantee: while the database cannot be read no session
//! counts, and what another process revoked ends with the next poll.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{Identity, Principal, TenantId, Timestamp};

use crate::scopes::{Scope, Scopes};
use crate::secret::random_secret;

/// Age of a secret from which it is replaced.
const ROTATION_AGE: Duration = Duration::from_secs(900);
/// Time for which a replaced secret counts: requests in flight have it.
const ROTATION_GRACE: Duration = Duration::from_secs(30);

/// How a person has logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginMethod {
    /// A password: good for reading only.
    Password,
    /// A passkey.
    Passkey,
    /// OpenID Connect.
    Oidc,
    /// A bearer token, typed in.
    Token,
}

impl LoginMethod {
    const ALL: [Self; 4] = [Self::Password, Self::Passkey, Self::Oidc, Self::Token];

    /// Returns the spelling in the database and the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Passkey => "passkey",
            Self::Oidc => "oidc",
            Self::Token => "token",
        }
    }

    /// Parses the spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == text)
    }

    /// Whether a session of this kind is for reading only.
    pub const fn is_for_reading(self) -> bool {
        matches!(self, Self::Password)
    }

    /// Returns what may be done of what the person's role permits.
    pub fn limit(self, scopes: Scopes) -> Scopes {
        match self {
            Self::Password => scopes.and([Scope::IncidentsRead].into_iter().collect()),
            Self::Passkey | Self::Oidc | Self::Token => scopes,
        }
    }
}

/// A session as it is kept.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Public id, for lists and revocation.
    pub id: String,
    /// SHA-256 of the secret, in hex.
    pub sha256: String,
    /// SHA-256 of the secret that was replaced last, and until when it counts.
    pub previous: Option<(String, Timestamp)>,
    /// What a request that changes something repeats (CSRF protection); random.
    pub csrf_token: String,
    /// The tenant.
    pub tenant: TenantId,
    /// The person.
    pub principal: Principal,
    /// What the person may do by this session.
    pub scopes: Scopes,
    /// How they have logged in.
    pub method: LoginMethod,
    /// When.
    pub created_at: Timestamp,
    /// When the secret was made.
    pub rotated_at: Timestamp,
    /// When it was used last, as far as known.
    pub used_at: Timestamp,
    /// When it ends, used or not.
    pub ends_at: Timestamp,
}

/// Who makes a request, by a session or a signed token.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Tenant, principal and the nearest role.
    pub identity: Identity,
    /// What they may do.
    pub scopes: Scopes,
    /// The session, if it is one.
    pub session: Option<ActiveSession>,
}

/// The session of a request; an extension of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveSession {
    /// Public id.
    pub id: String,
    /// How the person has logged in.
    pub method: LoginMethod,
    /// What a request that changes something repeats (CSRF protection).
    pub csrf_token: String,
    /// When it ends, used or not.
    pub ends_at: Timestamp,
    /// Whether its secret is old enough to be replaced.
    pub needs_rotation: bool,
}

/// Why a session does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// There is none of this secret: it was revoked, or never was one.
    Unknown,
    /// It has ended by time.
    Expired,
    /// The database cannot be read.
    Unavailable,
}

/// The sessions in force; cheap to clone.
#[derive(Clone, Debug)]
pub struct SessionTable {
    idle: Duration,
    sessions: Arc<RwLock<Option<Sessions>>>,
}

/// The sessions by id.
#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<String, SessionRecord>,
    /// When this process added those that a read may not have yet.
    added: HashMap<String, Timestamp>,
}

impl SessionTable {
    /// Creates a table that accepts nothing until [`SessionTable::replace`]. A session ends when it is not used for
    /// `idle`.
    pub fn new(idle: Duration) -> Self {
        Self { idle, sessions: Arc::default() }
    }

    /// Replaces the sessions with those that were read; `None` means that they cannot be read. Keeps what this process
    /// knows better: when each was used, and sessions that were added since the read began.
    pub fn replace(&self, read: Option<Vec<SessionRecord>>, began_at: Timestamp) {
        let mut table = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        let Sessions { by_id: known, mut added } = table.take().unwrap_or_default();
        added.retain(|_, at| *at >= began_at);
        *table = read.map(|read| {
            let mut by_id: HashMap<String, SessionRecord> =
                read.into_iter().map(|session| (session.id.clone(), session)).collect();
            for (id, mut session) in known {
                match by_id.get_mut(&id) {
                    Some(read) => {
                        read.used_at = read.used_at.max(session.used_at);
                        if session.rotated_at > read.rotated_at {
                            session.scopes = read.scopes;
                            session.used_at = read.used_at;
                            *read = session;
                        }
                    }
                    None if added.contains_key(&id) => drop(by_id.insert(id, session)),
                    None => {}
                }
            }
            Sessions { by_id, added }
        });
    }

    /// Adds a session that was stored just now.
    pub fn insert(&self, session: SessionRecord, now: Timestamp) {
        let mut table = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        // While they cannot be read, none counts.
        if let Some(sessions) = table.as_mut() {
            sessions.added.insert(session.id.clone(), now);
            sessions.by_id.insert(session.id.clone(), session);
        }
    }

    /// Removes the sessions that were revoked just now.
    pub fn remove(&self, is_revoked: impl Fn(&SessionRecord) -> bool) {
        let mut table = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        table.iter_mut().for_each(|sessions| sessions.by_id.retain(|_, session| !is_revoked(session)));
    }

    /// Returns whom a secret stands for, and notes that it was used.
    ///
    /// # Errors
    /// Returns why the session does not count.
    pub fn authenticate(&self, secret: &str, now: Timestamp) -> Result<Caller, SessionEnd> {
        let digest = sha256_hex(secret.as_bytes());
        let mut table = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        let sessions = table.as_mut().ok_or(SessionEnd::Unavailable)?;
        let is_it = |session: &&mut SessionRecord| {
            session.sha256 == digest
                || session.previous.as_ref().is_some_and(|(previous, until)| *previous == digest && *until > now)
        };
        let session = sessions.by_id.values_mut().find(is_it).ok_or(SessionEnd::Unknown)?;
        if session.ends_at <= now || session.used_at.plus(self.idle) <= now {
            return Err(SessionEnd::Expired);
        }
        session.used_at = session.used_at.max(now);
        let is_current = session.sha256 == digest;
        Ok(session.caller(is_current && session.rotated_at.plus(ROTATION_AGE) <= now))
    }

    /// Replaces the secret of a session; returns the new secret and the session to be stored. `None` if it is gone or
    /// another request has replaced the secret already.
    pub fn rotate(&self, id: &str, now: Timestamp) -> Option<(String, SessionRecord)> {
        let mut table = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        let session =
            table.as_mut()?.by_id.get_mut(id).filter(|session| session.rotated_at.plus(ROTATION_AGE) <= now)?;
        let (secret, sha256) = random_secret();
        let previous = std::mem::replace(&mut session.sha256, sha256);
        session.previous = Some((previous, now.plus(ROTATION_GRACE)));
        session.rotated_at = now;
        Some((secret, session.clone()))
    }

    /// Returns when each session was used last, to be stored.
    pub fn used(&self) -> Vec<(String, Timestamp)> {
        let table = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let sessions = table.iter().flat_map(|sessions| &sessions.by_id);
        sessions.map(|(id, session)| (id.clone(), session.used_at)).collect()
    }

    /// Returns whether a session that was used then has ended by not being used.
    pub fn is_idle(&self, used_at: Timestamp, now: Timestamp) -> bool {
        used_at.plus(self.idle) <= now
    }
}

impl SessionRecord {
    /// Returns whom the session stands for.
    pub fn caller(&self, needs_rotation: bool) -> Caller {
        let identity = Identity {
            tenant: self.tenant.clone(),
            principal: self.principal.clone(),
            role: self.scopes.nearest_role(),
        };
        let session = ActiveSession {
            id: self.id.clone(),
            method: self.method,
            csrf_token: self.csrf_token.clone(),
            ends_at: self.ends_at,
            needs_rotation,
        };
        Caller { identity, scopes: self.scopes, session: Some(session) }
    }
}

#[cfg(test)]
mod tests;
