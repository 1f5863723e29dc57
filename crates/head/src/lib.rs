//! The head: the active series of a tenant, their inverted index and their recent samples.
//!
//! ```text
//! wire key ──► SeriesId ◄── label set                     SeriesRegistry
//!                 │            └─► label index: label pair ─► ids, for selectors
//!                 ▼
//!     open chunk of 16 samples ──► sealed blocks ──► stream   RecentSamples; the caller persists the stream
//! ```
//!
//! Pure: no clock, no I/O. Ids are dense from 0 in order of creation, so detectors can store their state in plain
//! vectors. The series of a request are found by a keyed hash of their encoded labels; labels are decoded and compared
//! only for a hash seen for the first time (ADR 003). The series limit is checked before the request is appended,
//! so a refusal is decided once and is stored in the envelope.
//!
//! Intake uses the registry and detection writes the samples, each under its own lock, so an acknowledgement never
//! waits for a detector.

#![forbid(unsafe_code)]

mod config;
mod exemplars;
mod recent_samples;
mod series_registry;

pub use config::Config;
pub use exemplars::Exemplars;
pub use recent_samples::{FlushBatch, KeyedFlushBatch, PushOutcome, RangeSamples, ReadAt, RecentSamples, STREAM_START};
pub use series_registry::{EntityLimit, NameLookup, ResolveError, SelectorFilter, SeriesNames, SeriesRegistry};
