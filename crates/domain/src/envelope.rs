//! The unit of the bus: one accepted request, kept as received (decision D1).

use crate::batch::Refusal;
use crate::identity::{Principal, TenantId};
use crate::time::Timestamp;

/// The header that stands before the body of one accepted request.
///
/// Whatever depends on clock or state (which records were refused, when it came) is decided once,
/// before the append, and read back on replay, never decided again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Whose data.
    pub tenant: TenantId,
    /// Who sent it.
    pub principal: Principal,
    /// The source that decodes it, by its registry name.
    pub protocol: String,
    /// The request's content type.
    pub content_type: String,
    /// The request's content encoding; empty for none.
    pub content_encoding: String,
    /// When it came.
    pub received_at: Timestamp,
    /// Records of it that were left out. Their `detail` is not kept.
    pub refused: Vec<Refusal>,
    /// Whether it holds something that has a table of its own: log lines, spans, deployments, native histograms or exemplars.
    /// Supposed of records from before that was noted.
    pub events: bool,
}
