//! Removes literals from SQL: statements are shown to people and kept in incidents, the data in them is not.

/// Longest text of a statement that is shown, in characters.
const MAX_CHARACTERS: usize = 300;

/// Returns a statement with `?` in place of each literal, without comments, on one line of limited length.
///
/// PostgreSQL's lexical rules: strings with doubled quotes, `E''` strings with backslashes, dollar quoting, numbers.
/// What is not closed, because the server cut the statement off, is removed to its end.
pub(super) fn without_literals(statement: &str) -> String {
    let characters: Vec<char> = statement.chars().collect();
    let mut scanner = Scanner { characters: &characters, position: 0, output: String::new() };
    while scanner.position < characters.len() {
        scanner.step();
    }
    let line = scanner.output.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_CHARACTERS {
        return line;
    }
    line.chars().take(MAX_CHARACTERS).chain(['…']).collect()
}

struct Scanner<'a> {
    characters: &'a [char],
    position: usize,
    output: String,
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.position + ahead).copied()
    }

    fn step(&mut self) {
        let Some(character) = self.peek(0) else { return };
        match character {
            '\'' => self.skip_string(false),
            'e' | 'E' if self.peek(1) == Some('\'') => {
                self.position += 1;
                self.skip_string(true);
            }
            '"' => self.copy_identifier(),
            '$' if self.skip_dollar_string() => {}
            '-' if self.peek(1) == Some('-') => self.skip_line(),
            '/' if self.peek(1) == Some('*') => self.skip_comment(),
            _ if character.is_ascii_digit() => self.skip_number(),
            _ if is_word(character) => self.copy_word(),
            _ => {
                self.output.push(character);
                self.position += 1;
            }
        }
    }

    fn skip_string(&mut self, backslashes: bool) {
        self.output.push('?');
        self.position += 1;
        while let Some(character) = self.peek(0) {
            self.position += match character {
                '\\' if backslashes => 2,
                '\'' if self.peek(1) == Some('\'') => 2,
                '\'' => {
                    self.position += 1;
                    return;
                }
                _ => 1,
            };
        }
    }

    fn copy_identifier(&mut self) {
        self.output.push('"');
        self.position += 1;
        while let Some(character) = self.peek(0) {
            self.output.push(character);
            self.position += 1;
            if character == '"' {
                return;
            }
        }
    }

    /// Skips `$tag$ … $tag$`; false if the dollar starts none, as in the parameter `$1`.
    fn skip_dollar_string(&mut self) -> bool {
        let tag: Vec<char> =
            self.characters[self.position + 1..].iter().take_while(|character| is_word(**character)).copied().collect();
        if tag.first().is_some_and(char::is_ascii_digit) || self.peek(tag.len() + 1) != Some('$') {
            if tag.first().is_some_and(char::is_ascii_digit) {
                self.output.push('$');
                self.output.extend(&tag);
                self.position += tag.len() + 1;
                return true;
            }
            return false;
        }
        let delimiter: Vec<char> = std::iter::once('$').chain(tag).chain(['$']).collect();
        self.output.push('?');
        self.position += delimiter.len();
        while self.position < self.characters.len() {
            if self.characters[self.position..].starts_with(&delimiter) {
                self.position += delimiter.len();
                return true;
            }
            self.position += 1;
        }
        true
    }

    fn skip_line(&mut self) {
        while self.peek(0).is_some_and(|character| character != '\n') {
            self.position += 1;
        }
    }

    fn skip_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(character) = self.peek(0) {
            match (character, self.peek(1)) {
                ('/', Some('*')) => {
                    depth += 1;
                    self.position += 2;
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.position += 2;
                    if depth == 0 {
                        self.output.push(' ');
                        return;
                    }
                }
                _ => self.position += 1,
            }
        }
    }

    fn skip_number(&mut self) {
        self.output.push('?');
        while let Some(character) = self.peek(0) {
            let is_exponent_sign = matches!(character, '+' | '-')
                && self.position > 0
                && matches!(self.characters[self.position - 1], 'e' | 'E');
            if is_word(character) || character == '.' || is_exponent_sign {
                self.position += 1;
            } else {
                return;
            }
        }
    }

    fn copy_word(&mut self) {
        while let Some(character) = self.peek(0).filter(|character| is_word(*character) || *character == '$') {
            self.output.push(character);
            self.position += 1;
        }
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_of_every_form_are_removed_and_names_stay() {
        let cases = [
            ("SELECT * FROM users WHERE mail = 'a''b@x.org' AND id=42", "SELECT * FROM users WHERE mail = ? AND id=?"),
            (r"SELECT E'it\'s' , x1, \n 1.5e-3, $1", r"SELECT ? , x1, \n ?, $1"),
            ("SELECT $$secret$$, $a$ x $$ y $a$, t.c2", "SELECT ?, ?, t.c2"),
            ("SELECT 1 -- password: x\nFROM /* a /* b */ c */ \"Order 7\"", "SELECT ? FROM \"Order 7\""),
            ("INSERT INTO t VALUES ('cut off", "INSERT INTO t VALUES (?"),
            ("SELECT N'x', B'01', 0xFF, 1_000", "SELECT N?, B?, ?, ?"),
        ];
        for (statement, expected) in cases {
            assert_eq!(without_literals(statement), expected);
        }
        assert_eq!(without_literals(&"a ".repeat(400)).chars().count(), MAX_CHARACTERS + 1);
    }

    proptest::proptest! {
        #[test]
        fn no_string_literal_survives(text in "[a-z'\\\\ $]{0,20}", before in "[a-zA-Z=(, ]{0,10} ") {
            let literal = format!("'{}canary{}'", text.replace('\'', "''"), text.replace('\'', "''"));
            let shown = without_literals(&format!("{before}{literal} z"));
            proptest::prop_assert!(!shown.contains("canary"), "{shown}");
        }

        #[test]
        fn any_text_is_accepted(text in ".{0,60}") {
            without_literals(&text);
        }
    }
}
