//! What a series means (D18): the entity it is about, the signal it feeds, its unit, its direction and its limit.
//!
//! ```text
//! labels + metadata ──► conventions (one declarative file each) ──► SeriesMeaning ──► detect: points of signals
//!                                                      └─► entity, aliases, relations ──► EntityGraph
//! ```
//!
//! Detection never guesses from a name's suffix where a convention or the sender's metadata says what the series is.
//! The tables know names of public instrumentations only; what they do not know is watched against its own past.
//! [`Catalog`] gives the meaning of a series, a log line's resource or a span; [`EntityGraph`] knows which entities are
//! one thing under several names, and what depends on what. The user's conventions count before the built-in ones.

#![forbid(unsafe_code)]

mod builtin;
mod catalog;
mod compiled;
mod computed;
mod context;
mod convention;
mod convention_index;
mod error;
mod graph;
mod label_view;
mod meaning;
mod outcome;
mod peer;
mod resource;
mod series;
mod series_part;
mod shape;
mod surroundings;
mod template;
mod version;

pub use catalog::Catalog;
pub use convention::{
    ByAttributes, Condition, Convention, EntityNaming, ExporterTarget, PeerNaming, SampleUnit, SeriesRule,
};
pub use convention_index::UserConvention;
pub use error::ConventionError;
pub use graph::{EntityGraph, GraphLimits, GraphState};
pub use meaning::{Direction, Outcome, Part, SeriesMeaning, SeriesUse, SignalUnit};
pub use resource::ResourceEntity;
pub use surroundings::{Surroundings, surroundings};
