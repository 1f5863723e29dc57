//! Data files that do not hold what was written.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of damaged files that are remembered; further ones are only logged.
const MAX_DAMAGED_FILES: usize = 1000;

/// Detail of a file that a table has and the store does not.
pub(crate) const MISSING: &str = "it is missing";

/// A damaged data file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path} is damaged: {detail}; put an intact copy of the file back (a file never changes, so every backup and \
     replica has the same one under this name), and run `wardroom lake verify` to find all damaged files"
)]
pub struct DamagedFile {
    /// Path below the lake's root.
    pub path: String,
    /// What is damaged: the column and the row group, or the footer.
    pub detail: String,
}

impl DamagedFile {
    /// Reads a damaged file from the message of its error, as another process reports it.
    pub fn parse(message: &str) -> Option<Self> {
        let (path, rest) = message.split_once(" is damaged: ")?;
        let (detail, _) = rest.split_once("; put an intact copy")?;
        Some(Self { path: path.to_owned(), detail: detail.to_owned() })
    }

    /// Returns the damaged file that an error comes from, if it comes from one.
    pub(crate) fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(damaged) = error.downcast_ref() {
                return Some(damaged);
            }
            next = error.source();
        }
        None
    }
}

/// The damaged files that reads of a lake have found, until they are intact again or no longer part of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct DamagedFiles(Arc<Mutex<BTreeMap<String, String>>>);

impl DamagedFiles {
    /// Remembers a damaged file, and logs it the first time.
    pub(crate) fn record(&self, file: &DamagedFile) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.contains_key(&file.path) {
            return;
        }
        tracing::error!(error = %file, "a file of the lake is damaged");
        if files.len() < MAX_DAMAGED_FILES {
            files.insert(file.path.clone(), file.detail.clone());
        }
    }

    /// Forgets a file that is intact again or no longer part of a table.
    pub(crate) fn remove(&self, path: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// Returns the damaged files by path.
    pub(crate) fn list(&self) -> Vec<DamagedFile> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = |(path, detail): (&String, &String)| DamagedFile { path: path.clone(), detail: detail.clone() };
        files.iter().map(file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_back_from_its_message() {
        let file = DamagedFile { path: "silver/logs/part-1.parquet".into(), detail: "column ts; row group 1".into() };
        assert_eq!(DamagedFile::parse(&file.to_string()), Some(file));
        assert_eq!(DamagedFile::parse("the query failed"), None);
    }
}
