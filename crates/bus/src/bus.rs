//! The bus interface.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use wardroom_domain::{Envelope, Timestamp};

use crate::error::Error;
use crate::record::Record;

/// A boxed future that is `Send`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which segments and archived requests may be deleted.
pub struct TrimPolicy<'a> {
    /// Segments last modified before this time are dropped.
    pub segments_before: Timestamp,
    /// Archive files of dropped segments last modified before this time are deleted.
    pub archive_before: Timestamp,
    /// Returns whether a request of a dropped segment is copied to the archive.
    pub keep: &'a dyn Fn(&Envelope) -> bool,
}

/// A durable, ordered log of accepted requests.
///
/// When `append` returns an offset, the record is on disk. If it is cancelled, the record may be in the log although no
/// offset was returned. `read` delivers records in offset order, byte for byte as appended, and only synced ones.
pub trait Bus: Send + Sync {
    /// Appends one request durably and returns its offset.
    fn append(&self, envelope: Envelope, body: Bytes) -> BoxFuture<'_, Result<u64, Error>>;

    /// Reads up to `limit` records from `from`; fewer at the end of the log. Blocks on disk I/O. Offsets may be missing
    /// (damaged records, a new epoch), so `limit` does not bound the offsets: compare those.
    ///
    /// # Errors
    /// Returns an error if the disk cannot be read. A damaged record is not an error: it is counted and skipped.
    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, Error>;

    /// Like [`Bus::read`], but for requests that `skip` selects only the header is read and the body is empty. Damage
    /// in a skipped body is not detected.
    ///
    /// # Errors
    /// Returns an error if the disk cannot be read.
    fn read_skipping_bodies(
        &self,
        from: u64,
        limit: usize,
        skip: &dyn Fn(&Envelope) -> bool,
    ) -> Result<Vec<Record>, Error>;

    /// Returns the offset of the oldest record.
    fn start_offset(&self) -> u64;

    /// Returns the offset that the next record will get; all records below it are durable.
    fn end_offset(&self) -> u64;

    /// Commits the offset of a consumer group: it no longer needs records below `offset`. Durable on return. A name
    /// with a dot is a mark of an output of a group, which needs no record itself.
    ///
    /// # Errors
    /// Returns an error if the offset cannot be written.
    fn commit(&self, group: &str, offset: u64) -> Result<(), Error>;

    /// Returns the committed offset of a consumer group, or `None` if it never committed.
    ///
    /// # Errors
    /// Returns an error if the offset cannot be read.
    fn committed(&self, group: &str) -> Result<Option<u64>, Error>;

    /// Returns why appends fail at the moment, or `None` if they succeed.
    fn append_error(&self) -> Option<String>;

    /// Returns how many records reads have found damaged or missing since the log was opened; they are skipped.
    fn lost_records(&self) -> u64;

    /// Returns what an acknowledged append survives: `survives-power-loss` or `survives-process-crash`.
    fn durability(&self) -> &'static str;

    /// Drops whole segments that lie below `offset` and are past the retention of `policy`, after copying the requests
    /// to keep to the archive. Returns the number of dropped segments.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or deleted.
    fn trim(&self, offset: u64, policy: &TrimPolicy<'_>) -> Result<u64, Error>;

    /// Returns one record from the log or the archive, or `None` if it has been deleted.
    ///
    /// # Errors
    /// Returns an error if the disk cannot be read.
    fn find(&self, offset: u64) -> Result<Option<Record>, Error>;
}
