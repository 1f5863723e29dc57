//! A small lexer for Rust: identifiers, punctuation, strings and comments with their lines. Enough to find names and
//! imports.

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or keyword.
    Identifier,
    /// `::` or one character of punctuation.
    Punctuation,
    /// The content of a string literal, without quotes.
    Text,
    /// A comment, with its slashes.
    Comment,
}

/// A token and the line on which it starts, from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) line: usize,
}

impl Token<'_> {
    pub(super) fn is_punctuation(&self, punctuation: &str) -> bool {
        self.kind == Kind::Punctuation && self.text == punctuation
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Identifier && self.text == word
    }
}

/// Splits source into tokens. Numbers, characters, lifetimes and white space are left out.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let (mut tokens, mut position, mut line) = (Vec::new(), 0, 1);
    while position < bytes.len() {
        let (kind, start, end, next) = match bytes[position] {
            b'/' if source.get(position..position + 2) == Some("//") => {
                let end = source
                    .get(position..)
                    .and_then(|rest| rest.find('\n'))
                    .map_or(bytes.len(), |length| position + length);
                (Some(Kind::Comment), position, end, end)
            }
            b'/' if source.get(position..position + 2) == Some("/*") => {
                let end = block_comment_end(bytes, position);
                (Some(Kind::Comment), position, end, end)
            }
            b'"' => string(bytes, position),
            b'r' | b'b' | b'c' if raw_string_hashes(bytes, position).is_some() => raw_string(source, position),
            b'b' | b'c' if bytes.get(position + 1) == Some(&b'"') => string(bytes, position + 1),
            b'\'' => {
                let end = character_or_lifetime_end(source, position);
                (None, position, end, end)
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let end = word_end(bytes, position);
                (Some(Kind::Identifier), position, end, end)
            }
            byte if byte.is_ascii_digit() => {
                let end = word_end(bytes, position);
                (None, position, end, end)
            }
            b':' if bytes.get(position + 1) == Some(&b':') => {
                (Some(Kind::Punctuation), position, position + 2, position + 2)
            }
            byte if byte.is_ascii_punctuation() => (Some(Kind::Punctuation), position, position + 1, position + 1),
            _ => (None, position, position + 1, position + 1),
        };
        if let Some((kind, text)) = kind.zip(source.get(start..end)) {
            tokens.push(Token { kind, text, line });
        }
        line += bytes[position..next].iter().filter(|byte| **byte == b'\n').count();
        position = next;
    }
    tokens
}

/// Kind, start and end of a token's text, and where the next token may start.
type Lexed = (Option<Kind>, usize, usize, usize);

fn word_end(bytes: &[u8], start: usize) -> usize {
    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    start + length
}

fn string(bytes: &[u8], quote: usize) -> Lexed {
    let mut position = quote + 1;
    while position < bytes.len() && bytes[position] != b'"' {
        position += if bytes[position] == b'\\' { 2 } else { 1 };
    }
    let end = position.min(bytes.len());
    (Some(Kind::Text), quote + 1, end, (end + 1).min(bytes.len()))
}

