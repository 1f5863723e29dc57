//! What is remembered of requests with an `Idempotency-Key`.

use wardroom_domain::Identity;

use crate::backend_future::Ask;

/// A request with a key.
#[derive(Clone, Debug)]
pub struct KeyedRequest {
    /// The caller; keys of different callers are different.
    pub caller: Identity,
    /// The key.
    pub key: String,
    /// SHA-256 of method, path, query and body, in hex.
    pub fingerprint: String,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Nothing, until now: the request is to be handled.
    New,
    /// The request is being handled.
    Running,
    /// The request was being handled when the server stopped: whether it took effect is unknown.
    Unknown,
    /// Another request has this key.
    OtherRequest,
    /// The request was answered.
    Answered(Answer),
}

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Content type; empty for none.
    pub content_type: String,
    /// The body; `None` if it is not kept: it has a secret, or is large.
    pub body: Option<String>,
}

/// Remembers requests.
#[derive(Clone)]
pub struct RequestsBackend {
    /// Notes that a request begins; returns what was known of its key before.
    pub begin: Ask<KeyedRequest, KeyState>,
    /// Notes the answer; `None` if nothing was done, so that the key is free again.
    pub end: Ask<(KeyedRequest, Option<Answer>), ()>,
}

impl std::fmt::Debug for RequestsBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestsBackend").finish_non_exhaustive()
    }
}
