//! Translation of RE2 patterns to the syntax of Rust's `regex`.
//!
//! Prometheus' matchers are RE2 (Go's `regexp/syntax` with its Perl flags). The two syntaxes differ:
//!
//! | RE2 | here |
//! |---|---|
//! | `{gid}`, `{`, `{,3}`: a brace that is no repetition | a literal brace |
//! | `\Q…\E` | the quoted text |
//! | `\d \w \s \b` match ASCII only; `\s` does not match `\v` | the ASCII classes |
//! | `[a&&b]`, `[a[b]`, `[a--b]`: no set operations | literal characters |
//! | `\<`, `\_`, `\ `: escaped punctuation | the character |
//! | `\012`, `\x41` | the character |
//! | `a**`, `a{1001}`, `(?x)`, `\u0041`, `\Z`, `(?=a)`, `a)(b` | refused |
//!
//! Only whether a whole text matches is asked, so captures become groups and laziness is dropped.

use std::collections::BTreeSet;

/// Maximum count of a repetition, and of nested repetitions multiplied, as in RE2.
const MAX_REPEAT: u32 = 1000;

/// Every Unicode character.
const ANY_CHARACTER: &str = r"[\x{0}-\x{10FFFF}]";
/// No character.
const NO_CHARACTER: &str = r"[^\x{0}-\x{10FFFF}]";

/// POSIX classes of RE2; Rust has the same.
const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Translates an RE2 pattern into a pattern of Rust's `regex` that matches the same texts as a whole.
///
/// # Errors
/// Returns what is wrong and at which byte if the pattern is not RE2 syntax.
pub(crate) fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        pattern,
        position: 0,
        out: String::with_capacity(pattern.len() + 16),
        flags: String::new(),
        level: Level::default(),
        outer: Vec::new(),
        names: BTreeSet::new(),
    };
    while translator.position < pattern.len() {
        let start = translator.position;
        translator.token().map_err(|error| format!("{error} at byte {start}"))?;
    }
    if !translator.outer.is_empty() {
        return Err("a ( is not closed".to_owned());
    }
    Ok(translator.out)
}

/// The state of one nesting level.
#[derive(Default)]
struct Level {
    /// Where the last element starts in the output; `None` at the start of an alternative.
    element: Option<usize>,
    /// Whether the output ends with the repetition of that element.
    repeated: bool,
    /// Whether the pattern has a repetition immediately before the next token.
    after_repetition: bool,
    /// Product of the nested repetition counts of the last element.
    element_repeats: u32,
    /// Maximum of these products in this level.
    max_repeats: u32,
    /// Where the level starts in the output.
    start: usize,
}

struct Translator<'p> {
    pattern: &'p str,
    /// Byte of the next character.
    position: usize,
    out: String,
    /// Flags that apply from the next element on. RE2 lets a repetition follow them, Rust does not.
    flags: String,
    level: Level,
    outer: Vec<Level>,
    /// Names of the groups.
    names: BTreeSet<&'p str>,
}

/// One character, or a class written for the inside of brackets.
enum ClassItem {
    Char(char),
    Class(String),
}

