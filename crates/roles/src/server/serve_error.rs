//! Errors of the server.

use std::net::SocketAddr;

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `--auth off` with an address beyond loopback.
    #[error("--auth off is accepted on loopback only, and {0} is not; use --listen 127.0.0.1:PORT")]
    Exposed(SocketAddr),
    /// A listener cannot be used as configured.
    #[error(transparent)]
    Listen(#[from] wardroom_edge::ListenError),
    /// The bus could not be opened or read.
    #[error(transparent)]
    Bus(#[from] wardroom_bus::Error),
    /// The bus is shorter than what was processed from it.
    #[error(transparent)]
    BusEpoch(#[from] crate::bus_epoch::BusEpochError),
    /// The state database is missing, empty or another folder's, although the data folder has telemetry.
    #[error(transparent)]
    State(#[from] crate::state_database::StateDatabaseError),
    /// The store could not be opened or read.
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
    /// The tables could not be opened.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    /// The sandbox cannot be set up as configured.
    #[error(transparent)]
    Sandbox(#[from] super::server_sandbox::SandboxError),
    /// The runbooks could not be loaded.
    #[error(transparent)]
    Knowledge(#[from] wardroom_knowledge::Error),
    /// The rules of the policy cannot be used.
    #[error("field policy.file: {0}")]
    Policy(String),
    /// A role that runs until shutdown ended. Its state is on disk: restart the server.
    #[error("a role ended: {0}")]
    RoleEnded(String),
    /// The tables were unavailable at the start and can be opened now; a restart opens them.
    #[error("the lake is available again; restarting to write what arrived meanwhile")]
    LakeAvailable,
    /// File or network I/O failed.
    #[error("{operation}: {error}")]
    Io {
        /// The operation that failed.
        operation: String,
        /// The operating system's error.
        error: std::io::Error,
    },
}

/// Wraps an I/O error with the operation that failed.
pub(super) fn io_error(operation: impl Into<String>, error: std::io::Error) -> ServeError {
    ServeError::Io { operation: operation.into(), error }
}
