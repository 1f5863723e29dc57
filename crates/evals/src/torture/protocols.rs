//! Bars of the receivers' protocols.

pub(super) mod prometheus_sender;
pub(super) mod receiver_conformance;
