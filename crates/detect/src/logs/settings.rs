//! Setting changes that a service announces in its own log.
//!
//! Any text may be in a log line, also what a user typed. A change counts only in the form `key=K from=A to=B` outside
//! of quotes, in a line that says that it is about settings and names no other service.

/// Maximum length of the name of a setting and of its values, in bytes.
const MAX_TEXT_BYTES: usize = 200;
/// Beginnings of words that say that a line is about settings.
const SUBJECTS: [&str; 9] =
    ["setting", "config", "option", "parameter", "propert", "flag", "limit", "reload", "variable"];
/// Beginnings of words that say that it was read again.
const RE_READ: [&str; 2] = ["re-read", "reread"];
/// Words that name the service that a line is about.
const ABOUT: [&str; 4] = ["service=", "target=", "app=", "component="];

/// A setting change announced in a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Name of the setting.
    pub(crate) key: String,
    /// Old value.
    pub(crate) from: String,
    /// New value.
    pub(crate) to: String,
}

/// Returns the change that a line of a service announces.
pub(crate) fn setting_change(service: &str, message: &str) -> Option<Change> {
    // Fast path: nearly no line announces a change.
    if !message.contains("from=") || !message.contains("key=") {
        return None;
    }
    let mut found = [None, None, None];
    let (mut is_about_settings, mut is_quoted) = (false, false);
    for word in message.split_whitespace() {
        let starts_quoted = is_quoted;
        is_quoted ^= word.bytes().filter(|byte| *byte == b'"').count() % 2 == 1;
        if starts_quoted {
            continue;
        }
        if let Some(named) = ABOUT.iter().find_map(|prefix| word.strip_prefix(prefix))
            && trimmed(named) != service
        {
            return None;
        }
        let lower = word.to_ascii_lowercase();
        let starts = |words: &[&str]| words.iter().any(|start| lower.starts_with(start));
        is_about_settings |= starts(&SUBJECTS) || starts(&RE_READ);
        for (slot, name) in found.iter_mut().zip(["key=", "from=", "to="]) {
            if let Some(value) = word.strip_prefix(name).filter(|_| slot.is_none()) {
                *slot = Some(trimmed(value).to_owned());
            }
        }
    }
    let [Some(key), Some(from), Some(to)] = found else { return None };
    let is_valid = !key.is_empty() && [&key, &from, &to].iter().all(|text| text.len() <= MAX_TEXT_BYTES);
    (is_valid && is_about_settings && from != to).then_some(Change { key, from, to })
}

fn trimmed(value: &str) -> &str {
    value.trim_matches(['"', ',', ';'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_announces_changes_of_its_own_settings_only() {
        let change = |message: &str| setting_change("a", message).map(|found| format!("{found:?}"));
        let expected = Change { key: "slots".into(), from: "20".into(), to: "1".into() };
        assert_eq!(setting_change("a", "options re-read key=slots from=20 to=1"), Some(expected));
        assert!(change("setting changed service=a key=slots from=20, to=1").is_some());
        for line in [
            "mail from=a@b to=c@d",
            "mail key=x from=a@b to=c@d",
            "setting changed service=b key=slots from=20 to=1",
            "request refused: text=\"config key=slots from=20 to=1\"",
            "options re-read key=slots from=20 to=20",
            "options re-read key=slots from=20",
        ] {
            assert_eq!(change(line), None, "{line}");
        }
    }
}
