//! The configuration file in use: read whenever it is needed, parsed when it has changed.
//!
//! Problem: who is removed from the file must lose the authority at once, and a file of a thousand targets takes longer
//! to parse than the start of an action may. Model: every use reads the file, and the policy's, with all checks, and
//! compares the texts with those that were parsed last. Guarantee: what is used is what the files say now; nothing
//! depends on when they were changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use wardroom_domain::Timestamp;
use wardroom_process::clock;

use super::ExecutorConfig;

/// The configuration file.
pub(crate) struct ConfigFile {
    path: PathBuf,
    /// Tells versions from those of an earlier process.
    opened_at: Timestamp,
    parsed: Mutex<Option<Parsed>>,
}

struct Parsed {
    text: String,
    /// How many texts were parsed before.
    number: u64,
    config: Arc<ExecutorConfig>,
}

impl ConfigFile {
    /// Reads nothing yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), opened_at: clock::now(), parsed: Mutex::new(None) }
    }

    /// Returns the configuration.
    ///
    /// # Errors
    /// Returns why the file cannot be used; see [`ExecutorConfig::load`].
    pub(crate) fn load(&self) -> Result<Arc<ExecutorConfig>, String> {
        self.current().map(|(config, _)| config)
    }

    /// Returns the configuration for one use that changes it.
    ///
    /// # Errors
    /// See [`ExecutorConfig::load`].
    pub(crate) fn load_own(&self) -> Result<ExecutorConfig, String> {
        ExecutorConfig::load(&self.path)
    }

    /// Returns a text that changes whenever the content of the files does, and says nothing about it; `None` if they
    /// cannot be used.
    pub(crate) fn version(&self) -> Option<String> {
        let (_, number) = self.current().ok()?;
        Some(format!("{:x}.{number}", self.opened_at.nanos()))
    }

    fn current(&self) -> Result<(Arc<ExecutorConfig>, u64), String> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let text = ExecutorConfig::read_text(&self.path)?;
        let is_current = |known: &&Parsed| known.text == text && known.config.is_policy_unchanged();
        if let Some(known) = parsed.as_ref().filter(is_current) {
            return Ok((Arc::clone(&known.config), known.number));
        }
        let config = Arc::new(ExecutorConfig::parse(&self.path, &text)?);
        let number = parsed.as_ref().map_or(0, |known| known.number + 1);
        *parsed = Some(Parsed { text, number, config: Arc::clone(&config) });
        Ok((config, number))
    }
}

/// Does not print the text, which holds credentials.
impl std::fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use wardroom_policy::DEFAULT_POLICY;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn listing(name: &str) -> String {
        format!("approvers:\n  - tenant: main\n    allowed-signers: {name} {KEY}\n")
    }

    fn approvers(file: &ConfigFile) -> Vec<String> {
        file.load().unwrap().listed().iter().map(|listed| listed.principal.to_string()).collect()
    }

    #[test]
    fn an_unchanged_file_is_parsed_once_and_a_change_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("executor.yaml");
        write(&path, &listing("alice"));
        let file = ConfigFile::new(&path);
        let (first, version) = (file.load().unwrap(), file.version().unwrap());
        assert!(Arc::ptr_eq(&first, &file.load().unwrap()));
        // The same length, and within the same tick of the file system's clock.
        write(&path, &listing("carol"));
        assert_eq!(approvers(&file), ["carol"]);
        assert_ne!(file.version().unwrap(), version);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(file.load().unwrap_err().contains("chmod 600"), "the checks are made at every use");
        write(&path, "approvers: [");
        assert!(file.load().is_err() && file.version().is_none(), "an earlier text does not stay in force");
        write(&path, &listing("carol"));
        assert_eq!(approvers(&file), ["carol"]);
        assert_ne!(ConfigFile::new(&path).version(), file.version(), "another process");
        std::fs::remove_file(&path).unwrap();
        assert!(file.load().is_err());
    }

    #[test]
    fn a_policy_file_is_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, policy) = (dir.path().join("executor.yaml"), dir.path().join("policy.cedar"));
        write(&path, "approvers: []\npolicy: { file: policy.cedar }\n");
        let file = ConfigFile::new(&path);
        assert!(file.load().unwrap_err().contains("policy.file"), "it is missing");
        write(&policy, DEFAULT_POLICY);
        let first = file.load().unwrap();
        assert!(first.policy_in_force().is_some() && Arc::ptr_eq(&first, &file.load().unwrap()));
        write(&policy, &format!("// another text\n{DEFAULT_POLICY}"));
        assert!(!Arc::ptr_eq(&first, &file.load().unwrap()));
        write(&policy, "permit(");
        assert!(file.load().unwrap_err().contains("policy.file"));
    }
}
