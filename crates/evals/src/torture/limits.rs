//! Bars of resource limits.

mod honest_sender;
pub(super) mod hostile_bodies;
pub(super) mod tenant_limits;
