//! Reads a policy file.

use std::path::Path;

use wardroom_policy::Policy;

/// Reads and validates a policy file.
///
/// # Errors
/// Returns the file and all problems.
pub(crate) fn read(file: &Path) -> Result<Policy, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Policy::parse(&file.display().to_string(), &text).map_err(|error| error.to_string())
}
