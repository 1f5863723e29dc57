//! Commits have a subject of limited length and a body that says why.

use crate::workspace::command;

/// The rule applies to commits after this one.
const BASE_COMMIT: &str = "e02e0fdf0cc9828c7cee509dd34f232b26f24a75";
const MAX_SUBJECT_CHARS: usize = 72;
/// Separates the fields of a commit in git's output; cannot occur in a message.
const FIELD_SEPARATOR: char = '\u{1f}';
const COMMIT_SEPARATOR: char = '\u{1e}';

/// Checks the rule. Does nothing without git, or if the clone is shallow and lacks the base commit.
///
/// # Errors
/// Returns an error if git's output is not UTF-8.
pub(super) fn check(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let base = command("git").args(["merge-base", "--is-ancestor", BASE_COMMIT, "HEAD"]).output();
    if !base.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    let format = format!("--format=%h{FIELD_SEPARATOR}%s{FIELD_SEPARATOR}%b{COMMIT_SEPARATOR}");
    let log = command("git").args(["log", "--no-merges", &format, &format!("{BASE_COMMIT}..HEAD")]).output()?;
    check_log(&String::from_utf8(log.stdout)?, problems);
    Ok(())
}

fn check_log(log: &str, problems: &mut Vec<String>) {
    for commit in log.split(COMMIT_SEPARATOR) {
        let mut fields = commit.trim_start().split(FIELD_SEPARATOR);
        let (Some(hash), Some(subject), Some(body)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let length = subject.chars().count();
        if length > MAX_SUBJECT_CHARS {
            problems.push(format!("commit {hash}: subject of {length} characters, more than {MAX_SUBJECT_CHARS}"));
        }
        if body.trim().is_empty() {
            problems.push(format!("commit {hash}: no body that says why"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_long_subjects_and_missing_bodies() {
        let mut problems = Vec::new();
        check_log("abc\u{1f}fix(bus): retry\u{1f}Problem: lost.\n\u{1e}\n", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let log = format!("abc\u{1f}{}\u{1f}\n\u{1e}\ndef\u{1f}fix\u{1f}why\u{1e}\n", "x".repeat(73));
        check_log(&log, &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
