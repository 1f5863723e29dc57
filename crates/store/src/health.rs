//! Whether the database works at the moment, for readiness.
//!
//! Every write transaction and every read of the tokens reports its outcome here, and the server tests both regularly:
//! a failure is known before the database is needed, and so is its end.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;

/// What can fail independently of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    // First, since it explains the others.
    FindFile,
    Write,
    Read,
    CheckPages,
}

/// The last error of each operation; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<Mutex<BTreeMap<Operation, String>>>);

impl Health {
    /// Returns the last error of an operation that fails.
    pub(crate) fn error(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().next().cloned()
    }

    /// Records the outcome of an operation, and returns it.
    pub(crate) fn record<T, E: std::fmt::Display>(&self, operation: Operation, outcome: Result<T, E>) -> Result<T, E> {
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Ok(_) => drop(errors.remove(&operation)),
            Err(error) => drop(errors.insert(operation, error.to_string())),
        }
        outcome
    }

    /// Records the outcome of an operation whose success says nothing, such as a write that changes no row.
    pub(crate) fn record_failure<T, E: std::fmt::Display>(
        &self,
        operation: Operation,
        outcome: Result<T, E>,
    ) -> Result<T, E> {
        if outcome.is_err() { self.record(operation, outcome) } else { outcome }
    }
}

/// The database file as it was when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct OpenedFile {
    path: PathBuf,
    /// Device and inode; `None` if they could not be read.
    identity: Option<(u64, u64)>,
}

impl OpenedFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }

    /// Returns an error if the path no longer names the file that is open.
    pub(crate) fn verify(&self) -> Result<(), Error> {
        if self.identity.is_none() || self.identity == identity(&self.path) {
            return Ok(());
        }
        Err(Error::Unavailable(format!(
            "{} was deleted or replaced while it is open: its contents are lost at the next restart; make a backup \
             now, or put the file back and restart",
            self.path.display()
        )))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
