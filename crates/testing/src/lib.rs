//! For tests only: a server as a user starts it, and encoders that share nothing with the product.
//!
//! [`Server`] starts the shipped binary (`WARDROOM_BIN`) on a free port with tokens of its own, can be
//! killed and started again on the same data, and speaks HTTP for the test. [`wire`] writes remote_write
//! bodies with prost, so that the product's own hand-written reader is never compared with itself.
//!
//! [`tape`] is a recorded stretch of telemetry: services with histograms, healthy or in trouble, one
//! second a step, on a clock that the test moves as fast as it likes.
//!
//! [`Shop`] is the demo's shop as a target whose effects can be counted.
//!
//! [`Bucket`] is an object store that can be told to misbehave.
//!
//! Nothing here is shipped.

#![forbid(unsafe_code)]

pub mod bucket;
pub mod server;
pub mod shop;
pub mod tape;
pub mod wire;

pub use bucket::Bucket;
pub use server::Server;
pub use shop::Shop;

/// Milliseconds since the epoch, by the test's own clock.
#[expect(clippy::disallowed_methods, reason = "tests and oracles read their own clock")]
pub fn now_ms() -> i64 {
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    age.as_millis() as i64
}
