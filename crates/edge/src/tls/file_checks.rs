//! Checks of the files that a configuration of TLS names.

use wardroom_domain::Timestamp;
use wardroom_domain::config_check::ConfigProblems;

use super::certificate::load;
use super::config::TlsConfig;

impl TlsConfig {
    /// Adds what is wrong with the files: that they cannot be read, or are not one pair.
    pub(crate) fn check_files(&self, field: &str, problems: &mut ConfigProblems) {
        if let Err(error) = load(self) {
            problems.add(&format!("{field}.{}", error.field()), error.reason());
        }
    }

    /// Adds that the certificate is not valid at a time.
    pub(crate) fn check_validity(&self, field: &str, now: Timestamp, problems: &mut ConfigProblems) {
        let invalid = load(self).ok().flatten().and_then(|loaded| loaded.validity.problem_at(now));
        if let Some(reason) = invalid {
            problems.add(&format!("{field}.cert-file"), reason);
        }
    }
}
