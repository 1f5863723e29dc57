//! Errors of queries.

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum SampleQueryError {
    /// The steps of the query cover too many samples.
    #[error("the steps cover more than {limit} samples; ask for fewer series or less time")]
    TooManySamples {
        /// Maximum number of samples.
        limit: usize,
    },
    /// The query selects too many exemplars.
    #[error("more than {limit} exemplars; ask for fewer series or less time")]
    TooManyExemplars {
        /// Maximum number of exemplars.
        limit: usize,
    },
    /// The tables are needed for a complete result and are unavailable.
    #[error("{0}")]
    LakeUnavailable(String),
    /// Reading from disk or from the object store failed.
    #[error("{0}")]
    Storage(String),
}

impl SampleQueryError {
    /// Wraps an error of the bus, the tables or the journals.
    pub(super) fn storage(error: impl std::fmt::Display) -> Self {
        Self::Storage(error.to_string())
    }
}
