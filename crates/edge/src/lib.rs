//! What every port does first, for every request, before anything else looks at it.
//!
//! ```text
//! listener ─► correlation id ─► matched route ─► credential ─► access role ─► body limit ─► handler
//!                                                   │ 401 / 503     │ 403        │ 413 / 503
//!                                                   └──────── problem+json, metric, audit ────────┘
//! ```
//!
//! Authorisation happens after routing, on the matched route, so that a disguised path can never be
//! seen differently by router and guard. A route cannot be mounted without saying who may use it
//! ([`Access`]); the list of all routes is public so that tests can walk it. The tenant comes from the
//! credential, never from a header.

#![forbid(unsafe_code)]

mod access;
mod auth;
mod body;
mod config;
mod inflate;
mod listen;
pub mod metrics;
mod port;
mod problem;

/// An HTTP status, for those who name no HTTP library themselves.
pub use axum::http::StatusCode as Status;

pub use access::{Access, Route, Routes};
pub use auth::{AuthMode, KnownToken, Refused, RefusedHook, TokenTable, mint_token, same_secret, secret};
pub use body::read_body;
pub use config::Config;
pub use inflate::{InflateBudget, InflateError, Inflated, Share};
pub use listen::listen_otlp_grpc;
pub use port::Port;
pub use problem::Problem;
