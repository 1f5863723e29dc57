//! TLS of the listeners: a certificate with its key, replaced while the server runs.
//!
//! ```text
//! files ─► load: readable? one pair? key private? ─► configuration in force ─► handshakes of new connections
//!            ▲        │ no: the last one stays, /readyz and the log say why
//!            └── SIGHUP, or a look every few seconds: has a file changed?
//! ```
//!
//! Problem: a certificate is replaced several times a year, often by a program and in two steps, certificate and key.
//! Model: each connection takes the configuration in force at its beginning; new files replace it as a whole once they
//! are one valid pair. Guarantee: no request fails because of a replacement, and a broken pair changes nothing.

mod certificate;
mod config;
mod file_checks;
mod listener_tls;

pub use certificate::TlsError;
pub use config::TlsConfig;
pub use listener_tls::{Certificates, ListenerTls};

#[cfg(test)]
mod tests;
