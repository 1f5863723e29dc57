//! How the lake fails.

use deltalake_core::arrow::error::ArrowError;
use deltalake_core::parquet::errors::ParquetError;
use deltalake_core::{DeltaTableError, ObjectStoreError};

/// A failure of the lake.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read or written now.
    #[error("lake unavailable: {0}")]
    Unavailable(String),
    /// It holds what this build cannot read.
    #[error("lake damaged: {0}")]
    Damaged(String),
    /// Somebody else writes what this writer thinks is his to write.
    #[error(
        "{table}: this writer left off at {left:?}, and another one has come to {reached:?}; only one may write: stop the other, and \
         start this one again"
    )]
    Overtaken {
        /// Which table.
        table: &'static str,
        /// Where this writer left off.
        left: Option<u64>,
        /// Where the table ends.
        reached: Option<u64>,
    },
    /// A column is not what this build writes, and columns do not change.
    #[error(
        "{table}.{column}: {detail}; start the build that wrote it, or move the table's folder aside (anything reads it there, and a \
         new one is begun)"
    )]
    Column {
        /// Which table.
        table: &'static str,
        /// Which column.
        column: String,
        /// What is different.
        detail: String,
    },
    /// It is set up in a way that would lose or double data.
    #[error("{field}: {detail}")]
    Setting {
        /// Which setting.
        field: &'static str,
        /// What is wrong, and the remedy.
        detail: String,
    },
}

impl From<DeltaTableError> for Error {
    fn from(error: DeltaTableError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ObjectStoreError> for Error {
    fn from(error: ObjectStoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ParquetError> for Error {
    fn from(error: ParquetError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        Self::Damaged(error.to_string())
    }
}
