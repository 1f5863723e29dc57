//! Every way in: one file or folder per protocol, one line each in [`SOURCES`].
//!
//! ```text
//! body ─► check type ─► decompress (capped) ─► decode ─► admit (time window, labels) ─► append ─► 2xx
//!              415            413 / 503            400         refusals by record        503 if not durable
//! ```
//!
//! Decoding is pure: the same bytes under the same header always give the same records, so the bus can
//! be read again years later. What depends on the clock or on state (which records were too old, which
//! series came over the limit) is decided once, written into the envelope, and only applied on replay
//! ([`replay`]).

#![forbid(unsafe_code)]

mod admit;
mod config;
mod grpc;
mod intake;
mod json_ingest;
pub mod metrics;
mod otlp;
mod protobuf;
mod quota;
mod recorded;
mod redrive;
mod registry;
mod remote_write;
mod series;
mod source;

pub use config::Config;
pub use intake::{Accepted, AppendHook, Intake, ReadLabels, ResolveHook, Resolved, routes};
pub use quota::ByteQuota;
pub use recorded::Recorded;
pub use redrive::redrive;
pub use registry::SOURCES;
pub use series::{Denial, WireMetrics};
pub use source::{Decoded, Outcome, RequestHead, Source, replay};
