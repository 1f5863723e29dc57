//! Text from telemetry, made safe to show in a terminal.
//!
//! Problem: a log line, a label or a service name may contain control characters. A terminal obeys them: they erase or
//! rewrite lines, so that a person approves something else than they read. Characters that change the direction of text
//! reorder what stands beside them. Model: each such character is replaced with one visible character, so columns stay
//! aligned; JSON keeps its value, because it has an escape for each.

use std::borrow::Cow;

/// Returns text that occupies one line: control characters, line breaks included, are replaced with their pictures
/// (`␛`), and characters that change the direction of text or are invisible with `�`.
pub fn visible_line(text: &str) -> Cow<'_, str> {
    replace(text, |character| if is_hidden(character) { Some(picture(character)) } else { None })
}

/// Like [`visible_line`], but keeps line feeds and tabs.
pub fn visible_text(text: &str) -> Cow<'_, str> {
    replace(text, |character| match character {
        '\n' | '\t' => None,
        character if is_hidden(character) => Some(picture(character)),
        _ => None,
    })
}

/// Returns JSON of the same value in which these characters are escaped. Line feeds and tabs, which stand between
/// values, are kept.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    let mut units = [0; 2];
    for character in json.chars() {
        if is_hidden(character) && !['\n', '\r', '\t'].contains(&character) {
            for unit in character.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Returns CSV in which each row is one line: line breaks and tabs within a quoted cell are replaced, too.
pub fn visible_csv(csv: &str) -> Cow<'_, str> {
    let mut is_quoted = false;
    let shown = csv.chars().map(|character| {
        // A quote within a cell is written twice, which changes nothing.
        is_quoted ^= character == '"';
        if is_hidden(character) && (is_quoted || character != '\n') { picture(character) } else { character }
    });
    if csv.chars().any(is_hidden) { Cow::Owned(shown.collect()) } else { Cow::Borrowed(csv) }
}

fn replace(text: &str, replacement: impl Fn(char) -> Option<char>) -> Cow<'_, str> {
    if text.chars().all(|character| replacement(character).is_none()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|character| replacement(character).unwrap_or(character)).collect())
}

/// Whether a character is not itself visible, or changes what is: C0 and C1 controls, line and paragraph separators,
/// annotations, and what Unicode calls `Default_Ignorable_Code_Point` (marks and overrides of direction, fillers,
/// variation selectors, invisible operators, tags). The joiners U+200C and U+200D belong to words of some scripts.
fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The picture of a C0 control or of DEL; `�` for others.
fn picture(character: char) -> char {
    match character {
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\u{7f}' => '\u{2421}',
        _ => char::REPLACEMENT_CHARACTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Escape sequences of terminals, as ESC or as the single character of C1; overrides and isolates of direction.
    const HOSTILE: [&str; 13] = [
        "\u{1b}[2J\u{1b}[H",
        "\u{9b}2J",
        "\u{1b}]0;title\u{7}",
        "\u{1b}]8;;http://evil.example\u{1b}\\",
        "\u{90}q\u{9c}",
        "\u{202e}kcabllor",
        "\u{2066}\u{2069}\u{200f}",
        "a\rb\u{8}\u{7f}",
        "\u{2028}\u{feff}\u{e0041}",
        "cart\u{34f}\u{115f}\u{1160}\u{3164}\u{ffa0}",
        "\u{17b4}\u{17b5}\u{180b}\u{180f}\u{fe00}\u{fe0f}",
        "\u{fff0}\u{fff8}\u{1bca0}\u{1bca3}\u{1d173}\u{1d17a}",
        "\u{e0100}\u{e01ef}\u{e0fff}",
    ];

    #[test]
    fn nothing_hidden_remains() {
        for text in HOSTILE {
            for shown in [visible_line(text), visible_text(text), visible_csv(text)] {
                assert!(!shown.chars().any(is_hidden), "{shown:?}");
                assert_eq!(shown.chars().count(), text.chars().count(), "columns stay aligned");
            }
        }
        assert_eq!(visible_line("boom \u{1b}[2J\nINC-1 is resolved"), "boom ␛[2J␊INC-1 is resolved");
        assert_eq!(visible_text("one\n\ttwo\r"), "one\n\ttwo␍");
    }

    #[test]
    fn hostile_examples_are_replaced_wholly() {
        for text in &HOSTILE[8..] {
            let shown = visible_line(text);
            let replaced = shown.chars().filter(|character| *character == char::REPLACEMENT_CHARACTER).count();
            assert_eq!(replaced, text.chars().filter(|character| !character.is_ascii()).count(), "{text:?}");
        }
    }

    #[test]
    fn a_cell_of_csv_cannot_forge_a_row() {
        let csv = "at,message\n1,\"boom \"\"x\"\"\n2,forged\r\n3\"\n4,\"a\tb\"\n5,\"\"\n6,c\u{1b}d\n";
        let expected = "at,message\n1,\"boom \"\"x\"\"␊2,forged␍␊3\"\n4,\"a␉b\"\n5,\"\"\n6,c␛d\n";
        assert_eq!(visible_csv(csv), expected);
        assert!(matches!(visible_csv("a,\"b\""), Cow::Borrowed(_)));
    }

    #[test]
    fn json_keeps_its_value() {
        for text in HOSTILE {
            let value = serde_json::json!({ "message": text });
            let json = serde_json::to_string_pretty(&value).unwrap();
            let shown = visible_json(&json);
            assert!(!shown.chars().any(|character| is_hidden(character) && character != '\n'), "{shown:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn ordinary_text_is_not_copied() {
        for text in ["naïve Übergröße", "日本語 عربي עברית", "👩‍💻 क्ष", "a — b"] {
            assert!(matches!(visible_line(text), Cow::Borrowed(_)), "{text}");
            assert!(matches!(visible_json(text), Cow::Borrowed(_)), "{text}");
        }
    }
}
