//! Lines of OpenSSH's `allowed_signers` format: which key belongs to which approver, for what, and for how long.
//!
//! ```text
//! alice namespaces="approval@wardroom",valid-before="20270101Z" ssh-ed25519 AAAAC3… comment
//! ```
//!
//! The format is the one of `ssh-keygen(1)`, section ALLOWED SIGNERS, so that a team's file for signed commits can be
//! used. What would make it unclear who approves is refused: patterns (`*@example.org`), several names on one line,
//! and certificate authorities; as are times without `Z`, which would depend on this machine's time zone.

use ssh_key::PublicKey;
use ssh_key::public::KeyData;
use wardroom_domain::approval_proof::PROOF_NAMESPACE;
use wardroom_domain::{Principal, Timestamp};

use super::ssh_signature;

/// A key that may sign approvals.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    /// Whose it is.
    pub(crate) principal: Principal,
    pub(crate) key: KeyData,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl Signer {
    /// Checks that the key may be used at a time.
    pub(crate) fn check_valid_at(&self, at: Timestamp) -> Result<(), String> {
        if let Some(after) = self.valid_after.filter(|after| at < *after) {
            return Err(format!("the key of {} is valid from {after}, and it is {at}", self.principal));
        }
        match self.valid_before.filter(|before| at >= *before) {
            Some(before) => Err(format!("the key of {} was valid until {before}", self.principal)),
            None => Ok(()),
        }
    }
}

/// Parses the lines of a file. Empty lines and comments are skipped, as are keys for other namespaces only.
///
/// # Errors
/// Returns the number of the line, the reason and a remedy.
pub(crate) fn parse(text: &str) -> Result<Vec<Signer>, String> {
    let mut signers = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Ok(signer) => signers.extend(signer),
            Err(reason) => return Err(format!("line {}: {reason}", index + 1)),
        }
    }
    Ok(signers)
}

/// Parses one line; `None` if its key is for other namespaces.
fn parse_line(line: &str) -> Result<Option<Signer>, String> {
    let (name, rest) = split_word(line);
    if name.contains(['*', '?', '!', ',']) {
        return Err(format!("{name:?} is not the name of one person; write a line for each, without patterns"));
    }
    let principal = Principal::new(name.trim_matches('"'))?;
    let (options, key) = if is_key_type(split_word(rest).0) { ("", rest) } else { split_word(rest) };
    let Options { namespaces, valid_after, valid_before } = Options::parse(options)?;
    let public_key = PublicKey::from_openssh(key).map_err(|error| {
        format!("there is no public key after the name: {error}; copy the line of the approver's .pub file")
    })?;
    let key = public_key.key_data().clone();
    ssh_signature::check_supported(&key)?;
    if namespaces.is_some_and(|patterns| !patterns.split(',').any(matches_pattern)) {
        return Ok(None);
    }
    Ok(Some(Signer { principal, key, valid_after, valid_before }))
}

#[derive(Default)]
struct Options {
    namespaces: Option<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl Options {
    fn parse(mut text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        while !text.is_empty() {
            let (option, rest) = split_option(text);
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let value = value.trim_matches('"');
            match name.to_ascii_lowercase().as_str() {
                "namespaces" => options.namespaces = Some(value.to_owned()),
                "valid-after" => options.valid_after = Some(parse_time(value)?),
                "valid-before" => options.valid_before = Some(parse_time(value)?),
                "cert-authority" => return Err("certificate authorities are not supported; list each key".to_owned()),
                _ => {
                    return Err(format!("there is no option {name:?}; use namespaces, valid-after and valid-before"));
                }
            }
            text = rest;
        }
        Ok(options)
    }
}

/// Splits at white space outside of quotes.
fn split_word(text: &str) -> (&str, &str) {
    let end = unquoted(text, |c| c == ' ' || c == '\t').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start())
}

/// Splits at a comma outside of quotes.
fn split_option(text: &str) -> (&str, &str) {
    match unquoted(text, |c| c == ',') {
        Some(end) => (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default()),
        None => (text, ""),
    }
}