/// Number of hashes of a raw string that starts here; `None` if none does.
fn raw_string_hashes(bytes: &[u8], start: usize) -> Option<usize> {
    let r = if bytes[start] == b'r' { start } else { start + 1 };
    let hashes = bytes.get(r + 1..)?.iter().take_while(|byte| **byte == b'#').count();
    (bytes.get(r) == Some(&b'r') && bytes.get(r + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_string(source: &str, start: usize) -> Lexed {
    let hashes = raw_string_hashes(source.as_bytes(), start).unwrap_or_default();
    let opening = source.get(start..).and_then(|rest| rest.find('"')).unwrap_or_default();
    let content = start + opening + 1;
    let closing = format!("\"{}", "#".repeat(hashes));
    let length = source.get(content..).and_then(|rest| rest.find(&closing));
    let end = length.map_or(source.len(), |length| content + length);
    (Some(Kind::Text), content, end, (end + closing.len()).min(source.len()))
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut position, mut depth) = (start + 2, 1);
    while position < bytes.len() && depth > 0 {
        match bytes.get(position..position + 2) {
            Some(b"/*") => (position, depth) = (position + 2, depth + 1),
            Some(b"*/") => (position, depth) = (position + 2, depth - 1),
            _ => position += 1,
        }
    }
    position.min(bytes.len())
}

/// End of a character literal, or of the apostrophe of a lifetime.
fn character_or_lifetime_end(source: &str, quote: usize) -> usize {
    let mut characters = source.get(quote + 1..).unwrap_or_default().char_indices();
    let closing = match characters.next() {
        // The escaped character may be an apostrophe itself.
        Some((_, '\\')) => characters.skip(1).find(|(_, character)| *character == '\''),
        _ => characters.next().filter(|(_, character)| *character == '\''),
    };
    closing.map_or(quote + 1, |(length, _)| quote + 1 + length + 1)
}

/// The tokens without comments and without items that are compiled for tests only.
pub(super) fn without_comments_and_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let code: Vec<Token<'a>> = tokens.iter().filter(|token| token.kind != Kind::Comment).copied().collect();
    let (mut kept, mut position) = (Vec::with_capacity(code.len()), 0);
    while position < code.len() {
        match attribute_end(&code, position) {
            Some(end) if is_test_attribute(&code[position..end]) => position = item_end(&code, end),
            _ => {
                kept.push(code[position]);
                position += 1;
            }
        }
    }
    kept
}

/// Where an outer attribute that starts here ends.
fn attribute_end(code: &[Token<'_>], position: usize) -> Option<usize> {
    let starts =
        code[position].is_punctuation("#") && code.get(position + 1).is_some_and(|next| next.is_punctuation("["));
    starts.then(|| position + 1 + group_length(&code[position + 1..]))
}

/// `#[cfg(test)]` and `#[cfg(all(test, …))]`, but not `#[cfg(not(test))]`.
fn is_test_attribute(attribute: &[Token<'_>]) -> bool {
    let has = |word: &str| attribute.iter().any(|token| token.is_word(word));
    has("cfg") && has("test") && !has("not")
}

/// Where the item after an attribute ends: at its block or semicolon.
fn item_end(code: &[Token<'_>], mut position: usize) -> usize {
    while position < code.len() {
        let token = &code[position];
        if token.is_punctuation("{") {
            return position + group_length(&code[position..]);
        }
        if token.is_punctuation("}") {
            return position;
        }
        if token.is_punctuation(";") {
            return position + 1;
        }
        position +=
            if token.is_punctuation("(") || token.is_punctuation("[") { group_length(&code[position..]) } else { 1 };
    }
    position
}

/// Number of tokens of the bracketed group at the start.
pub(super) fn group_length(code: &[Token<'_>]) -> usize {
    let mut depth = 0_usize;
    for (position, token) in code.iter().enumerate() {
        if ["(", "[", "{"].iter().any(|open| token.is_punctuation(open)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|close| token.is_punctuation(close)) {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return position + 1;
            }
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_identifiers_strings_comments_and_lifetimes() {
        let source = "/* a /* b */ */ fn f<'x>(c: char) -> &'x str { if c == '\\'' || c == '\"' { \"t\\\"u\" } // end\n r#\"v\"w\"# }";
        let all = tokens(source);
        let texts_of =
            |kind: Kind| all.iter().filter(|token| token.kind == kind).map(|token| token.text).collect::<Vec<_>>();
        assert_eq!(texts_of(Kind::Text), ["t\\\"u", "v\"w"]);
        assert_eq!(texts_of(Kind::Comment), ["/* a /* b */ */", "// end"]);
        assert_eq!(texts_of(Kind::Identifier), ["fn", "f", "x", "c", "char", "x", "str", "if", "c", "c"]);
        assert_eq!(all.last().map(|token| token.line), Some(2));
    }

    #[test]
    fn skips_test_items() {
        let all =
            tokens("use a::b;\n#[cfg(test)]\n#[x]\nmod tests { fn t() {} }\nfn c() {}\n#[cfg(not(test))]\nfn d() {}");
        let code = without_comments_and_tests(&all);
        let words: Vec<&str> = code.iter().filter(|t| t.kind == Kind::Identifier).map(|t| t.text).collect();
        assert_eq!(words, ["use", "a", "b", "fn", "c", "cfg", "not", "test", "fn", "d"]);
    }
}
