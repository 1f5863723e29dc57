//! Relational state: tokens, users, sessions, incidents with their history, effects, anomalies, and the audit log.
//!
//! SQLite in WAL mode with `synchronous=FULL`, or PostgreSQL: a committed transaction survives a power cut. Each
//! incident transition, its history row, its audit entry and the effects that it wants are written in one transaction,
//! so a crash cannot leave one without the others. Several processes may use the database at once (`wardroom token
//! create` works beside a running server).
//!
//! Change notification is in-process: [`Store::subscribe_incidents`] reports every committed incident change of this
//! process, whichever database holds the rows. Other processes write tokens only; the server polls that table.
//!
//! The store does not interpret an incident's workflow: it is JSON, versioned by its owner.
//!
//! There is no database trait: the SQL stays in the subset that both databases share, and one type runs it on either
//! (`database.rs`). What differs, opening, migrating and checking, stands beside each other in `store.rs`.

#![forbid(unsafe_code)]

mod anomalies;
mod audit;
mod audit_pages;
mod autonomy;
mod contents;
mod database;
mod effects;
mod error;
mod health;
mod incident_pages;
mod incident_split;
mod incidents;
mod passkeys;
mod probe;
mod requests;
mod sessions;
mod store;
mod tokens;
mod users;

pub use audit_pages::AuditRow;
pub use autonomy::AutonomyRow;
pub use contents::DatabaseContents;
pub use effects::{Changes, EffectRow, FinishedEffect, NewEffect, Worker};
pub use error::Error;
pub use incident_pages::IncidentOrder;
pub use incident_split::IncidentSplit;
pub use incidents::{HistoryRow, IncidentRevision, IncidentRow, Transition};
pub use passkeys::PasskeyRow;
pub use requests::{RequestAnswer, RequestRow};
pub use sessions::{EndedSessions, SessionRow, SessionState};
pub use store::{Store, database_path};
pub use tokens::{NewToken, TokenRow};
pub use users::{UserChange, UserRow};
