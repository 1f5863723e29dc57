//! The composition root: the only crate that depends on all others.
//!
//! ```text
//! supervisor ──┬─► server (sandboxed): intake ─► bus ─► detection ─► response ─► API
//!              └─► executor (own secrets, own ledger)
//! ```
//!
//! A role reads from the bus or the store, calls a pure core for the next action, performs the effects that the core
//! returns, and persists the result. No decisions are made here. Three processes keep untrusted input away from
//! credentials: the supervisor parses nothing, the server, which parses everything, is sandboxed with Landlock, and
//! only the executor has credentials; it checks every plan itself.

#![forbid(unsafe_code)]

pub mod backup;
mod backup_status;
pub mod bus_epoch;
pub mod config;
mod gold_writer;
mod heartbeat;
pub mod metrics;
mod problem_responses;
mod replay;
mod respond;
mod server;
pub mod state_database;
pub mod tokens;
mod views;

pub use config::Config;
pub use replay::{ReplayError, ReplayOptions, ReplayReport, replay};
pub use server::serve_error::ServeError;
pub use server::serve_options::ServeOptions;
pub use server::startup::serve;
pub use views::dead_letters::dead_letters;
pub use views::series::dump;
pub use wardroom_api::document as openapi;
pub use wardroom_edge::AuthMode;
pub use wardroom_executor as executor;
pub use wardroom_lake::{Lake, MaintenanceKind, MaintenanceTask, TableSnapshot, VacuumPolicy};
pub use wardroom_process::{clock, crash, data_lock, log_output, sandbox, supervisor};
pub use wardroom_store::{Store, database_path};
