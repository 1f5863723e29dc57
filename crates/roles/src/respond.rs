//! The response role: drives the workflow of each incident.

pub(crate) mod audit_entry;
mod decisions;
pub(crate) mod diagnosis_facts;
mod incident_changes;
mod investigate;
pub(crate) mod respond_error;
pub(crate) mod responder;
mod watched_signals;
