//! A span: one operation of a service within a trace.

use crate::labels::Labels;
use crate::time::Timestamp;

/// The side of a call that a span describes (OpenTelemetry's `SpanKind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within a service.
    Internal,
    /// Handling of a request.
    Server,
    /// Sending of a request.
    Client,
    /// Publishing of a message.
    Producer,
    /// Handling of a message.
    Consumer,
}

impl SpanKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Internal, Self::Server, Self::Client, Self::Producer, Self::Consumer];

    /// Returns the spelling in labels and tables.
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
    /// The trace.
    pub trace_id: [u8; 16],
    /// Id within the trace.
    pub span_id: [u8; 8],
    /// The parent span; zeros for none.
    pub parent_id: [u8; 8],
    /// Side of the call.
    pub kind: SpanKind,
    /// Operation name from the sender.
    pub name: String,
    /// Start time.
    pub start: Timestamp,
    /// End time.
    pub end: Timestamp,
    /// Whether the sender marked it as failed.
    pub failed: bool,
    /// Resource and span attributes.
    pub labels: Labels,
}

impl Span {
    /// Returns the duration in seconds; never negative.
    pub fn seconds(&self) -> f64 {
        (self.end.nanos().saturating_sub(self.start.nanos())).max(0) as f64 / 1e9
    }
}
