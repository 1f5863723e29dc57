//! Durable files that are not a database: a journal, checksummed files, and rewriting after a failed sync.
//!
//! ```text
//! checkpoint ─┬─► Journal            label sets and sealed sample blocks of one tenant, append-only
//!             └─► ChecksummedWriter  the checkpoint itself: bytes followed by their CRC-32
//! ledger ────────► rewrite_prefix    a file whose last sync failed, written again up to its last good byte
//! ```
//!
//! Problem: restart state and the executor's ledger must survive `kill -9` and a power cut, and a damaged file must
//! be recognised. Model: files are append-only. The owner records how long each file was at the last successful sync;
//! bytes beyond that length are not committed and are cut off on open. Guarantees: what was synced reads back byte for
//! byte; a missing, short or damaged file is an error, never silently empty; after a failed sync no byte counts as
//! durable until it has been written to a new file and synced there.
//!
//! Nothing here starts threads or knows an async runtime, and nothing here depends on a database.

#![forbid(unsafe_code)]

mod checksummed;
mod journal;
mod rewrite;

pub use checksummed::ChecksummedWriter;
pub use journal::{BlockReader, EvictedSeries, EvictedSeriesFile, Journal, JournalError, JournalPosition};
pub use rewrite::rewrite_prefix;
