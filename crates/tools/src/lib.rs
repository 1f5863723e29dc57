//! Tools: adapters that execute actions on target systems, and their registry.
//!
//! ```text
//! plan (dry run) ─► execute (precondition, key) ─► probe (did it take effect?) ─► undo (a call in the plan)
//!
//! executor ─► guard (target, operation, schema, limits, redaction) ─► tool ─► HTTP client, programs, credentials
//! ```
//!
//! Tools run only in the executor, the only process with targets and credentials. A tool is one file and one line in
//! [`TOOLS`]; the contract suite that every operation must pass (twice, stale, refused, undone, interrupted) is in
//! `tests/it`. A success response of a target is not trusted: every tool probes for the effect. Only targets declared
//! in the executor's configuration can be acted on. What tools share ([`Context`]) keeps the promises that no tool
//! should have to keep by itself: connections only to checked addresses, credentials by reference, programs without a
//! shell.

#![forbid(unsafe_code)]

mod blocking;
mod context;
mod exec;
mod gcp;
mod github;
mod guard;
mod http;
pub mod http_client;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod marks;
mod postgres;
mod process;
pub mod programs;
mod query_prometheus;
pub mod redaction;
mod redis;
mod registry;
mod rest;
mod restart_validator_client;
pub mod schema;
pub mod secrets;
mod systemd;
mod target;
mod tcp;
mod template;
mod terraform;
mod tls;
mod tool_kind;

pub use context::Context;
pub use registry::{TOOLS, check_targets, find, programs_of, shown, tools};
pub use secrets::{Exposed, Secret, Secrets, SecretsConfig};
pub use target::{Declared, SettingError, TARGET_FIELD, Target};
pub use tool_kind::{ToolDef, ToolKind};
