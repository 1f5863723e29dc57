//! The durable log that everything received goes through before anyone is told "yes".
//!
//! ```text
//! append(envelope, body) ──► writer thread: write all that waits ─► one fdatasync ─► offsets
//!                                              (group commit)
//! read(from, limit)      ◄── segment files, up to the last synced record
//! ```
//!
//! Guarantees of every implementation, held by the suite `contract`:
//! an offset is returned only for a record that survives `kill -9`, and a power cut unless
//! `durability: os` was chosen; offsets are dense
//! and ascending; a record reads back byte for byte; a torn tail is cut off, never delivered; a
//! damaged record is reported and skipped, the ones after it are delivered.
//!
//! The log holds requests as they came (decision D1). Nothing here knows what a body means.

#![forbid(unsafe_code)]

mod config;
pub mod contract;
mod dead;
mod embedded;
mod error;
mod groups;
pub mod metrics;
mod places;
mod record;
mod rest;
mod segment;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use wardroom_domain::{Envelope, Timestamp};

pub use config::{Config, Durability};
pub use dead::{DeadLetter, DeadLetters, Reason, dead_letters};
pub use embedded::{EmbeddedBus, ReadOnlyBus};
pub use error::Error;
pub use record::{Place, Record, RecordHeaderError, decode_payload, encode_payload};

/// A future that can cross threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What may go, and when.
pub struct Expiry<'a> {
    /// Segments that nobody needs and that are older than this.
    pub log: Timestamp,
    /// What was kept of them, once it is older than this.
    pub rest: Timestamp,
    /// Whether a request is worth keeping until then.
    pub worth: &'a dyn Fn(&Envelope) -> bool,
}

/// A durable, ordered log of accepted requests.
///
/// `append` promises: when it returns an offset, the record is on disk. It may be cancelled; the
/// record may then stand in the log without anyone having been told. `read` delivers records in
/// offset order, each exactly as appended, and never one whose append has not been synced.
pub trait Bus: Send + Sync {
    /// Makes one request durable and says where it stands.
    fn append(&self, envelope: Envelope, body: Bytes) -> BoxFuture<'_, Result<u64, Error>>;

    /// Reads up to `limit` records from `from` on; fewer at the end. Blocks on the disk.
    ///
    /// # Errors
    /// The disk's. A damaged record is no error: it is counted and skipped.
    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, Error>;

    /// As [`Bus::read`]; the bodies of requests that are to be skipped are left on the disk, for whoever needs to know of them
    /// and not what is in them. What is damaged there shows to whoever reads it.
    ///
    /// # Errors
    /// The disk's.
    fn follow(&self, from: u64, limit: usize, skip: &dyn Fn(&Envelope) -> bool) -> Result<Vec<Record>, Error>;

    /// The offset of the oldest record kept.
    fn start(&self) -> u64;

    /// The offset that the next record will get: everything below is durable.
    fn end(&self) -> u64;

    /// Notes that a group of consumers needs nothing below `offset` any more. Durable when it returns.
    ///
    /// # Errors
    /// The disk's.
    fn commit(&self, group: &str, offset: u64) -> Result<(), Error>;

    /// How far a group has come; `None` if it never committed.
    ///
    /// # Errors
    /// The disk's.
    fn committed(&self, group: &str) -> Result<Option<u64>, Error>;

    /// Why nothing can be appended now, in words; `None` while it can.
    fn trouble(&self) -> Option<String>;

    /// What an append that returned survives: `power-loss` or `process-crash`.
    fn durability(&self) -> &'static str;

    /// Drops whole segments that lie below `offset` and are older than the retention. What of them is worth it is kept beside.
    ///
    /// # Errors
    /// The disk's.
    fn trim(&self, offset: u64, expiry: &Expiry<'_>) -> Result<u64, Error>;

    /// One record, of the log or of what was kept beside it; nothing if it is gone.
    ///
    /// # Errors
    /// The disk's.
    fn find(&self, offset: u64) -> Result<Option<Record>, Error>;
}
