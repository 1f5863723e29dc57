//! What a way in must be able to do.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wardroom_domain::error::Failure;
use wardroom_domain::{
    Batch, Deployment, Envelope, LogEntry, MetricMetadata, Refusal, RefusalReason, Sighting, Span, Timestamp,
};
use wardroom_edge::{InflateBudget, InflateError, Problem};

use crate::registry;
use crate::series::WireMetrics;

/// What of a request's head the decoding depends on.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// `Content-Type`, lower case, without parameters other than `proto`.
    pub content_type: String,
    /// `Content-Encoding`, lower case; empty for none.
    pub content_encoding: String,
    /// When the request came: the time of records that carry none.
    pub received_at: Timestamp,
}

impl RequestHead {
    /// The head of a request that is on the bus.
    pub(crate) fn of(envelope: &Envelope) -> Self {
        let Envelope { content_type, content_encoding, received_at, .. } = envelope.clone();
        Self { content_type, content_encoding, received_at }
    }
}

/// A decoded request: the records, where each stood, and what could not be read.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Series with their samples.
    pub metrics: WireMetrics,
    /// What the sender says of its metrics.
    pub metadata: Vec<MetricMetadata>,
    /// Log records.
    pub logs: Vec<LogEntry>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// Spans.
    pub spans: Vec<Span>,
    /// For each record in order (samples, native histograms, log lines, deployments, spans), its position in
    /// the request; empty if every record of the request is here.
    pub positions: Vec<u32>,
    /// Records that could not be read.
    pub refused: Vec<Refusal>,
    /// It comes again on purpose: with what was refused when its body came first, or with what no table could take then.
    pub again: bool,
}

/// What became of a request that was read.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Records that were left out.
    pub refused: Vec<Refusal>,
    /// Records made durable.
    pub kept: usize,
    /// Of those, samples.
    pub samples: usize,
    /// Native histograms.
    pub histograms: usize,
    /// Exemplars written; not records.
    pub exemplars: usize,
}

impl Outcome {
    /// How many records were left out.
    pub fn rejected(&self) -> u64 {
        joined(&self.refused).iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// The problem of a request of which some records were left out; `None` if none was.
    pub fn partial(&self) -> Option<Problem> {
        let first = self.refused.first()?;
        let detail = format!("record {}: {}", first.first, first.detail);
        let problem = Problem::bad_request(first.reason.as_str(), detail);
        Some(problem.with("accepted", self.kept).with("rejected", self.rejected()))
    }
}

/// The stretches left out, ascending, none touching another.
pub(crate) fn joined(refused: &[Refusal]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = refused.iter().map(|refusal| (refusal.first, refusal.last)).collect();
    runs.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::with_capacity(runs.len());
    for (first, last) in runs {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined
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

    /// The answer to a request that was read and made durable.
    fn answer(&self, _: &RequestHead, outcome: &Outcome) -> Response {
        outcome.partial().map_or_else(|| StatusCode::OK.into_response(), Problem::into_response)
    }

    /// The answer to a request that was not.
    fn refuse(&self, _: &RequestHead, problem: Problem) -> Response {
        problem.into_response()
    }

    /// The path of the same over gRPC, if there is one.
    fn grpc_path(&self) -> Option<&'static str> {
        None
    }
}

/// Records (samples, series, symbols, log lines) that one request may hold. Tiny ones take many times their
/// size on the wire in memory; senders send some thousands.
pub(crate) const MAX_RECORDS: usize = 250_000;

/// A body that can never be read.
pub(crate) fn malformed(detail: impl Into<String>) -> Failure {
    Failure::Rejected { reason: "malformed", detail: detail.into() }
}

/// What to answer when a body may not be decompressed.
pub(crate) fn inflate_failure(error: InflateError) -> Failure {
    match error {
        InflateError::TooLarge { .. } => Failure::Rejected { reason: "too_large", detail: error.to_string() },
        InflateError::Exhausted => Failure::Retryable(error.to_string()),
        InflateError::Broken => malformed(error.to_string()),
    }
}

/// A request of too many records.
pub(crate) fn too_many(what: &str) -> Failure {
    let detail = format!("the request holds more than {MAX_RECORDS} {what}; send smaller batches");
    Failure::Rejected { reason: "too_large", detail }
}

/// Reads an envelope's body again, leaving out what was refused then.
///
/// # Errors
/// The source is unknown to this build, or the body cannot be read.
pub fn replay(envelope: &Envelope, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure> {
    let source = registry::find(&envelope.protocol)
        .ok_or_else(|| Failure::Fatal(format!("no source is called {:?} in this build", envelope.protocol)))?;
    let mut decoded = source.decode(&RequestHead::of(envelope), body, budget)?;
    decoded.leave_out(&envelope.refused);
    decoded.again = envelope.refused.iter().any(|refusal| refusal.reason == RefusalReason::Taken);
    Ok(decoded)
}

impl Decoded {
    /// Number of records (samples, native histograms, log lines, deployments, spans).
    pub fn len(&self) -> usize {
        let metrics = self.metrics.samples().len() + self.metrics.histograms().len();
        metrics + self.logs.len() + self.deployments.len() + self.spans.len()
    }

    /// Whether nothing is left in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position in the request of the record at this place.
    pub(crate) fn position(&self, at: usize) -> u32 {
        self.positions.get(at).copied().unwrap_or(at as u32)
    }

    /// Takes out the records at these positions of the request.
    pub(crate) fn leave_out(&mut self, refused: &[Refusal]) {
        if refused.is_empty() {
            return;
        }
        // Every second record may be refused, so each is looked up and not searched for.
        let runs = joined(refused);
        let out = |at: u32| {
            let before = runs.partition_point(|(first, _)| *first <= at);
            before.checked_sub(1).is_some_and(|run| at <= runs[run].1)
        };
        let kept: Vec<u32> = (0..self.len()).map(|at| self.position(at)).filter(|at| !out(*at)).collect();
        let mut place = 0;
        let positions = std::mem::take(&mut self.positions);
        let mut keep = || {
            let position = positions.get(place).copied().unwrap_or(place as u32);
            place += 1;
            !out(position)
        };
        self.metrics.retain(&mut keep);
        self.logs.retain(|_| keep());
        self.deployments.retain(|_| keep());
        self.spans.retain(|_| keep());
        self.positions = kept;
    }

    /// Tells the request from others, by the body it was read from.
    pub(crate) fn fingerprint(&self, body: &[u8]) -> u64 {
        // What was refused then is no repetition of what was taken.
        xxhash_rust::xxh3::xxh3_64_with_seed(body, u64::from(self.again))
    }

    /// The same records, their series under the ids that were found for them; with the body they were read from
    /// and when it came.
    pub fn resolve(self, body: &[u8], received_at: Timestamp) -> Batch {
        // Samples have a name and a time each. A line that we stamped ourselves may well come again.
        let repeats = !(self.logs.is_empty() && self.spans.is_empty() && self.deployments.is_empty());
        let stamped = self.logs.iter().map(|log| log.at).chain(self.deployments.iter().map(|change| change.at));
        let sighting = (repeats && !stamped.into_iter().any(|at| at == received_at))
            .then(|| Sighting { fingerprint: self.fingerprint(body), received_at });
        Batch {
            sighting,
            metrics: self.metrics.resolved(),
            metadata: self.metadata,
            logs: self.logs,
            deployments: self.deployments,
            spans: self.spans,
            again: self.again,
        }
    }
}
