//! Manifests inherit lints and versions from the workspace; library crates start with a crate doc.

use super::packages::{Package, relative};

/// Lines of documentation at the start of a library crate: problem, model, guarantees.
const MIN_CRATE_DOC_LINES: usize = 10;
const INHERITED_LINES: [&str; 3] =
    ["[lints]\nworkspace = true", "version.workspace = true", "license.workspace = true"];

/// Checks the rule.
///
/// # Errors
/// Returns an error if a manifest cannot be read.
pub(super) fn check(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages {
        let manifest = std::fs::read_to_string(package.folder.join("Cargo.toml"))?;
        check_manifest(&package.name, &manifest, problems);
        let library = package.folder.join("src/lib.rs");
        if let Ok(text) = std::fs::read_to_string(&library) {
            let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
            if lines < MIN_CRATE_DOC_LINES {
                let file = relative(&library);
                problems
                    .push(format!("{file} starts with {lines} lines of crate doc, fewer than {MIN_CRATE_DOC_LINES}"));
            }
        }
    }
    Ok(())
}

fn check_manifest(name: &str, manifest: &str, problems: &mut Vec<String>) {
    for line in INHERITED_LINES {
        if !manifest.contains(line) {
            problems.push(format!("{name}: Cargo.toml lacks `{}`", line.replace('\n', " ")));
        }
    }
    if let Some(line) = manifest.lines().find(|line| line.contains("version = \"")) {
        problems.push(format!("{name}: `{line}` must be inherited from the workspace"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_versions_that_are_not_inherited() {
        let mut problems = Vec::new();
        let good = INHERITED_LINES.join("\n");
        check_manifest("a", &good, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        check_manifest("a", "[dependencies]\nserde = { version = \"1.0\" }\n", &mut problems);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }
}