/// Returns the position of the first character outside of quotes for which `is_end` holds.
fn unquoted(text: &str, is_end: impl Fn(char) -> bool) -> Option<usize> {
    let mut quoted = false;
    for (position, c) in text.char_indices() {
        if c == '"' {
            quoted = !quoted;
        } else if !quoted && is_end(c) {
            return Some(position);
        }
    }
    None
}

/// Whether a word is the type of a key, and so not options.
fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|start| word.starts_with(start))
}

/// Whether a pattern of namespaces includes ours: `*` stands for any characters, `?` for one.
fn matches_pattern(pattern: &str) -> bool {
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) if matches(rest, text) => true,
            (Some((b'*', _)), Some((_, later))) => matches(pattern, later),
            (Some((b'?', rest)), Some((_, later))) => matches(rest, later),
            (Some((wanted, rest)), Some((found, later))) => wanted == found && matches(rest, later),
            _ => false,
        }
    }
    matches(pattern.trim().as_bytes(), PROOF_NAMESPACE.as_bytes())
}

/// Parses `YYYYMMDDZ` or `YYYYMMDDHHMM[SS]Z`.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is not a time in UTC, such as 20270101Z or 202701011200Z");
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    let digits = digits.ok_or_else(wrong)?;
    let part = |start: usize, end: usize| digits.get(start..end).unwrap_or("00");
    if ![8, 12, 14].contains(&digits.len()) {
        return Err(wrong());
    }
    let (year, month, day) = (part(0, 4), part(4, 6), part(6, 8));
    let (hour, minute, second) = (part(8, 10), part(10, 12), part(12, 14));
    Timestamp::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn names(text: &str) -> Vec<String> {
        parse(text).unwrap().into_iter().map(|signer| signer.principal.to_string()).collect()
    }

    #[test]
    fn lines_of_the_format_are_read() {
        let text = format!(
            "# team\n\nalice {KEY} alice@laptop\nbob@example.org namespaces=\"approval@wardroom\" {KEY}\n\
             \"carol\"\tnamespaces=\"git,approval@*\",valid-after=\"20260101Z\" {KEY}\ndave namespaces=\"git\" {KEY}\n"
        );
        assert_eq!(names(&text), ["alice", "bob@example.org", "carol"], "dave's key is for commits only");
    }

    #[test]
    fn times_are_honoured() {
        let signers = parse(&format!("a valid-after=\"20260301Z\",valid-before=\"202604011230Z\" {KEY}")).unwrap();
        let at = |time: &str| signers[0].check_valid_at(Timestamp::parse(time).unwrap());
        assert!(at("2026-02-28T23:59:59Z").unwrap_err().contains("valid from 2026-03-01"));
        assert!(at("2026-03-01T00:00:00Z").is_ok() && at("2026-04-01T12:29:59Z").is_ok());
        assert!(at("2026-04-01T12:30:00Z").unwrap_err().contains("valid until"));
    }

    #[test]
    fn lines_that_do_not_say_who_signs_are_refused() {
        for (line, expected) in [
            (format!("*@example.org {KEY}"), "line 1: \"*@example.org\" is not the name of one person"),
            (format!("a,b {KEY}"), "not the name of one person"),
            (format!("a cert-authority {KEY}"), "certificate authorities"),
            (format!("a valid-before=\"20270101\" {KEY}"), "not a time in UTC"),
            (format!("a valid-before=\"20271301Z\" {KEY}"), "not a time in UTC"),
            (format!("a valid-befor=\"20270101Z\" {KEY}"), "no option \"valid-befor\""),
            (format!("a/b {KEY}"), "not a valid name"),
            ("a".to_owned(), "no public key"),
            ("a ssh-ed25519 AAAA".to_owned(), "no public key"),
            (KEY.to_owned(), "line 1:"),
        ] {
            let error = parse(&line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        assert!(parse(&format!("a {KEY}\nb*b {KEY}")).unwrap_err().starts_with("line 2"));
    }

    #[test]
    fn namespaces_are_patterns() {
        for (pattern, matched) in [
            ("approval@wardroom", true),
            ("*", true),
            ("approval@*", true),
            ("approval@wardroo?", true),
            ("approval@wardroom2", false),
            ("approval", false),
            ("", false),
            ("git", false),
        ] {
            assert_eq!(matches_pattern(pattern), matched, "{pattern}");
        }
    }
}
