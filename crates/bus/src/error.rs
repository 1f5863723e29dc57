//! How the bus fails, by what the caller can do.

/// A failure of the bus.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused; the record is not durable. Worth trying again later.
    #[error("bus {action} failed: {detail}")]
    Disk {
        /// What was being done.
        action: &'static str,
        /// The system's words.
        detail: String,
    },
    /// More waits for the disk than may; try again.
    #[error("{limit} bytes wait for the disk already; try again")]
    Overloaded {
        /// The limit.
        limit: usize,
    },
    /// The log is at its size limit.
    #[error("bus is at its limit of {limit} bytes; raise bus.limit-bytes or lower bus.retention-hours")]
    Full {
        /// The limit.
        limit: u64,
    },
    /// One record is larger than a segment.
    #[error("record of {size} bytes is larger than a bus segment")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// The writer is gone: the process is shutting down.
    #[error("bus is closed")]
    Closed,
}

impl Error {
    pub(crate) fn disk(action: &'static str, error: &std::io::Error) -> Self {
        Self::Disk { action, detail: error.to_string() }
    }
}
