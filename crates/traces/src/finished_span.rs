//! A span as it is exported.

use std::time::Duration;

use wardroom_domain::Timestamp;

use crate::context::TraceContext;

/// A span that has ended.
#[derive(Debug)]
pub(crate) struct FinishedSpan {
    pub(crate) name: &'static str,
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<u64>,
    pub(crate) started_at: Timestamp,
    pub(crate) duration: Duration,
    pub(crate) attributes: Vec<(&'static str, String)>,
    /// HTTP status.
    pub(crate) status: Option<u64>,
}
