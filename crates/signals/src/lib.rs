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

mod builtin;
mod catalogue;
mod compiled;
mod context;
mod convention;
mod error;
mod graph;
mod label_view;
mod meaning;
mod outcome;
mod peer;
mod resource;
mod series;
mod shape;
mod template;
mod version;

pub use catalogue::{Catalogue, UserConvention};
pub use convention::{
    ByAttributes, Condition, Convention, EntityNaming, ExporterTarget, PartRule, PeerNaming, SampleUnit, SeriesRule,
};
pub use error::ConventionError;
pub use graph::{EntityGraph, GraphLimits, GraphState};
pub use meaning::{Direction, Outcome, Part, SeriesMeaning, SeriesUse, SignalUnit};
pub use resource::ResourceEntity;
