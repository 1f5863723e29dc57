//! The HTTP listeners: what happens to every request before its handler runs.
//!
//! ```text
//! listener ─► TLS ─► correlation id ─► matched route ─► credential ─► access role ─► body limit ─► handler
//!                                                           │ 401 / 503     │ 403        │ 413 / 503
//!                                                           └──────── problem+json, metric, audit ────────┘
//! ```
//!
//! Authorisation runs after routing, on the matched route, so router and access check cannot interpret a path
//! differently. Every route declares its access level ([`Access`]); the list of all routes is public, so tests can
//! cover each of them. The tenant comes from the credential, never from a header.

#![forbid(unsafe_code)]

mod auth;
mod budget;
mod callers;
mod config;
mod connections;
mod forwarded;
mod inflate_budget;
mod listeners;
pub mod metrics;
mod port;
mod problem;
mod rate_limit;
mod read_body;
mod request_origin;
mod routes;
mod serve;
mod tls;
mod transport;

/// Headers and an HTTP status, for crates without a dependency on an HTTP library.
pub use axum::http::{HeaderMap, StatusCode as Status};

pub use auth::{
    AuthMode, KnownToken, RejectedRequest, RejectionHook, TokenTable, extract_secret, generate_token, secrets_match,
};
pub use budget::BudgetPermit;
pub use callers::{CSRF_HEADER, Callers, ClientAddress, StoreRotationFn, login_cookie, session_secret};
pub use config::Config;
pub use inflate_budget::{InflateBudget, InflateError, InflatedBody};
pub use listeners::{ListenError, Listener, Listeners, bind_listeners};
pub use port::Port;
pub use problem::{Problem, WARNING_HEADER};
pub use read_body::{BodyBudget, ReceivedBody, read_body};
pub use request_origin::check_form_origin;
pub use routes::{Access, Route, Routes};
pub use tls::{Certificates, ListenerTls, TlsConfig, TlsError};
