//! State of detection: what is held in memory per tenant, and its checkpoints on disk.

pub mod checkpoint;
mod event_entities;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod limits;
pub mod tenants;