impl<'p> Translator<'p> {
    fn rest(&self) -> &'p str {
        self.pattern.get(self.position..).unwrap_or_default()
    }

    /// Consumes the next character.
    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.position += next.len_utf8();
        Some(next)
    }

    /// Consumes a prefix, if the rest has it.
    fn eat(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        self.position += if found { prefix.len() } else { 0 };
        found
    }

    /// Translates the next token.
    fn token(&mut self) -> Result<(), String> {
        let after_repetition = std::mem::take(&mut self.level.after_repetition);
        let Some(c) = self.next() else { return Ok(()) };
        match c {
            '(' => self.open_group()?,
            ')' => self.close_group()?,
            '|' => {
                self.out.push_str(&std::mem::take(&mut self.flags));
                self.out.push('|');
                self.level.element = None;
            }
            '[' => {
                let class = self.class()?;
                self.push_element(&class);
            }
            '.' | '^' | '$' => self.push_element(c.encode_utf8(&mut [0; 4])),
            '*' => self.repeat(0, None, after_repetition)?,
            '+' => self.repeat(1, None, after_repetition)?,
            '?' => self.repeat(0, Some(1), after_repetition)?,
            '{' => match self.repetition_counts()? {
                Some((min, max)) => self.repeat(min, max, after_repetition)?,
                None => self.push_char('{'),
            },
            '\\' => self.escape()?,
            other => self.push_char(other),
        }
        Ok(())
    }

    /// Appends an element, after the flags that apply to it.
    fn push_element(&mut self, element: &str) {
        self.out.push_str(&std::mem::take(&mut self.flags));
        self.level.element = Some(self.out.len());
        (self.level.repeated, self.level.element_repeats) = (false, 1);
        self.out.push_str(element);
    }

    fn push_char(&mut self, c: char) {
        let escaped = regex::escape(c.encode_utf8(&mut [0; 4]));
        self.push_element(&escaped);
    }

    /// Repeats the last element; `max` is `None` for no limit.
    fn repeat(&mut self, min: u32, max: Option<u32>, after_repetition: bool) -> Result<(), String> {
        self.eat("?");
        if after_repetition {
            return Err("a repetition follows a repetition".to_owned());
        }
        let element = self.level.element.ok_or("a repetition has nothing to repeat")?;
        let count = max.unwrap_or(min);
        if count > 0 {
            let product = self.level.element_repeats.saturating_mul(count);
            if count >= 2 && product > MAX_REPEAT {
                return Err(format!("nested repetitions multiply to more than {MAX_REPEAT}"));
            }
            self.level.element_repeats = product;
        }
        self.level.max_repeats = self.level.max_repeats.max(self.level.element_repeats);
        if self.level.repeated {
            self.out.insert_str(element, "(?:");
            self.out.push(')');
        }
        match max {
            None if min == 0 => self.out.push('*'),
            None if min == 1 => self.out.push('+'),
            None => self.out.push_str(&format!("{{{min},}}")),
            Some(max) => self.out.push_str(&format!("{{{min},{max}}}")),
        }
        (self.level.repeated, self.level.after_repetition) = (true, true);
        Ok(())
    }

    /// Reads `n}`, `n,}` or `n,m}` after a brace; `None`, with nothing consumed, if the brace is literal.
    fn repetition_counts(&mut self) -> Result<Option<(u32, Option<u32>)>, String> {
        let Some((inside, _)) = self.rest().split_once('}') else { return Ok(None) };
        let (min, max) = inside
            .split_once(',')
            .map_or((inside, Some(inside)), |(min, max)| (min, Some(max).filter(|max| !max.is_empty())));
        let is_count = |text: &str| {
            let leading_zero = text.len() > 1 && text.starts_with('0');
            !text.is_empty() && !leading_zero && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_count(min) || !max.is_none_or(is_count) {
            return Ok(None);
        }
        let parse = |text: &str| text.parse::<u32>().ok().filter(|count| *count <= MAX_REPEAT);
        let (min, max) = (parse(min), max.map(parse));
        let (Some(min), Some(max)) = (min, max.map_or(Some(None), |max| max.map(Some))) else {
            return Err(format!("a repetition count is more than {MAX_REPEAT}"));
        };
        if max.is_some_and(|max| max < min) {
            return Err("a repetition has a maximum below its minimum".to_owned());
        }
        self.position += inside.len() + 1;
        Ok(Some((min, max)))
    }

    fn open_group(&mut self) -> Result<(), String> {
        if !self.eat("?") {
            self.enter_group("(?:");
            return Ok(());
        }
        if self.eat("P<") || self.eat("<") {
            let (name, _) = self.rest().split_once('>').ok_or("a group name is not closed")?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(format!("{name:?} is not a group name (RE2 has no look-behind)"));
            }
            if !self.names.insert(name) {
                return Err(format!("the group name {name:?} is used twice"));
            }
            self.position += name.len() + 1;
            self.enter_group("(?:");
            return Ok(());
        }
        let (mut states, mut enable, mut any) = ([None; 3], true, false);
        loop {
            match self.next() {
                Some('U') => any = true,
                Some(flag @ ('i' | 'm' | 's')) => {
                    let index = "ims".find(flag).unwrap_or_default();
                    (states[index], any) = (Some(enable), true);
                }
                Some('-') if enable => (enable, any) = (false, false),
                Some(end @ (':' | ')')) if enable || any => {
                    let flags = flag_text(states);
                    if end == ':' {
                        self.enter_group(&format!("(?{flags}:"));
                    } else if !flags.is_empty() {
                        self.flags.push_str(&format!("(?{flags})"));
                    }
                    return Ok(());
                }
                _ => return Err("RE2 has no such group; it has (?:…), (?P<name>…) and the flags i, m, s, U".to_owned()),
            }
        }
    }

    fn enter_group(&mut self, opening: &str) {
        self.out.push_str(&std::mem::take(&mut self.flags));
        let start = self.out.len();
        self.out.push_str(opening);
        self.outer.push(std::mem::replace(&mut self.level, Level { start, ..Level::default() }));
    }

    fn close_group(&mut self) -> Result<(), String> {
        let outer = self.outer.pop().ok_or("a ) has no (")?;
        // Flags end with their group.
        self.flags.clear();
        self.out.push(')');
        let inner = std::mem::replace(&mut self.level, outer);
        self.level.element = Some(inner.start);
        (self.level.repeated, self.level.element_repeats) = (false, inner.max_repeats.max(1));
        self.level.max_repeats = self.level.max_repeats.max(inner.max_repeats);
        Ok(())
    }

    /// Translates what follows a backslash outside brackets.
    fn escape(&mut self) -> Result<(), String> {
        if self.eat("Q") {
            let (quoted, used) = match self.rest().split_once("\\E") {
                Some((quoted, _)) => (quoted, quoted.len() + 2),
                None => (self.rest(), self.rest().len()),
            };
            self.position += used;
            quoted.chars().for_each(|c| self.push_char(c));
            return Ok(());
        }
        for (name, element) in [("A", r"\A"), ("z", r"\z"), ("b", r"(?-u:\b)"), ("B", r"(?-u:\B)")] {
            if self.eat(name) {
                self.push_element(element);
                return Ok(());
            }
        }
        match self.class_escape()? {
            ClassItem::Char(c) => self.push_char(c),
            ClassItem::Class(class) => self.push_element(&class),
        }
        Ok(())
    }

    /// Reads what follows a backslash, also within brackets: a class or a character.
    fn class_escape(&mut self) -> Result<ClassItem, String> {
        let invalid = |c: char| format!("RE2 has no escape \\{c}");
        let c = self.next().ok_or("the pattern ends with a backslash")?;
        let class = match c {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            's' => r"[\t\n\x0C\r ]",
            'S' => r"[^\t\n\x0C\r ]",
            'p' | 'P' => return self.unicode_class(c == 'P').map(ClassItem::Class),
            _ => "",
        };
        if !class.is_empty() {
            return Ok(ClassItem::Class(class.to_owned()));
        }
        Ok(ClassItem::Char(match c {
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => self.hex_escape()?,
            '0'..='7' => {
                let digits = self.rest().bytes().take(2).take_while(|byte| (b'0'..b'8').contains(byte)).count();
                // One digit other than 0 is a back reference, which RE2 does not have.
                if c != '0' && digits == 0 {
                    return Err(invalid(c));
                }
                let code = self.pattern.get(self.position - 1..self.position + digits).unwrap_or_default();
                self.position += digits;
                u32::from_str_radix(code, 8).ok().and_then(char::from_u32).ok_or_else(|| invalid(c))?
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            c => return Err(invalid(c)),
        }))
    }

    /// Reads the digits of `\x41` or `\x{1F600}`.
    fn hex_escape(&mut self) -> Result<char, String> {
        let braced = self.eat("{");
        let digits = if braced {
            self.rest().split_once('}').map_or("", |(digits, _)| digits)
        } else {
            self.rest().get(..2).unwrap_or_default()
        };
        let code = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = code.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        self.position += digits.len() + usize::from(braced);
        code.ok_or_else(|| "\\x needs two hexadecimal digits, or {…} with the code of a character".to_owned())
    }

    /// Reads the name of a Unicode class after `\p` or `\P`.
    fn unicode_class(&mut self, negated: bool) -> Result<String, String> {
        let name = if self.eat("{") {
            let (name, _) = self.rest().split_once('}').ok_or("a Unicode class name is not closed")?;
            self.position += name.len() + 1;
            name
        } else {
            let start = self.position;
            self.next().ok_or("a Unicode class has no name")?;
            self.pattern.get(start..self.position).unwrap_or_default()
        };
        let (name, negated) = name.strip_prefix('^').map_or((name, negated), |name| (name, !negated));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_- ".contains(&byte)) {
            return Err(format!("{name:?} is not a Unicode class"));
        }
        // Text has no surrogates, and Rust has no class of them.
        if ["cs", "surrogate"].contains(&name.to_ascii_lowercase().as_str()) {
            return Ok(if negated { ANY_CHARACTER } else { NO_CHARACTER }.to_owned());
        }
        Ok(format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' }))
    }

    /// Translates a bracketed class, of which the opening bracket is consumed.
    fn class(&mut self) -> Result<String, String> {
        const UNCLOSED: &str = "a [ is not closed";
        let mut class = String::from(if self.eat("^") { "[^" } else { "[" });
        let mut first = true;
        while first || !self.rest().starts_with(']') {
            first = false;
            if let Some((name, _)) = self.rest().strip_prefix("[:").and_then(|rest| rest.split_once(":]")) {
                if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
                    return Err(format!("[:{name}:] is not a POSIX class"));
                }
                self.position += name.len() + 4;
                class.push_str(&format!("[:{name}:]"));
                continue;
            }
            let low = match self.class_item()?.ok_or(UNCLOSED)? {
                ClassItem::Class(item) => {
                    class.push_str(&item);
                    continue;
                }
                ClassItem::Char(low) => low,
            };
            let mut high = low;
            let rest = self.rest();
            if rest.starts_with('-') && !rest.starts_with("-]") {
                self.position += 1;
                high = match self.class_item()?.ok_or(UNCLOSED)? {
                    ClassItem::Char(high) => high,
                    ClassItem::Class(_) => return Err("a range ends with a class".to_owned()),
                };
            }
            if high < low {
                return Err(format!("the range {low}-{high} is empty"));
            }
            class.push_str(&format!("\\x{{{:X}}}-\\x{{{:X}}}", u32::from(low), u32::from(high)));
        }
        self.position += 1;
        class.push(']');
        Ok(class)
    }

    /// Reads one item of a bracketed class; `None` at the end of the pattern.
    fn class_item(&mut self) -> Result<Option<ClassItem>, String> {
        match self.next() {
            Some('\\') => self.class_escape().map(Some),
            other => Ok(other.map(ClassItem::Char)),
        }
    }
}

