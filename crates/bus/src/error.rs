//! Errors of the bus.

/// An error of the bus.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A disk operation failed; the record is not durable. Retry later.
    #[error("bus {action} failed: {detail}")]
    Disk {
        /// The operation.
        action: &'static str,
        /// The error of the operating system.
        detail: String,
    },
    /// Too many bytes are waiting to be written. Retry later.
    #[error("{limit} bytes are already waiting to be written; retry later")]
    Overloaded {
        /// The limit in bytes.
        limit: usize,
    },
    /// The log has reached its size limit.
    #[error("bus is at its limit of {limit} bytes; raise bus.limit-bytes or lower bus.retention-hours")]
    Full {
        /// The limit in bytes.
        limit: u64,
    },
    /// The record is larger than a segment.
    #[error("record of {size} bytes is larger than a bus segment")]
    TooLarge {
        /// Size of the record in bytes.
        size: u64,
    },
    /// The writer has stopped: the process is shutting down.
    #[error("bus is closed")]
    Closed,
}

impl Error {
    pub(crate) fn disk(action: &'static str, error: &std::io::Error) -> Self {
        Self::Disk { action, detail: error.to_string() }
    }
}
