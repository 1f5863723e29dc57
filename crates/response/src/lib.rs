//! The response role: drives the workflow of each incident, performs the effects that it wants, and takes the decisions
//! of people.
//!
//! ```text
//! detection ──events──► responder ──► change + effects, one transaction ──► store
//! people ───decisions──►    ▲                                                 │ lease
//!                           └── change that follows ◄── effect workers ◄──────┘
//!                                                           │ executor
//! ```
//!
//! What to do is decided by pure code: `diagnose`, `respond`, `policy`. Here it is carried out: the loop stores what
//! detection finds and steps the open incidents ([`run_responder`]); workers perform effects ([`run_effect_workers`]);
//! the methods of [`Responder`] are the API's reads and decisions. The loop waits for no target, no executor and no
//! person.

#![forbid(unsafe_code)]

mod audit_entry;
mod decisions;
mod detected_signals;
mod diagnosis;
mod diagnosis_facts;
mod effect_outcome;
mod effect_results;
mod effect_workers;
mod entity_reference;
mod incident_changes;
mod incident_creation;
mod incident_fact;
mod incident_notes;
mod incident_splitting;
mod incident_views;
mod investigate;
pub mod metrics;
mod open_incidents;
mod perform;
mod policy;
pub mod problem_responses;
mod resources;
mod respond_error;
mod responder;
mod safeguards;

use wardroom_config as config;
use wardroom_process::{clock, crash};

pub use audit_entry::audit_entry;
pub use decisions::refusal_problem;
pub use diagnosis::{diagnose_incident, incident_facts};
pub use effect_workers::run_effect_workers;
pub use incident_fact::{incident_fact, opened_incident_fact};
pub use incident_views::anomaly_view;
pub use resources::{StreamControl, requests, resources};
pub use respond_error::OTHER_ANSWER;
pub use responder::{ReplayProgress, Responder, run_responder};
