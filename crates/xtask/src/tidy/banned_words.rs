//! Words that the project does not use, with the standard term to use instead: in identifiers, in comments and strings,
//! and in the documentation. ADRs and dated reports keep their original words.

use std::path::Path;

use super::packages::{Package, files_with_extension, relative, rust_files};
use super::rust_tokens::{Kind, tokens};
use crate::workspace::root;

/// Identifiers, compared as a whole: (banned, use instead).
const BANNED_IDENTIFIERS: &[(&str, &str)] = &[
    ("Keeper", "LakeWriter"),
    ("Kept", "LakeState"),
    ("Pump", "DetectorLoop"),
    ("Trouble", "BreachEvent"),
    ("News", "DetectorEvent"),
    ("Glance", "ZScore"),
    ("Shift", "LevelShift"),
    ("Unheard", "ReceiverClosed"),
    ("Sighting", "RequestFingerprint"),
    ("Salvage", "BatchRebuilder"),
    ("Letters", "DeadLetters"),
    ("LettersCommand", "DeadLettersCommand"),
    ("Upkeep", "Maintenance…"),
    ("Chore", "MaintenanceTask"),
    ("Deed", "MaintenanceReport"),
    ("Landed", "CommitOutcome"),
    ("Unusual", "Anomaly…"),
    ("Watch", "SeriesDetector"),
    ("Seen", "DedupCache"),
    ("No", "Refusal"),
    ("Holding", "TableUsage"),
    ("Sweep", "VacuumMode, or what is removed"),
    ("Reached", "CommitOutcome"),
    ("Who", "Caller"),
    ("Question", "NamedQuery"),
    ("SPARE", "a name that says what it bounds"),
    ("tell_unusual", "report_unusual"),
    ("tell", "notify, report or print"),
    ("judge", "evaluate"),
    ("look", "read, open_read_only or inspect"),
    ("tend", "maintain"),
    ("Nemesis", "FaultPrograms, or what it injects"),
    ("Story", "what it holds, such as Scenario"),
    ("World", "…Environment"),
    ("give_back", "trim_heap"),
    ("step_back", "lower_priority"),
    ("look_after", "maintain"),
    ("lay_aside", "dead_letter"),
    ("laid_aside", "dead_lettered"),
];
/// Parts of identifiers in snake case: (banned, use instead).
const IDENTIFIER_PARTS: &[(&str, &str)] = &[
    ("bury", "dead_letter"),
    ("buried", "dead_lettered"),
    ("salvage", "rebuild_batch"),
    ("complain", "print_error"),
    ("whoever", "caller, or who it is"),
    ("nobody", "no_… or none"),
];
/// Constants: the name says what it bounds and its unit.
const BANNED_CONSTANTS: &[&str] =
    &["FAR", "FEW", "LATER", "LONGEST", "MANY", "MOST", "PACE", "PATIENCE", "REST", "ROOM", "S", "SOON", "V"];
/// Words and phrases in comments, strings and documentation, in lower case: (banned, use instead).
const BANNED_PHRASES: &[(&str, &str)] = &[
    ("audit book", "audit log"),
    ("laid aside", "dead-lettered or quarantined"),
    ("lays aside", "dead-letters or quarantines"),
    ("letters command", "dead letters command"),
    ("for ever", "until shutdown, or indefinitely"),
    ("anew", "again"),
    ("whoever", "the caller, the client, or who it is"),
    ("nobody", "no caller, none, or a passive"),
    ("house rule", "rule"),
    ("house rules", "rules"),
    ("somebody", "a person, a caller, or who it is"),
    ("anybody", "any caller, or who it is"),
    ("everybody", "all …"),
    ("those who", "the callers, or who they are"),
    ("one's own", "the user's"),
    ("nemesis", "fault injection"),
    ("the way into", "the entry point of"),
    ("as it came", "unchanged"),
    ("tried again", "retried"),
    ("what waits", "pending …"),
    ("of its own accord", "automatically"),
    ("is told", "is notified, is configured with, or receives"),
    ("are told", "are notified, are configured with, or receive"),
    ("that left stay in memory", "evicting inactive series failed"),
];

