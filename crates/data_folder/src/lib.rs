//! The data folder as a whole: what commands do to it, and what a server checks before it starts on it.
//!
//! ```text
//! data/  bus/  checkpoint/  dead-letters/  lake/  state/wardroom.db  executor/
//!          └───────┬────────────┴───────────┘          └───────┬───────┘
//!              bus_epoch                     state_database, audit_log, tokens
//!          └──────────────────────────── backup ───────────────┘
//! ```
//!
//! The parts belong to one another: the checkpoint and the tables name offsets of the bus, and the executor's ledger
//! has signed the audit log. Each part can be damaged, deleted or restored without the others, so that what was
//! acknowledged would be lost silently. This crate compares the parts, and copies them in an order in which a copy is
//! consistent.

#![forbid(unsafe_code)]

pub mod audit_log;
pub mod backup;
pub mod bus_epoch;
pub mod lake_tables;
pub mod state_database;
pub mod tokens;
