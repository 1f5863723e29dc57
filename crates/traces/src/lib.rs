//! Wardroom's own traces: which request caused what, across its processes and those of its callers.
//!
//! ```text
//! header traceparent ─► TraceContext ─► span ─► TraceLayer ─► queue (bounded) ─► thread ─► OTLP over HTTP
//!                                         │                     │ full: dropped and counted
//!                                         └─► current() ─► traceparent of the next process
//! ```
//!
//! Problem: a person who looks at a slow request sees the trace of their own services end at Wardroom, and its log has
//! one id per request that no other system knows. Model: the context of the caller is continued in a span of the crate
//! `tracing`; code that calls another process asks for the context of the current span. Spans that end are exported if
//! the configuration names a collector. Guarantee: exporting never delays a request; what the collector does not take
//! is dropped, and the metrics count it.
//!
//! Only spans of Wardroom's own crates are traced, from level info on, whatever the log level is.

#![forbid(unsafe_code)]

mod config;
mod context;
mod current_context;
mod export;
mod finished_span;
mod layer;
pub mod metrics;
mod otlp_json;

pub use config::{Config, ExportSettings};
pub use context::{ContinuedTrace, TraceContext};
pub use current_context::current;
pub use export::SpanQueue;
pub use layer::{STATUS_TARGET, TraceLayer};