/// Checks the rule.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub(super) fn check(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages {
        for file in rust_files(&package.folder)? {
            // This file lists the words.
            if !file.ends_with("xtask/src/tidy/banned_words.rs") {
                check_source(&file, &std::fs::read_to_string(&file)?, problems);
            }
        }
    }
    for file in documents()? {
        let text = std::fs::read_to_string(&file)?;
        for (number, line) in text.lines().enumerate() {
            check_prose(&file, number + 1, line, problems);
        }
    }
    Ok(())
}

/// The documentation except ADRs and dated reports.
fn documents() -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root())? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.extend(files_with_extension(&root().join("runbooks"), "md")?);
    let history = [root().join("docs/adr"), root().join("docs/reliability")];
    let documents = files_with_extension(&root().join("docs"), "md")?;
    files.extend(documents.into_iter().filter(|file| !history.iter().any(|folder| file.starts_with(folder))));
    Ok(files)
}

fn check_source(file: &Path, source: &str, problems: &mut Vec<String>) {
    let mut constant = false;
    for token in tokens(source) {
        match token.kind {
            Kind::Identifier => {
                check_identifier(file, token.line, token.text, constant, problems);
                constant = token.text == "const" || token.text == "static";
            }
            Kind::Comment | Kind::Text => {
                for (number, line) in token.text.lines().enumerate() {
                    check_prose(file, token.line + number, line, problems);
                }
            }
            // `const` in generics and `'static` are followed by something else than a banned name.
            Kind::Punctuation => constant = false,
        }
    }
}

fn check_identifier(file: &Path, line: usize, name: &str, constant: bool, problems: &mut Vec<String>) {
    let location = || format!("{}:{line}", relative(file));
    if let Some((_, instead)) = BANNED_IDENTIFIERS.iter().find(|(banned, _)| *banned == name) {
        problems.push(format!("{}: `{name}` is not a standard term; use {instead}", location()));
    }
    for part in name.split('_') {
        if let Some((_, instead)) = IDENTIFIER_PARTS.iter().find(|(banned, _)| banned.eq_ignore_ascii_case(part)) {
            problems.push(format!("{}: `{part}` in `{name}` is not a standard term; use {instead}", location()));
        }
    }
    if constant && BANNED_CONSTANTS.contains(&name) {
        problems.push(format!("{}: `{name}` does not say what it bounds and in which unit", location()));
    }
}

fn check_prose(file: &Path, line: usize, text: &str, problems: &mut Vec<String>) {
    let text = text.to_lowercase();
    for (banned, instead) in BANNED_PHRASES {
        if contains_words(&text, banned) {
            problems.push(format!("{}:{line}: \"{banned}\" is not a standard term; use {instead}", relative(file)));
        }
    }
}

/// Whether the phrase occurs between word boundaries.
fn contains_words(text: &str, phrase: &str) -> bool {
    let is_word = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(phrase).any(|(start, _)| {
        let before = text.get(..start).and_then(|text| text.chars().next_back());
        let after = text.get(start + phrase.len()..).and_then(|text| text.chars().next());
        !is_word(before) && !is_word(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(source: &str) -> usize {
        let mut problems = Vec::new();
        check_source(Path::new("a.rs"), source, &mut problems);
        problems.len()
    }

    #[test]
    fn refuses_banned_names_and_phrases() {
        assert_eq!(problems_of("struct Keeper;\nfn bury_record() {}\nconst SOON: u64 = 1;"), 3);
        assert_eq!(problems_of("// Whoever waits retries for ever.\nlet s = \"written to the audit book\";"), 3);
    }

    #[test]
    fn accepts_words_that_contain_a_banned_name() {
        assert_eq!(problems_of("use tokio::sync::watch;\nstruct WorldClock;\nfn f<V, const N: usize>(v: V) {}"), 0);
        assert_eq!(problems_of("// ASCII letters, dead letters, renewed\nlet s = \"forever\";"), 0);
    }
}
