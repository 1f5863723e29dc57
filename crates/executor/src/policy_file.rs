//! A policy file that was read.

use std::path::{Path, PathBuf};

use wardroom_policy::Policy;

/// A policy file, with the text that its rules were parsed from.
#[derive(Debug)]
pub(crate) struct PolicyFile {
    path: PathBuf,
    text: String,
    /// Its rules.
    pub(crate) policy: Policy,
}

impl PolicyFile {
    /// Reads and validates a policy file.
    ///
    /// # Errors
    /// Returns the file and all problems.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let policy = Policy::parse(&path.display().to_string(), &text).map_err(|error| error.to_string())?;
        Ok(Self { path: path.to_owned(), text, policy })
    }

    /// Returns whether the file has the same text now.
    pub(crate) fn is_unchanged(&self) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
    }
}
