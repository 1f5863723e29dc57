//! Correlation: groups the findings of one fault into one incident.
//!
//! ```text
//! finding ──► one of its signal's findings already belongs to an incident? ── yes ─► that incident
//!                        │ no
//!                        ├──► fits an open incident, by relation and time? ── yes ─► join it; maybe rename it
//!                        │ no
//!                        └──► opens one if its rule may (key derived from signal and onset: a replay opens the same)
//! ```
//!
//! A join needs a way on which the symptom can have travelled, and a time that fits: see the table in `open_incident`.
//! So a fault that begins elsewhere, or later than a symptom can travel, or after the incident was settled or closed,
//! opens its own incident. An incident whose findings have all ended is quiet after some time and takes no findings
//! that begin later; its state stays for people.
//!
//! Findings whose rule may not open an incident only join. Title and severity follow the worst finding, and among
//! equally bad ones the one nearest to the cause. The numbers of open incidents, of the entities of one and of followed
//! signals are limited.

#![forbid(unsafe_code)]

mod config;
mod correlator;
mod open_incident;
mod reach;

pub use config::Config;
pub use correlator::{Correlator, Decision, LimitedFindings, SavedCorrelator, SavedIncidents};
