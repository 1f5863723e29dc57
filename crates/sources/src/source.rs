//! What a way in must be able to do.

use axum::http::StatusCode;
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, Envelope, Refusal, Timestamp};
use wardroom_edge::InflateBudget;

use crate::registry;

/// What of a request's head the decoding depends on.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// `Content-Type`, lower case, without parameters.
    pub content_type: String,
    /// `Content-Encoding`, lower case; empty for none.
    pub content_encoding: String,
    /// When the request came: the time of records that carry none.
    pub received_at: Timestamp,
}

/// A decoded request: the records, where each stood, and what could not be read.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// The records that could be read.
    pub batch: Batch,
    /// For each record of `batch` in order, its position in the request.
    pub positions: Vec<u32>,
    /// Records that could not be read.
    pub refused: Vec<Refusal>,
}

/// One way in.
///
/// `decode` is pure and total: the same head and body give the same answer for ever, no input panics,
/// and memory stays within the budget's share. A request that cannot be read at all is an error; single
/// records that cannot be read are listed in [`Decoded::refused`].
pub trait Source: Sync {
    /// The name that stands in envelopes and metrics; never changed once released.
    fn name(&self) -> &'static str;

    /// The path it is mounted at.
    fn path(&self) -> &'static str;

    /// Whether it reads bodies of this type and encoding.
    ///
    /// # Errors
    /// What it would accept, in words; answered as 415.
    fn check(&self, head: &RequestHead) -> Result<(), String>;

    /// Reads a body.
    ///
    /// # Errors
    /// `Rejected` for a body that can never be read, `Retryable` if the budget is exhausted.
    fn decode(&self, head: &RequestHead, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure>;

    /// The status of a full success.
    fn success(&self) -> StatusCode {
        StatusCode::OK
    }
}

/// Reads an envelope's body again, leaving out what was refused then.
///
/// # Errors
/// The source is unknown to this build, or the body cannot be read.
pub fn replay(envelope: &Envelope, body: &[u8], budget: &InflateBudget) -> Result<Batch, Failure> {
    let source = registry::find(&envelope.protocol)
        .ok_or_else(|| Failure::Fatal(format!("no source is called {:?} in this build", envelope.protocol)))?;
    let head = RequestHead {
        content_type: envelope.content_type.clone(),
        content_encoding: envelope.content_encoding.clone(),
        received_at: envelope.received_at,
    };
    let mut decoded = source.decode(&head, body, budget)?;
    if !envelope.refused.is_empty() {
        let out = |at: u32| envelope.refused.iter().any(|refusal| (refusal.first..=refusal.last).contains(&at));
        decoded.retain(|position| !out(position));
    }
    Ok(decoded.batch)
}

impl Decoded {
    /// Keeps the records whose position `keep` says yes to.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        let mut positions = self.positions.iter().copied();
        let mut kept = Vec::with_capacity(self.positions.len());
        let mut next = || {
            let position = positions.next().unwrap_or(u32::MAX);
            let stays = keep(position);
            if stays {
                kept.push(position);
            }
            stays
        };
        for series in &mut self.batch.series {
            series.samples.retain(|_| next());
        }
        self.batch.series.retain(|series| !series.samples.is_empty());
        self.batch.logs.retain(|_| next());
        self.batch.deployments.retain(|_| next());
        self.positions = kept;
    }
}
