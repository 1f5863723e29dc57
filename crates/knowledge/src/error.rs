//! Errors of the knowledge base.

/// An error of the knowledge base.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A runbook is invalid.
    #[error("runbook {name}: {detail}")]
    Runbook {
        /// File name or id of the runbook.
        name: String,
        /// What is wrong and what is expected.
        detail: String,
    },
    /// The runbook folder could not be read.
    #[error("runbook folder {folder}: {detail}")]
    Folder {
        /// Path of the folder.
        folder: String,
        /// The I/O error.
        detail: String,
    },
    /// The search index failed.
    #[error("runbook search: {0}")]
    Search(String),
}
