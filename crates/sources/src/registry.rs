//! The ways in, in the order of their documentation.

use crate::json_ingest::{DEPLOYMENT, LOGS, METRICS};
use crate::otlp;
use crate::remote_write::REMOTE_WRITE;
use crate::source::Source;

/// Every source there is. An envelope names its source by [`Source::name`].
pub const SOURCES: &[&dyn Source] =
    &[&REMOTE_WRITE, &METRICS, &LOGS, &DEPLOYMENT, &otlp::METRICS, &otlp::LOGS, &otlp::TRACES];

/// The source of that name.
pub(crate) fn find(name: &str) -> Option<&'static dyn Source> {
    SOURCES.iter().copied().find(|source| source.name() == name)
}
