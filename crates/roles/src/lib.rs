//! The composition root: the only crate that knows all the others. One file per role.
//!
//! ```text
//! supervisor ──┬─► serve (confined): intake ─► bus ─► detect ─► respond ─► api
//!              └─► executor (its own secrets, its own ledger)
//! ```
//!
//! A role pumps: it reads from the bus or the store, asks a pure core what that means, performs the
//! effects it names, and persists. Nothing here decides anything. Three processes keep hostile bytes away
//! from credentials: the supervisor parses nothing, the server that parses everything is confined by
//! Landlock, and the executor alone holds credentials and checks every plan for itself.

#![forbid(unsafe_code)]

pub mod backups;
pub mod config;
mod gold;
mod heartbeat;
pub mod metrics;
mod replay;
mod respond;
mod serve;
pub mod tokens;
mod views;

pub use config::Config;
pub use replay::{ReplayError, ReplayOptions, Replayed, replay};
pub use views::dead_letters;
pub use wardroom_api::document as openapi;
pub use wardroom_bus::ReadOnlyBus;
pub use wardroom_edge::AuthMode;
pub use wardroom_executor as executor;
pub use wardroom_lake::{Chore, Deed, Holds, Lake, Sweep};
pub use wardroom_pipeline::samples::dump;
pub use wardroom_process::{clock, crash, isolation};
pub use wardroom_store::{Store, database};

pub use serve::{ServeError, ServeOptions, serve};
