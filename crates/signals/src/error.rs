//! Why a convention cannot be used.

/// A convention that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("convention {name}: {reason}")]
pub struct ConventionError {
    /// The file.
    pub name: String,
    /// What is wrong, with the series that it is about.
    pub reason: String,
}
