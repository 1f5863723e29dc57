//! State of detection: what is held in memory per tenant, and its checkpoints on disk.

pub mod checkpoint;
pub mod tenants;
