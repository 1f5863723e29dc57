//! Crates forbid unsafe code, except those with a file in the list below.

use super::packages::{Package, relative, rust_files};
use crate::workspace::root;

/// Files that may contain unsafe code.
const ALLOWED_FILES: &[&str] = &["crates/process/src/heap.rs"];

/// Checks the rule.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub(super) fn check(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages {
        let mut forbidden = false;
        for file in rust_files(&package.folder.join("src"))? {
            let text = std::fs::read_to_string(&file)?;
            forbidden |= text.contains("\n#![forbid(unsafe_code)]\n");
            if expects_unsafe_code(&text) && !ALLOWED_FILES.iter().any(|allowed| file.ends_with(allowed)) {
                problems.push(format!("{} contains unsafe code but is not listed", relative(&file)));
            }
        }
        let listed = ALLOWED_FILES.iter().any(|allowed| root().join(allowed).starts_with(&package.folder));
        if forbidden == listed {
            problems.push(format!("{}: the crate root must contain #![forbid(unsafe_code)]", package.name));
        }
    }
    Ok(())
}

fn expects_unsafe_code(text: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with("#[expect(unsafe_code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_exceptions_from_the_lint() {
        assert!(expects_unsafe_code("fn a() {}\n    #[expect(unsafe_code, reason = \"x\")]\n"));
        assert!(!expects_unsafe_code("// #[expect(unsafe_code)]\n"));
    }
}
