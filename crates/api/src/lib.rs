//! What people and programs ask: incidents, anomalies, samples, health, and the incident page.
//!
//! ```text
//! edge (guard) ─► one file per resource ─► Backend closures ─► roles
//! ```
//!
//! One file per resource. What the answers are made of comes from a [`Backend`] of closures that the
//! composition root builds, so this crate names neither store nor bus nor head. Wire types are this
//! crate's own, converted by hand, held by snapshots: the wire is not the domain.
//! Text from telemetry is escaped by the page's template and never becomes markup.

#![forbid(unsafe_code)]

mod anomalies;
mod ask;
mod backend;
mod dead_letters;
mod expression;
mod incidents;
mod openapi;
mod operations;
mod page;
pub mod recorder;
mod samples;
mod series;
mod sql;
mod view;

use wardroom_edge::Routes;

pub use ask::Question;
pub use backend::{AnomaliesFn, Answer, Backend, Decision, Proof, SamplesPage, TablesBackend};
pub use expression::selectors;
pub use openapi::{described, document};
pub use sql::TableForm;
pub use view::{
    AnomalyView, BucketsView, Chart, DeadLetterView, EvidenceView, ExemplarsView, HistogramView, HoldingView,
    IncidentDetail, IncidentSummary, PlanView, SeriesView, TimelineView,
};

/// Every route of this crate.
pub fn routes(backend: &Backend) -> Routes {
    operations::routes(backend)
        .merge(incidents::routes(backend))
        .merge(anomalies::routes(backend))
        .merge(samples::routes(backend))
        .merge(series::routes(backend))
        .merge(sql::routes(backend))
        .merge(ask::routes(backend))
        .merge(dead_letters::routes(backend))
        .merge(page::routes(backend))
}
