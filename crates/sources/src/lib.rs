//! Ingestion of telemetry: one file or folder per protocol under `protocols`, one entry each in [`SOURCES`].
//!
//! ```text
//! body ─► check type ─► decompress (bounded) ─► decode ─► apply limits (time, labels) ─► append ─► 2xx
//!              415            413 / 503           400          refuse single records      503 if not durable
//! ```
//!
//! Decoding is pure: the same body under the same header always gives the same records, so a request can be read again
//! from the bus years later. What depends on the clock or on state (which records were too old, which series exceeded
//! the limit) is decided once, stored in the envelope, and only applied by [`replay`].
//!
//! `decode` contains the code that all decoders share, `intake` the handling of a request until its record is durable.

#![forbid(unsafe_code)]

mod config;
mod decode;
mod grpc_status;
mod intake;
pub mod metrics;
mod protocols;
mod registry;
mod source;

pub use config::Config;
pub use decode::decoded::Decoded;
pub use decode::refusals::RefusalCause;
pub use decode::wire_metrics::WireMetrics;
pub use intake::byte_rate_limiter::ByteRateLimiter;
pub use intake::endpoint::{
    AcceptedRequest, AdmitHook, AppendHook, EventRecords, Intake, ReadLabels, ResolveHook, ResolvedSeries,
};
pub use intake::redrive::redrive;
pub use intake::request_events::RequestEvents;
pub use intake::routes;
pub use registry::{SOURCES, replay};
pub use source::{RequestHead, RequestOutcome, Source};
