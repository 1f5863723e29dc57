//! Code shared by the decoders of all protocols.

pub(crate) mod decoded;
pub(crate) mod failures;
pub(crate) mod protobuf;
pub(crate) mod refusals;
pub(crate) mod series_key;
pub(crate) mod wire_metrics;
