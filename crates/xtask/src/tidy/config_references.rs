//! Tests, files and packages that configuration files name exist: a stale name would silently match nothing.

use std::collections::BTreeSet;

use super::packages::{Package, rust_files};
use crate::workspace::root;

/// Checks the rule.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub(super) fn check(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    let read = |name: &str| std::fs::read_to_string(root().join(name));
    let mut functions = BTreeSet::new();
    for package in packages {
        for file in rust_files(&package.folder)? {
            functions.extend(words_after(&std::fs::read_to_string(&file)?, "fn ").map(str::to_owned));
        }
    }
    for test in words_after(&read(".config/nextest.toml")?, "test(") {
        if !functions.contains(test) {
            problems.push(format!(".config/nextest.toml names the test {test}, which does not exist"));
        }
    }
    for path in quoted_paths(&read(".cargo/mutants.toml")?) {
        if !root().join(path).exists() {
            problems.push(format!(".cargo/mutants.toml names {path}, which does not exist"));
        }
    }
    let locked = read("Cargo.lock")?;
    for package in profile_packages(&read("Cargo.toml")?) {
        if !locked.contains(&format!("name = \"{package}\"\n")) {
            problems.push(format!("Cargo.toml has a profile for {package}, which is not a dependency"));
        }
    }
    Ok(())
}

/// The identifiers that follow a text.
fn words_after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).filter_map(move |(start, _)| {
        let rest = text.get(start + prefix.len()..)?;
        let end = rest.find(|character: char| !character.is_alphanumeric() && character != '_')?;
        rest.get(..end).filter(|word| !word.is_empty())
    })
}

/// The quoted strings that are paths of the crates.
fn quoted_paths(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').filter(|part| part.starts_with("crates/") && !part.contains('*'))
}

/// Package names with settings of their own in a profile: lines such as `snap.opt-level = 3`.
fn profile_packages(manifest: &str) -> Vec<&str> {
    let mut in_profile = false;
    let mut names = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_profile = line.starts_with("[profile.") && line.ends_with(".package]");
        } else if in_profile
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once('.')
        {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_names_in_configuration_files() {
        let filter = "filter = \"test(starts_fast)\"\nfilter = \"test(a_b) or test(c)\"";
        assert_eq!(words_after(filter, "test(").collect::<Vec<_>>(), ["starts_fast", "a_b", "c"]);
        assert_eq!(quoted_paths("globs = [\"crates/a.rs\", \"crates/*.rs\"]").collect::<Vec<_>>(), ["crates/a.rs"]);
        let manifest = "[profile.demo]\ndebug = 1.5\n[profile.demo.package]\n# x\nsnap.opt-level = 3\n[other]\na.b = 1";
        assert_eq!(profile_packages(manifest), ["snap"]);
    }
}
