//! Sizes: lines of a file and of a crate without tests, and columns of a comment line.

use std::path::Path;

use super::packages::{Package, is_test_file, relative, rust_files};

/// Lines of a file, tests not counted.
const MAX_FILE_LINES: usize = 600;
/// Lines of a crate, tests not counted.
const MAX_CRATE_LINES: usize = 12_000;
/// Crates with a limit of their own: a shared vocabulary, the composition, and the binary must stay small; what is
/// never shipped may be larger until its three commands are crates.
const CRATE_LIMITS: &[(&str, usize)] = &[
    ("wardroom-domain", 6000),
    ("wardroom-evals", 14_000),
    ("wardroom-pipeline", 4000),
    ("wardroom-roles", 4000),
    ("wardroom", 2500),
];
/// Columns of a line that consists of a comment; rustfmt does not break those.
const MAX_COMMENT_COLUMNS: usize = 120;

/// Checks the rule.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub(super) fn check(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages {
        let mut crate_lines = 0;
        for file in rust_files(&package.folder)? {
            let text = std::fs::read_to_string(&file)?;
            check_comment_columns(&file, &text, problems);
            if !file.starts_with(package.folder.join("src")) || is_test_file(&file) {
                continue;
            }
            let lines = product_lines(&text);
            crate_lines += lines;
            if lines > MAX_FILE_LINES {
                let file = relative(&file);
                problems.push(format!("{file} has {lines} lines without tests, more than {MAX_FILE_LINES}: split it"));
            }
        }
        let limit =
            CRATE_LIMITS.iter().find(|(name, _)| *name == package.name).map_or(MAX_CRATE_LINES, |(_, max)| *max);
        if crate_lines > limit {
            problems.push(format!("{} has {crate_lines} lines without tests, more than {limit}", package.name));
        }
    }
    Ok(())
}

/// Number of lines before the test module.
fn product_lines(text: &str) -> usize {
    text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default().lines().count()
}

fn check_comment_columns(file: &Path, text: &str, problems: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if line.trim_start().starts_with("//") && columns > MAX_COMMENT_COLUMNS {
            problems.push(format!(
                "{}:{} has a comment of {columns} columns, more than {MAX_COMMENT_COLUMNS}",
                relative(file),
                number + 1
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_comment_lines_over_the_limit_only() {
        let mut problems = Vec::new();
        let comment = format!("    /// {}", "x".repeat(MAX_COMMENT_COLUMNS - 8));
        let string = format!("    let s = \"{}\";", "x".repeat(MAX_COMMENT_COLUMNS));
        check_comment_columns(Path::new("a.rs"), &format!("{comment}\n{string}\n"), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        check_comment_columns(Path::new("a.rs"), &format!("\n{comment}x\n"), &mut problems);
        assert_eq!(problems, ["a.rs:2 has a comment of 121 columns, more than 120"]);
    }

    #[test]
    fn does_not_count_the_test_module() {
        assert_eq!(product_lines("fn a() {}\n#[cfg(test)]\nmod tests {\n}\n"), 1);
    }
}
