//! Errors of the lake.

use deltalake_core::arrow::error::ArrowError;
use deltalake_core::parquet::errors::ParquetError;
use deltalake_core::{DeltaTableError, ObjectStoreError};

use crate::damaged_files::DamagedFile;

/// An offset in a message.
fn offset_text(offset: &Option<u64>) -> String {
    offset.map_or_else(|| "no offset".to_owned(), |offset| format!("offset {offset}"))
}

/// An error of the lake.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table cannot be read or written now. Retrying may help.
    #[error("lake unavailable: {0}")]
    Unavailable(String),
    /// A table holds data that cannot be read.
    #[error("lake damaged: {0}")]
    Damaged(String),
    /// A data file does not match its checksums.
    #[error(transparent)]
    DamagedFile(#[from] DamagedFile),
    /// Another writer appends to the table.
    #[error(
        "{table}: this writer's last batch ended at {}, but the table ends at {}; only one process may write: stop the \
         other one, and restart this one",
        offset_text(.expected),
        offset_text(.found)
    )]
    OffsetConflict {
        /// Table name.
        table: &'static str,
        /// Offset at which this writer's last batch ended.
        expected: Option<u64>,
        /// Offset at which the table ends.
        found: Option<u64>,
    },
    /// A column of the table differs from what this build writes.
    #[error(
        "{table}.{column}: {detail}; start the build that wrote the table, or move the table's folder away (it stays \
         readable there, and a new table is created)"
    )]
    IncompatibleColumn {
        /// Table name.
        table: &'static str,
        /// Column name.
        column: String,
        /// The difference.
        detail: String,
    },
    /// A setting is invalid, or would lose or duplicate data.
    #[error("{field}: {detail}")]
    InvalidConfig {
        /// Name of the setting.
        field: &'static str,
        /// What is wrong, and the remedy.
        detail: String,
    },
}

impl From<DeltaTableError> for Error {
    fn from(error: DeltaTableError) -> Self {
        DamagedFile::cause_of(&error).map_or_else(|| Self::Unavailable(error.to_string()), |file| file.clone().into())
    }
}

impl From<ObjectStoreError> for Error {
    fn from(error: ObjectStoreError) -> Self {
        DamagedFile::cause_of(&error).map_or_else(|| Self::Unavailable(error.to_string()), |file| file.clone().into())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ParquetError> for Error {
    fn from(error: ParquetError) -> Self {
        DamagedFile::cause_of(&error).map_or_else(|| Self::Damaged(error.to_string()), |file| file.clone().into())
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        let external = DamagedFile::cause_of(&error).map(|file| file.clone().into());
        external.unwrap_or_else(|| match error {
            // The Parquet reader turns the errors of a file into text.
            ArrowError::ParquetError(text) => Self::Damaged(text.trim_start_matches("External: ").to_owned()),
            other => Self::Damaged(other.to_string()),
        })
    }
}
