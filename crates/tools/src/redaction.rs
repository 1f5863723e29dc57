//! Removes credentials from what targets return.
//!
//! Problem: outputs and errors of targets go to the audit log, to people and to a model, and targets print credentials.
//! Model: every value that was resolved from a reference is cut out in the spellings in which programs print it, and so
//! is what has the form of a credential. Guarantee: text is redacted before it is shortened, so that no part of a
//! credential is left at the cut.

use std::sync::LazyLock;

use regex::Regex;

/// What stands in place of a credential.
pub const REDACTED: &str = "[redacted]";
/// Shortest value that is cut out: shorter ones would make ordinary text unreadable.
const MIN_SECRET_CHARS: usize = 4;

/// Shortest line of a credential of several lines that is cut out by itself, in bytes.
const MIN_LINE_BYTES: usize = 16;

/// Forms of credentials; what group `keep` matches stays.
const FORMS: [&str; 9] = [
    r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\b(?:ghp|gho|ghu|ghs|ghr|github_pat|glpat|xox[abeprs]|sk|rk|hvs|hvb|s\.)[-_][A-Za-z0-9_.-]{16,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    r"(?P<keep>(?i:\bbearer|\bbasic|\bgeniekey)\s+)[A-Za-z0-9._~+/=-]{8,}",
    r"(?P<keep>://[^/\s:@]*:)[^/\s@]+(?P<tail>@)",
    r#"(?P<keep>(?i:pass(?:word|wd|phrase)?|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|authorization)[A-Za-z0-9_-]*["']?\s*[=:]\s*["'])[^"']+"#,
    r#"(?P<keep>(?i:pass(?:word|wd|phrase)?|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key)[A-Za-z0-9_-]*\s*[=:]\s*)[^\s"',;&\[]+"#,
    r"(?P<keep>(?i:--?(?:password|token|secret|api-key))\s+)\S+",
];

static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    FORMS.iter().map(|form| Regex::new(form).expect("a form of credentials is a valid pattern")).collect()
});

/// Removes known values, and what has the form of a credential.
pub fn redact(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        for spelling in spellings(secret) {
            if text.contains(&spelling) {
                text = text.replace(&spelling, REDACTED);
            }
        }
    }
    for pattern in PATTERNS.iter() {
        if pattern.is_match(&text) {
            text = pattern.replace_all(&text, format!("${{keep}}{REDACTED}${{tail}}")).into_owned();
        }
    }
    text
}

/// Removes credentials from every text in a value, and replaces the values of fields that are named like one.
pub fn redact_value(value: &mut serde_json::Value, secrets: &[String]) {
    match value {
        serde_json::Value::String(text) => *text = redact(text, secrets),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| redact_value(item, secrets)),
        serde_json::Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if value.is_string() && is_secret_name(name) {
                    *value = REDACTED.into();
                } else {
                    redact_value(value, secrets);
                }
            }
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

/// Whether a field of this name holds a credential.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_', '.'], "");
    ["password", "passwd", "passphrase", "secret", "apikey", "accesskey", "privatekey", "authorization"]
        .iter()
        .any(|part| name.contains(part))
        || name.ends_with("token")
        || name == "pwd"
}

/// The spellings in which a value appears in outputs: as it is, in Base64, in a URL, in JSON.
fn spellings(secret: &str) -> Vec<String> {
    use base64::Engine as _;
    if secret.chars().count() < MIN_SECRET_CHARS {
        return Vec::new();
    }
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(secret);
    let base64_url = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
    let url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let json = serde_json::to_string(secret).unwrap_or_default().trim_matches('"').to_owned();
    let mut spellings = vec![secret.to_owned(), url.replace('+', "%20"), url, json, base64, base64_url];
    // Programs print a key of several lines line by line, and a text may be cut to one of them.
    let lines = secret.lines().filter(|line| line.len() < secret.len() && line.len() >= MIN_LINE_BYTES);
    spellings.extend(lines.map(str::to_owned));
    // The longest first: a short spelling may be part of a longer one.
    spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
    spellings.dedup();
    spellings
}

/// Shortens a text to a number of bytes, and says so.
pub fn shorten(text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let cut = text.len() - end;
    let kept = text.get(..end).unwrap_or_default();
    format!("{kept}… ({cut} more bytes)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_are_cut_out_in_every_spelling() {
        let secret = "pa ss/w\"ord+1".to_owned();
        for spelling in spellings(&secret) {
            let text = redact(&format!("before {spelling} after"), std::slice::from_ref(&secret));
            assert_eq!(text, "before [redacted] after", "{spelling}");
        }
        assert_eq!(redact("the abc", &["abc".to_owned()]), "the abc", "too short to cut out");
    }

    #[test]
    fn forms_of_credentials_are_cut_out_and_ordinary_text_is_not() {
        for text in [
            "-----BEGIN RSA PRIVATE KEY-----\nCANARY\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nCANARY cut",
            "key AKIACANARYCANARY0000 used",
            "ghp_CANARYCANARYCANARYCANARY",
            "xoxb-CANARY-CANARYCANARYCANARY",
            "hvs.CANARY-x hvs_CANARYCANARYCANARY",
            "eyJhbGciOiJI.CANARYCANARY.CANARY",
            "Authorization: Bearer CANARYCANARY",
            "postgres://app:CANARY@db:5432/x",
            r#"{"password": "CANARY one two"}"#,
            "PGPASSWORD=CANARY psql",
            "DB_PASSWORD='CANARY x'",
            "api_key: CANARY",
            "mysql --password CANARY",
            "client_secret=CANARY&grant_type=x",
        ] {
            let redacted = redact(text, &["hvs.CANARY-x".to_owned()]);
            assert!(!redacted.contains("CANARY") && redacted.contains(REDACTED), "{text}: {redacted}");
        }
        for text in [
            "cart goes from version 1.1.0 to 1.0.0",
            "12 tokens per second; password policy changed",
            "http://10.0.0.1:8080/control",
            "at 12:30:05 the pool size went from 5 to 50",
        ] {
            assert_eq!(redact(text, &[]), text);
        }
    }

    #[test]
    fn text_is_shortened_at_a_character() {
        assert_eq!(shorten("äöü".to_owned(), 6), "äöü");
        assert_eq!(shorten("äöü".to_owned(), 3), "ä… (4 more bytes)");
    }

    #[test]
    fn fields_named_like_credentials_are_replaced() {
        let mut value = serde_json::json!({ "Password": "x", "spec": [{ "api-key": "y", "keys": "z" }], "n": 1 });
        redact_value(&mut value, &[]);
        let expected =
            serde_json::json!({ "Password": REDACTED, "spec": [{ "api-key": REDACTED, "keys": "z" }], "n": 1 });
        assert_eq!(value, expected);
    }
}
