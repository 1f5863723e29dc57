//! The durable log that every accepted request is appended to before it is acknowledged.
//!
//! ```text
//! append(envelope, body) ──► writer thread: write all queued appends ─► one fdatasync ─► offsets
//!                                              (group commit)
//! read(from, limit)      ◄── segment files, up to the last synced record
//! ```
//!
//! Guarantees of every implementation, tested by the suite in [`contract`]: an offset is returned only for a record
//! that survives `kill -9`, and a power cut unless `durability: os` is configured; offsets are dense and ascending; a
//! record reads back byte for byte; a torn tail is cut off and never delivered; a damaged record is reported and
//! skipped, and the records after it are delivered.
//!
//! Records are requests as received (ADR 001). The bus does not interpret bodies.

#![forbid(unsafe_code)]

mod bus;
mod config;
mod consumer_groups;
pub mod contract;
mod dead_letters;
mod embedded;
mod epoch;
mod epoch_markers;
mod error;
mod log_state;
pub mod metrics;
mod position_index;
mod record;
mod request_archive;
mod segment;
mod writer;

pub use bus::{BoxFuture, Bus, TrimPolicy};
pub use config::{Config, Durability};
pub use dead_letters::{DeadLetter, DeadLetterReason, DeadLetters, read_dead_letters};
pub use embedded::{EmbeddedBus, ReadOnlyBus};
pub use epoch::{has_records, recorded_offsets, start_new_epoch};
pub use error::Error;
pub use record::{Record, RecordHeaderError, RecordLocation, decode_payload, encode_payload};
