//! The commands that talk to a running server over HTTP, and what all commands print.
//!
//! ```text
//! arguments ─► command ─► client ─► HTTP API of a server
//!                 │
//!                 ▼
//!              columns ─► output: table, wide, JSON, YAML ─► stdout, exit code
//! ```
//!
//! Each command is one file with its arguments and a `run` function. A command that prints data declares its columns as
//! an array; the output decides from the arguments and the terminal what a person or a program gets. Nothing here opens
//! a data folder or knows the server's code: the program adds the commands that do.

#![forbid(unsafe_code)]

mod age;
pub mod approver_key;
pub mod ask;
pub mod audit_remote;
pub mod autonomy;
pub mod client;
pub mod columns;
pub mod completion;
pub mod dead_letters;
pub mod doctor;
pub mod duration;
pub mod estate;
pub mod exit_code;
pub mod incidents;
pub mod lake_usage;
pub mod logs;
pub mod man;
mod metrics_text;
pub mod output;
pub mod policy_remote;
pub mod presentation;
pub mod recent_changes;
pub mod resume;
pub mod sample_pages;
pub mod server_lists;
pub mod server_tls;
pub mod sql;
pub mod stop_all;
pub mod table_layout;
pub mod table_output;
pub mod token_remote;
pub mod tool_targets;
pub mod trace;
pub mod users;
pub mod watch;
