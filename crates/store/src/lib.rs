//! Relational state: tokens, incidents with their history, anomalies, and the audit log.
//!
//! SQLite in WAL mode with `synchronous=FULL`: a committed transaction survives a power cut. Each incident transition,
//! its history row and its audit entry are written in one transaction, so a crash cannot leave one without the others.
//! Several processes may open the file at once (`wardroom token create` works beside a running server).
//!
//! Change notification is in-process: [`Store::subscribe_incidents`] reports every committed incident change of this
//! process, whichever database holds the rows. Other processes write tokens only; the server polls that table.
//!
//! The store does not interpret an incident's workflow: it is JSON, versioned by its owner.
//!
//! There is no database trait: the SQL stays in the subset that PostgreSQL shares, and a second dialect is added when
//! a second database is supported.

#![forbid(unsafe_code)]

mod anomalies;
mod audit;
mod contents;
mod error;
mod health;
mod incidents;
mod probe;
mod store;
mod tokens;

pub use contents::DatabaseContents;
pub use error::Error;
pub use incidents::{HistoryRow, IncidentRow, Transition};
pub use store::{Store, database_path};
pub use tokens::{NewToken, TokenRow};
