//! Who a caller is: what proves it, and for how long.
//!
//! ```text
//! password, webauthn, oidc_login ─► a person ─► sessions ─┐
//! machine_tokens (JWT) ───────────────────────────────────┴─► Caller: tenant, principal, role, scopes
//! jws, jwk_set, claims, id_token: signed tokens      oidc_client: the only requests
//! throttle: how often a login may be tried           cookies: their form
//! ```
//!
//! Problem: a credential is input of an attacker. Model: pure decisions over parsed credentials, with keys, settings
//! and the time as arguments; one file makes requests. The server and the executor use the same verification, each with
//! settings of its own. Guarantee: nothing else here reads a clock, a file or a database, and no error repeats a
//! credential.

#![forbid(unsafe_code)]

pub mod claims;
pub mod config;
pub mod cookies;
pub mod id_token;
pub mod jwk_set;
pub mod jws;
pub mod machine_tokens;
pub mod oidc_client;
pub mod oidc_login;
pub mod password;
pub mod public_key;
pub mod scopes;
pub mod secret;
pub mod sessions;
pub mod throttle;
pub mod webauthn;

use std::time::Duration;

pub use config::Config;

/// Shortest time between two reads of an issuer's keys, whatever tokens are sent.
pub const KEYS_PAUSE: Duration = Duration::from_secs(10);
/// Time after which an issuer's keys are read again.
pub const KEYS_LIFETIME: Duration = Duration::from_secs(300);
