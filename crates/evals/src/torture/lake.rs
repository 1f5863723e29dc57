//! Bars of the lake.

pub(super) mod competing_writers;
pub(super) mod object_stores;
