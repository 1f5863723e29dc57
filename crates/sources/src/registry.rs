//! The list of all sources, in the order of their documentation, and the replay of stored requests.

use wardroom_domain::error::Failure;
use wardroom_domain::{Envelope, RefusalReason};
use wardroom_edge::InflateBudget;

use crate::decode::decoded::Decoded;
use crate::protocols::json_ingest::{DEPLOYMENT, LOGS, METRICS};
use crate::protocols::otlp;
use crate::protocols::remote_write::REMOTE_WRITE;
use crate::source::{RequestHead, Source};

/// All sources. An envelope refers to its source by [`Source::name`].
pub const SOURCES: &[&dyn Source] =
    &[&REMOTE_WRITE, &METRICS, &LOGS, &DEPLOYMENT, &otlp::METRICS, &otlp::LOGS, &otlp::TRACES];

/// Decodes a stored request again, without the records refused at intake.
///
/// # Errors
/// Returns an error if this build does not have the source or the body cannot be decoded.
pub fn replay(envelope: &Envelope, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure> {
    let mut decoded = decode_stored(envelope, body, budget)?;
    decoded.remove_refused(&envelope.refused);
    decoded.is_rebuild = envelope.refused.iter().any(|refusal| refusal.reason == RefusalReason::AlreadyAccepted);
    Ok(decoded)
}

/// Decodes all records of a stored request, refused ones included.
///
/// # Errors
/// Returns an error if this build does not have the source or the body cannot be decoded.
pub(crate) fn decode_stored(envelope: &Envelope, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure> {
    let source = SOURCES.iter().find(|source| source.name() == envelope.protocol);
    let source = source.ok_or_else(|| Failure::Fatal(format!("this build has no source {:?}", envelope.protocol)))?;
    source.decode(&RequestHead::from_envelope(envelope), body, budget)
}
