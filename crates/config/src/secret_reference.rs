//! References to secrets, so that the configuration has none: `env:NAME` or `file:PATH`.

/// Returns whether a text is such a reference.
pub(crate) fn is_valid(reference: &str) -> bool {
    let has = |scheme: &str| reference.strip_prefix(scheme).is_some_and(|rest| !rest.trim().is_empty());
    has("env:") || has("file:")
}

/// Reads the secret: the variable, or the first line of the file.
///
/// # Errors
/// Returns the reason and the remedy if the variable is not set or the file cannot be read.
pub(crate) fn read(reference: &str) -> Result<String, String> {
    if let Some(name) = reference.strip_prefix("env:") {
        #[expect(clippy::disallowed_methods, reason = "the configuration names the variable")]
        let value = std::env::var(name);
        return value.map_err(|_| "the variable is not set; set it for this process".to_owned());
    }
    let path = reference.strip_prefix("file:").unwrap_or_default();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the file cannot be read: {error}; create it, readable for this user"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
