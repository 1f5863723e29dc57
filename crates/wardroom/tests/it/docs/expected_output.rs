//! Compares the output of a command with what a page says. `…` stands for any text of a line, and a line `…` for any
//! lines.

const ELLIPSIS: char = '…';
/// A word of at least this many hexadecimal digits is an identifier or a hash.
const MIN_HEX_DIGITS: usize = 8;
/// Units of sizes; the figure before one decides which it is.
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Splits a `console` block into its commands and their outputs.
pub(super) fn commands(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            found.push((command.to_owned(), String::new()));
        } else if let Some((command, output)) = found.last_mut() {
            let is_continued = output.is_empty() && command.ends_with('\\');
            let part = if is_continued { command } else { output };
            part.push_str(if is_continued { "\n" } else { "" });
            part.push_str(line);
            part.push_str(if is_continued { "" } else { "\n" });
        } else {
            panic!("a console block begins with \"$ \": {line}");
        }
    }
    found
}

/// Whether the output is the expected one, line by line.
pub(super) fn matches(expected: &str, found: &str) -> bool {
    lines_match(&lines(expected), &lines(found))
}

/// Like [`matches`], but figures, times, hashes and units of sizes may differ, and the space between words.
pub(super) fn matches_apart_from_figures(expected: &str, found: &str) -> bool {
    let [expected, found] =
        [expected, found].map(|text| lines(text).iter().map(|line| shape(line)).collect::<Vec<_>>());
    lines_match(&expected, &found)
}

fn lines(text: &str) -> Vec<String> {
    text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
}

fn lines_match(expected: &[String], found: &[String]) -> bool {
    match expected.split_first() {
        None => found.is_empty(),
        Some((first, rest)) if *first == ELLIPSIS.to_string() => {
            (0..=found.len()).any(|skipped| lines_match(rest, &found[skipped..]))
        }
        Some((first, rest)) => {
            found.split_first().is_some_and(|(line, others)| line_matches(first, line) && lines_match(rest, others))
        }
    }
}

fn line_matches(expected: &str, found: &str) -> bool {
    let Some((start, rest)) = expected.split_once(ELLIPSIS) else { return expected == found };
    let Some(after) = found.strip_prefix(start) else { return false };
    let ends = after.char_indices().map(|(index, _)| index).chain([after.len()]);
    ends.into_iter().filter_map(|index| after.get(index..)).any(|after| line_matches(rest, after))
}

/// The line with `#` in place of figures and identifiers, and single spaces.
fn shape(line: &str) -> String {
    let words =
        line.split_whitespace().map(|word| if UNITS.contains(&word.trim_end_matches(',')) { "#B" } else { word });
    let mut shape = String::new();
    for word in words {
        for part in word.split_inclusive(|character: char| !character.is_ascii_alphanumeric()) {
            let end = part.len()
                - part.chars().next_back().filter(|last| !last.is_ascii_alphanumeric()).map_or(0, char::len_utf8);
            let (text, separator) = part.split_at(end);
            let is_hex = text.len() >= MIN_HEX_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_hex {
                shape.push('#');
            } else {
                let mut is_figure = false;
                for character in text.chars() {
                    if !character.is_ascii_digit() {
                        shape.push(character);
                    } else if !is_figure {
                        shape.push('#');
                    }
                    is_figure = character.is_ascii_digit();
                }
            }
            shape.push_str(separator);
        }
        shape.push(' ');
    }
    // A decimal point and a second one belong to the same figure.
    while shape.contains("#.#") {
        shape = shape.replace("#.#", "#");
    }
    shape.trim_end().to_owned()
}

#[test]
fn figures_may_differ_and_words_may_not() {
    let expected = "./b/2026-11-26T03-00-00.000Z 412 files, 18.20 GiB, of which 0 B new";
    assert!(matches_apart_from_figures(
        expected,
        "./b/2027-01-02T13-01-07.123Z 7 files, 9 KiB, of which 1.5 KiB  new\n"
    ));
    for other in ["./b/2026 412 files", "./c/2026-11-26T03-00-00.000Z 412 files, 18.20 GiB, of which 0 B new", ""] {
        assert!(!matches_apart_from_figures(expected, other), "{other}");
    }
    assert!(matches_apart_from_figures("1 file\n…\nend", "2 file\nother\nend\n"));
    assert!(matches_apart_from_figures("key 0123456789abcdef ok", "key ffffffff ok"));
    assert!(!matches("value 17.0", "value 18.0") && !matches("value 17.0", "value null"));
}

#[test]
fn an_ellipsis_stands_for_any_text_and_any_lines() {
    assert!(matches("a … c\n…\nz", "a b c\nd\ne\nz\n"));
    assert!(matches("…", "") && matches("a\n…", "a"));
    assert!(!matches("a … c\nz", "a b d\nz") && !matches("a\n…\nz", "a\nb"));
}

#[test]
fn a_console_block_has_commands_with_outputs() {
    let text = "$ one \\\n  two\nout\n$ three\n";
    let expected =
        [("one \\\n  two", "out\n"), ("three", "")].map(|(command, out)| (command.to_owned(), out.to_owned()));
    assert_eq!(commands(text), expected);
}
