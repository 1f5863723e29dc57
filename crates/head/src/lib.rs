//! The live series: label set to dense id, inverted index, and the recent samples of each.
//!
//! ```text
//! wire key ──► SeriesId ◄── label set        Registry: who is there
//!                 │            └─► index: label pair ─► ids, for selectors
//!                 ▼
//!     tail of 16 samples ──► sealed blocks   Recent: what they measured; the blocks are kept by others
//! ```
//!
//! Pure: no clock, no I/O. Ids are dense from 0 in order of first sight, so that detectors can keep
//! their state in plain vectors. A request's series are found by a keyed hash of their bytes; only a
//! hash never seen before costs a look at the labels, which are then compared whole (decision D3). The
//! series limit is asked before anything is appended, so that a refusal is decided once and stands in
//! the envelope.
//!
//! The registry is asked by intake and the samples are written by detection, each under its own lock,
//! so that an acknowledgement never waits for a detector.

#![forbid(unsafe_code)]

mod block;
mod config;
mod cut;
mod exemplars;
mod index;
mod recent;
mod registry;
mod sealed;
mod tail;
mod wire;

pub use config::Config;
pub use cut::{Cut, NumberedCut};
pub use exemplars::Exemplars;
pub use recent::{Arrival, Part, Recent};
pub use registry::{Denied, Registry};
pub use sealed::{Fetch, START};
