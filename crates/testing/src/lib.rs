//! Test support: a running server, its fixtures, and encoders that share no code with the product.
//!
//! - [`Server`] starts the shipped binary (`WARDROOM_BIN`) on a free port with its own tokens. It can be killed and
//!   restarted on the same data, and sends HTTP requests.
//! - [`remote_write`] encodes remote_write bodies with prost, so that the product's hand-written decoder is never
//!   tested against itself.
//! - [`SyntheticTelemetry`] generates request histograms of a few services on a simulated clock.
//! - [`Shop`] runs the demo shop as an executor target and reads its recorded effects.
//! - [`PostgresServer`] and [`RedisServer`] are the real servers, from Debian's packages.
//! - [`DescribedApi`] serves an API by the description that its vendor publishes.
//! - [`TestIssuer`] and [`Authenticator`] sign tokens and challenges as issuers and passkeys do.
//! - [`TestAuthority`] issues certificates with the program `openssl`.
//! - [`FakeObjectStore`] is an in-memory object store with fault injection.
//!
//! Not part of any release.

#![forbid(unsafe_code)]

mod certificates;
pub mod credentials;
mod debian_server;
pub mod described_api;
mod fake_object_store;
mod nginx_server;
pub mod remote_write;
pub mod server;
mod shop;
mod synthetic_telemetry;

pub use certificates::TestAuthority;
pub use credentials::{Authenticator, TestIssuer};
pub use debian_server::{PostgresServer, RedisServer};
pub use described_api::{ApiAnswer, ApiRequest, DescribedApi};
pub use fake_object_store::{FakeObjectStore, StoreFaults};
pub use nginx_server::NginxServer;
pub use server::Server;
pub use shop::Shop;
pub use synthetic_telemetry::SyntheticTelemetry;

/// The system clock, in ms since the epoch.
#[expect(clippy::disallowed_methods, reason = "tests and oracles read the system clock")]
pub fn now_ms() -> i64 {
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    age.as_millis() as i64
}
