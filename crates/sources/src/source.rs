//! The interface of a source: one protocol under one path.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wardroom_domain::error::Failure;
use wardroom_domain::{Envelope, Refusal, Timestamp};
use wardroom_edge::{InflateBudget, Problem};

use crate::decode::decoded::Decoded;
use crate::decode::refusals::merged_ranges;

/// The part of a request's head that decoding depends on.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// `Content-Type`, lower case, without parameters other than `proto`.
    pub content_type: String,
    /// `Content-Encoding`, lower case; empty for none.
    pub content_encoding: String,
    /// Time of arrival, used for records without a time.
    pub received_at: Timestamp,
}

impl RequestHead {
    /// Restores the head of a stored request.
    pub(crate) fn from_envelope(envelope: &Envelope) -> Self {
        let Envelope { content_type, content_encoding, received_at, .. } = envelope.clone();
        Self { content_type, content_encoding, received_at }
    }
}

/// The result of a request that was decoded.
#[derive(Clone, Debug, Default)]
pub struct RequestOutcome {
    /// Refused records.
    pub refused: Vec<Refusal>,
    /// Number of records made durable.
    pub accepted: usize,
    /// Number of accepted samples.
    pub samples: usize,
    /// Number of accepted native histograms.
    pub histograms: usize,
    /// Number of accepted exemplars, which do not count as records.
    pub exemplars: usize,
    /// Names of fields that were ignored because the format does not have them.
    pub ignored_fields: BTreeSet<String>,
}

impl RequestOutcome {
    /// Returns the number of refused records.
    pub fn rejected(&self) -> u64 {
        merged_ranges(&self.refused).iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// Returns the problem of a request with refused records; `None` if all were accepted.
    pub fn partial_failure(&self) -> Option<Problem> {
        let first = self.refused.first()?;
        let detail = format!("record {}: {}", first.first, first.detail);
        let problem = Problem::bad_request(first.reason.as_str(), detail);
        Some(problem.with("accepted", self.accepted).with("rejected", self.rejected()))
    }
}

/// One protocol under one path.
///
/// `decode` is pure and total: the same head and body always give the same result, no input panics, and memory stays
/// within the budget. A request that cannot be decoded at all is an error; single records that cannot be decoded are
/// listed in [`Decoded::refused`].
pub trait Source: Sync {
    /// Returns the name used in envelopes and metrics. Never changes once released.
    fn name(&self) -> &'static str;

    /// Returns the HTTP path.
    fn path(&self) -> &'static str;

    /// Checks that the content type and encoding are supported.
    ///
    /// # Errors
    /// Returns the detail of the 415 response: what is supported.
    fn check_head(&self, head: &RequestHead) -> Result<(), String>;

    /// Returns the size that the body claims to decompress to, in bytes. Only the thread on which it is decoded first
    /// depends on the claim.
    fn inflated_bytes(&self, head: &RequestHead, body: &[u8]) -> usize {
        match (head.content_encoding.as_str(), body.last_chunk::<4>()) {
            // The trailer of gzip: the size modulo 2^32 (RFC 1952, section 2.3.1).
            ("gzip", Some(size)) => (u32::from_le_bytes(*size) as usize).max(body.len()),
            _ => body.len(),
        }
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// Returns `Rejected` for a body that can never be decoded, `Retryable` if the budget is exhausted.
    fn decode(&self, head: &RequestHead, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure>;

    /// Returns the response to a request that was decoded and made durable.
    fn success_response(&self, _: &RequestHead, outcome: &RequestOutcome) -> Response {
        outcome.partial_failure().map_or_else(|| StatusCode::OK.into_response(), Problem::into_response)
    }

    /// Returns the response to a request that failed.
    fn error_response(&self, _: &RequestHead, problem: Problem) -> Response {
        problem.into_response()
    }

    /// Returns the path of the gRPC method, if the protocol has one.
    fn grpc_path(&self) -> Option<&'static str> {
        None
    }
}
