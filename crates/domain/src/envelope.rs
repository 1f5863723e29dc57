//! The envelope of a bus record: one accepted request, stored as received (ADR 001).

use crate::batch::Refusal;
use crate::identity::{Principal, TenantId};
use crate::time::Timestamp;

/// The header of one accepted request.
///
/// Everything that depends on clock or state (refused records, time of arrival) is decided once, before the append;
/// a replay reads it back and never decides it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The tenant.
    pub tenant: TenantId,
    /// The sender.
    pub principal: Principal,
    /// Registry name of the source that decodes the body.
    pub protocol: String,
    /// The request's content type.
    pub content_type: String,
    /// The request's content encoding; empty for none.
    pub content_encoding: String,
    /// Time of arrival.
    pub received_at: Timestamp,
    /// Refused records. Their `detail` is not stored.
    pub refused: Vec<Refusal>,
    /// Whether the request has log lines, spans, deployments, native histograms or exemplars, which are written to
    /// tables of their own. True for records of the format version without this flag.
    pub has_events: bool,
}
