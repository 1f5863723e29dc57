//! One operation of a service, as a trace tells it.

use crate::labels::Labels;
use crate::time::Timestamp;

/// Which end of a call a span stands at (OpenTelemetry's `SpanKind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Neither: work within a service.
    Internal,
    /// Serves a request.
    Server,
    /// Makes a request.
    Client,
    /// Puts a message somewhere.
    Producer,
    /// Handles a message.
    Consumer,
}

impl SpanKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Internal, Self::Server, Self::Client, Self::Producer, Self::Consumer];

    /// The word, as it stands in labels and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which trace it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id within the trace.
    pub span_id: [u8; 8],
    /// The span that caused it; zeros for none.
    pub parent_id: [u8; 8],
    /// Which end of a call.
    pub kind: SpanKind,
    /// What was done, as the sender names it.
    pub name: String,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Whether the sender marks it as an error.
    pub failed: bool,
    /// The attributes of the service and of the operation.
    pub labels: Labels,
}

impl Span {
    /// How long it took, in seconds; never negative.
    pub fn seconds(&self) -> f64 {
        (self.end.nanos().saturating_sub(self.start.nanos())).max(0) as f64 / 1e9
    }
}
