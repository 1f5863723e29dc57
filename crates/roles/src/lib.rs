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

mod gold_writer;
mod heartbeat;
pub mod metrics;
mod query_worker;
mod replay;
mod server;
mod views;

pub use query_worker::{QueryWorkerError, run_query_worker};
pub use replay::{ReplayError, ReplayOptions, ReplayReport, replay};
pub use server::serve_error::ServeError;
pub use server::serve_options::ServeOptions;
pub use server::server_sandbox::{SandboxError, check_executor_files, server_sandbox};
pub use server::startup::serve;
pub use views::dead_letters::dead_letters;
pub use views::series::dump;
pub use wardroom_api::document as openapi;
pub use wardroom_config::{self as config, Config};
pub use wardroom_data_folder::{audit_log, backup, bus_epoch, lake_tables, state_database, tokens};
pub use wardroom_edge::AuthMode;
pub use wardroom_executor as executor;
pub use wardroom_lake::{
    Lake, MaintenanceKind, MaintenanceTask, TableSnapshot, TableVerification, VacuumPolicy, VerificationProgress,
};
pub use wardroom_policy as policy;
pub use wardroom_process::{clock, crash, data_lock, log_output, sandbox, supervisor};
pub use wardroom_store::{Store, database_path};
