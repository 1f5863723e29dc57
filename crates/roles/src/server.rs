//! The server process: all roles except the executor, in one sandboxed process.

mod api_backend;
mod approver_check;
mod audit_configuration;
mod audit_rejections;
mod audit_signer;
mod detection_startup;
mod first_token;
mod housekeeping;
mod lake_access;
mod port_thread;
mod query_workers;
mod readiness;
mod series_reads;
pub(crate) mod serve_error;
pub(crate) mod serve_options;
pub(crate) mod server_sandbox;
pub(crate) mod startup;
