//! The protocols, each implementing [`crate::source::Source`].

pub(crate) mod json_ingest;
pub(crate) mod otlp;
pub(crate) mod remote_write;
