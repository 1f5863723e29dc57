//! What a series means (D18): the entity it is about, the signal it feeds, its unit, its direction and its limit.
//!
//! ```text
//! labels + metadata ──► conventions (one declarative file each) ──► SeriesMeaning ──► detect: points of signals
//!                                                      └─► entity, aliases, relations ──► EntityGraph
//! ```
//!
//! Detection never guesses from a name's suffix where a convention or the sender's metadata says what the series is.
//! The tables know names of public instrumentations only; what they do not know is watched against its own past.

#![forbid(unsafe_code)]

mod meaning;

pub use meaning::{Direction, Outcome, Part, SeriesMeaning, SeriesUse, SignalUnit};
