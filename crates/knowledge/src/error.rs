//! How the knowledge base fails.

/// A failure of the knowledge base.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A runbook cannot be used.
    #[error("runbook {name}: {detail}")]
    Runbook {
        /// Its file or id.
        name: String,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// The folder cannot be read.
    #[error("runbook folder {folder}: {detail}")]
    Folder {
        /// Which.
        folder: String,
        /// Why.
        detail: String,
    },
    /// The search index failed.
    #[error("runbook search: {0}")]
    Search(String),
}
