//! The configuration of the whole program.
//!
//! ```text
//! defaults ◄── configuration file ◄── WARDROOM_<SECTION>__<FIELD>   (load)
//!                     │
//!                     ▼
//!                  Config ── check_values, check_folders ──► problems: field, reason, remedy
//! ```
//!
//! Each crate defines and checks its own section; this crate joins them and adds what concerns the program as a whole:
//! backups and the heartbeat. Every field has a default, and an unknown field is an error. Secrets have a form that may
//! be shown ([`Config::with_hidden_secrets`]).

#![forbid(unsafe_code)]

mod config;
mod config_check;
mod conventions;
mod load;
mod policy_file;
mod secret_reference;
mod store_config;

pub use config::{BackupConfig, Config, HeartbeatConfig};
pub use load::{LoadError, load, load_with_folders, schema};
pub use policy_file::{PolicyRules, read_policy};
pub use store_config::{PasswordError, StoreConfig};
