//! File names say what is inside: no vague names, and no name twice in a crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::packages::{Package, is_test_file, relative, rust_files};

/// Names that do not say what is inside.
const VAGUE_NAMES: &[&str] = &[
    "common", "core", "helper", "helpers", "keep", "letters", "misc", "samples", "shared", "story", "stuff", "tables",
    "things", "tools", "types", "upkeep", "util", "utils", "words", "world",
];
/// Files that may have such a name: (path, reason).
const EXEMPT_FILES: &[(&str, &str)] =
    &[("crates/wardroom/src/commands/samples.rs", "the command `samples`, one file per command")];
/// Names that may occur several times in a crate.
const REPEATED_NAMES: &[(&str, &str)] = &[
    ("lib", "crate root"),
    ("main", "crate root"),
    ("logs", "one decoder for each protocol's logs"),
    ("metrics", "one decoder for each protocol's metrics, and the crate's metric names"),
    ("traces", "one decoder for each protocol's traces"),
    ("config", "one configuration for each component, beside the component"),
    ("error", "one error type for each component, beside the component"),
];

/// Checks the rule.
///
/// # Errors
/// Returns an error if a folder cannot be read.
pub(super) fn check(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages {
        let files = rust_files(&package.folder.join("src"))?;
        check_files(&files, problems);
    }
    Ok(())
}

fn check_files(files: &[PathBuf], problems: &mut Vec<String>) {
    let mut by_stem: BTreeMap<String, Vec<&Path>> = BTreeMap::new();
    for file in files.iter().filter(|file| !is_test_file(file)) {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let exempt = EXEMPT_FILES.iter().any(|(path, _)| file.ends_with(path));
        if VAGUE_NAMES.contains(&stem.as_str()) && !exempt {
            problems.push(format!("{}: the name {stem:?} is vague; name what the file contains", relative(file)));
        }
        by_stem.entry(stem).or_default().push(file);
    }
    for (stem, files) in by_stem {
        if files.len() > 1 && !REPEATED_NAMES.iter().any(|(name, _)| *name == stem) {
            let files: Vec<String> = files.into_iter().map(relative).collect();
            problems.push(format!("several files of a crate are called {stem:?}: {}", files.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_vague_names_and_names_that_occur_twice() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mut problems = Vec::new();
        check_files(
            &files(&["lib.rs", "write/flush.rs", "read/tests.rs", "write/tests.rs", "otlp/logs.rs", "loki/logs.rs"]),
            &mut problems,
        );
        assert!(problems.is_empty(), "{problems:?}");
        check_files(&files(&["util.rs", "write/scan.rs", "read/scan.rs"]), &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
