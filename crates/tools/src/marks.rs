//! Notes about executions, for targets that cannot store an idempotency key.
//!
//! Problem: after a crash it must be known whether an operation took effect, and some targets (systemd, Terraform) keep
//! no key of ours. Model: before the operation a note of its key says that it begins; after it, how it left the target.
//! A note that begins and does not end, on a target that is not as before, means unknown, and a person decides.
//! Guarantee: a note is on the disk before the next step.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wardroom_domain::Outcome;
use wardroom_domain::canonical::sha256_hex;
use wardroom_respond::{Applied, ToolError};

/// The notes of one tool: a file for each key.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    folder: PathBuf,
}

/// The note of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mark {
    /// State before.
    pub before: String,
    /// State that the operation left; absent until it has ended.
    pub after: Option<String>,
}

impl Mark {
    /// Returns the outcome that is known from what the target shows. What took effect and does not show it any more was
    /// changed by another user since.
    pub(crate) fn evaluate(&self, shown: Outcome) -> Outcome {
        if shown == Outcome::NotApplied && self.after.is_some() { Outcome::Unknown } else { shown }
    }
}

impl Marks {
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Returns the note of a key.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Mark>, ToolError> {
        let path = self.path(key);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| ToolError::Unavailable(format!("{} cannot be read: {error}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ToolError::Unavailable(format!("{} cannot be read: {error}", path.display()))),
        }
    }

    /// Writes the note of a key.
    pub(crate) fn set(&self, key: &str, mark: &Mark) -> Result<(), ToolError> {
        self.write(key, mark).map_err(|error| {
            ToolError::Unavailable(format!(
                "the note of this execution cannot be written in {}: {error}",
                self.folder.display()
            ))
        })
    }

    /// Notes how an operation that took effect left its target.
    pub(crate) fn complete(
        &self,
        (key, mark): (&str, Mark),
        applied: Applied,
        state: impl FnOnce() -> Result<String, ToolError>,
    ) -> Result<Applied, ToolError> {
        if applied.outcome == Outcome::Applied {
            self.set(key, &Mark { after: Some(state()?), ..mark })?;
        }
        Ok(applied)
    }

    fn write(&self, key: &str, mark: &Mark) -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let (path, temporary) = (self.path(key), self.path(key).with_extension("new"));
        let mut file =
            std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(mark)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{}.json", sha256_hex(key.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_replaced_as_a_whole_and_a_broken_one_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(dir.path().join("a/b"));
        assert_eq!(marks.get("key/../x"), Ok(None));
        let begun = Mark { before: "1".into(), after: None };
        let ended = Mark { after: Some("2".into()), ..begun.clone() };
        for mark in [begun, ended] {
            marks.set("key/../x", &mark).unwrap();
            assert_eq!(marks.get("key/../x"), Ok(Some(mark)));
        }
        std::fs::write(marks.path("key/../x"), "{").unwrap();
        assert!(matches!(marks.get("key/../x"), Err(ToolError::Unavailable(_))));
    }
}