/// Formats the flags i, m and s as `i-s`; empty if none is set.
fn flag_text(states: [Option<bool>; 3]) -> String {
    let with = |state: bool| -> String {
        "ims".chars().zip(states).filter(|(_, known)| *known == Some(state)).map(|(flag, _)| flag).collect()
    };
    let (on, off) = (with(true), with(false));
    if off.is_empty() { on } else { format!("{on}-{off}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::bytes::Regex;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let translated = translate(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        Regex::new(&format!(r"\A(?s:{translated})\z")).unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn patterns_match_as_in_re2() {
        // Pattern, texts that match, texts that do not.
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("/v[1-9]/.*/{gid}/{uid}", &["/v1/shops/{gid}/{uid}"], &["/v1/shops/gid/uid"]),
            ("{", &["{"], &[""]),
            ("}", &["}"], &[""]),
            ("a{}", &["a{}"], &["a"]),
            ("a{,3}", &["a{,3}"], &["aa", ""]),
            ("a{1, 2}", &["a{1, 2}"], &["a"]),
            ("a{01}", &["a{01}"], &["a"]),
            ("a{2}", &["aa"], &["a", "a{2}"]),
            ("a{2,}?b{0,1}", &["aa", "aaab"], &["ab"]),
            ("x{a{2}", &["x{aa"], &["x{a"]),
            ("{{2}", &["{{"], &["{"]),
            (r"\{2}", &["{2}"], &["{"]),
            (r"\Q/v1/a.b\E", &["/v1/a.b"], &["/v1/aXb"]),
            (r"\Qa.b", &["a.b"], &["aXb"]),
            (r"\Qab\E+", &["ab", "abb"], &["abab"]),
            (r"a+\Q\E?", &["", "aa"], &["b"]),
            (r"\Q\\E", &[r"\"], &[]),
            (r"\d", &["7"], &["\u{663}", ""]),
            (r"\D", &["\u{663}", "\n"], &["7"]),
            (r"\w+", &["a_9"], &["é"]),
            (r"[\W]", &["é", "-"], &["a"]),
            (r"\s", &["\u{c}", " "], &["\u{b}", "\u{a0}"]),
            (r"[^\s]", &["\u{b}"], &[" "]),
            (r"é\bx", &["éx"], &[]),
            (r"a\Bé", &[], &["aé"]),
            (r"é\B", &["é"], &[]),
            ("[a&&b]+", &["a&b"], &[""]),
            ("[a[b]+", &["[ab"], &["]"]),
            ("[]a]+", &["]a"], &["b"]),
            ("[^]a]", &["b"], &["]"]),
            ("[a-c-e]+", &["b-e"], &["d"]),
            ("[a-]+", &["a-"], &["b"]),
            (r"[\]\-x]+", &["]-x"], &["y"]),
            ("[[:alpha:]_]+", &["ab_"], &["é", "1"]),
            ("[[:^digit:]]", &["a"], &["1"]),
            ("[[:]", &["[", ":"], &["a"]),
            (r"\<\_\ \-\&\~", &["<_ -&~"], &[""]),
            (r"\x41\x{42}\103\0", &["ABC\0"], &[""]),
            (r"\pL\p{Greek}\PN\p{^Nd}", &["aαab"], &["1αab"]),
            (r"\p{Cs}", &[], &["a"]),
            ("(?i)abc", &["ABC"], &["abd"]),
            ("a(?i)b|c", &["aB", "C"], &["A"]),
            ("(a(?i))b", &["ab"], &["aB"]),
            ("a(?i)*", &["", "aa"], &["AA"]),
            ("(?i-i)a", &["a"], &["A"]),
            ("(?iU:A+)b", &["aab"], &["AAB"]),
            ("(?)a", &["a"], &[]),
            ("(?-s).", &["a"], &["\n"]),
            (".", &["\n", "é"], &[""]),
            ("(?m)a$\n^b", &["a\nb"], &["ab"]),
            ("(?P<x>a)(?<y_1>b)", &["ab"], &[]),
            ("a||b", &["a", "", "b"], &["ab"]),
            ("()", &[""], &["a"]),
            ("shops|a", &["shops", "a"], &["shopsa", "xa"]),
            (r"\Aa\z", &["a"], &["b"]),
            ("(?:a{10}){10}", &[], &["a"]),
            ("#x y", &["#x y"], &["#xy"]),
        ];
        for (pattern, yes, no) in cases {
            for text in *yes {
                assert!(matches(pattern, text), "{pattern} must match {text:?}: {}", translate(pattern).unwrap());
            }
            for text in *no {
                assert!(!matches(pattern, text), "{pattern} must not match {text:?}: {}", translate(pattern).unwrap());
            }
        }
    }

    #[test]
    fn what_re2_refuses_is_refused_with_a_reason() {
        let refused = [
            "(",
            ")",
            "a)|(b",
            "[",
            "[]",
            "[a",
            "[z-a]",
            "*",
            "a|*",
            "(+)",
            "a**",
            "a*+",
            "a{2}{3}",
            "a{1001}",
            "a{2,1}",
            "(a{100}){11}",
            "(?x)a",
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?<!a)",
            "(?>a)",
            "(?P=a)",
            "(?#a)",
            "(?i-)a",
            "(?--i)",
            "(?P<a>b)(?P<a>c)",
            "(?P<>a)",
            "(?P<a.b>c)",
            r"\",
            r"\1",
            r"\8",
            r"\u0041",
            r"\Z",
            r"\E",
            r"\C",
            r"\K",
            r"\e",
            r"\x4",
            r"\x{}",
            r"\x{110000}",
            r"[\Q]",
            r"[\b]",
            r"[a-\d]",
            r"\p",
            r"\p{",
            r"\p{sc=Greek}",
            "[[:word]:]x:]",
            r"\é",
        ];
        for pattern in refused {
            assert!(!translate(pattern).expect_err(pattern).is_empty());
        }
    }

    proptest! {
        #[test]
        fn translation_never_panics_and_gives_a_valid_pattern(pattern in r"([a-z0-9]|[\[\](){}|*+?.^$\\,&~:<>#-]|\\[a-zA-Z0-9]|\[:alpha:\]|\PC){0,24}") {
            if let Ok(translated) = translate(&pattern) {
                let built = Regex::new(&format!(r"\A(?s:{translated})\z"));
                // The name of a Unicode class is checked when the pattern is built.
                prop_assert!(built.is_ok() || pattern.contains(r"\p") || pattern.contains(r"\P"), "{} became {}", pattern, translated);
            }
        }

        #[test]
        fn quoted_text_matches_itself_only(text in "[^\\\\]{0,12}", other in "[^\\\\]{0,3}") {
            let quoted = format!(r"\Q{text}\E");
            prop_assert!(matches(&quoted, &text));
            prop_assert_eq!(matches(&quoted, &other), text == other);
            let each: String = text.chars().map(|c| if c.is_ascii_punctuation() { format!(r"\{c}") } else { c.to_string() }).collect();
            prop_assert!(matches(&each, &text), "{}", each);
        }
    }
}
