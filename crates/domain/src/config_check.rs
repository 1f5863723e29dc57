//! Checks of configured values: each problem names the field, what is wrong, and what to write instead.

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;

/// Maximum of a configured time in hours.
pub const MAX_HOURS: u64 = 1_000_000;
/// Maximum of a configured time in minutes.
pub const MAX_MINUTES: u64 = 100_000_000;
/// Maximum of a configured time in seconds.
pub const MAX_SECONDS: u64 = 1_000_000_000;
/// Maximum of a configured number of things, such as series or rows.
pub const MAX_COUNT: u64 = 1_000_000_000;
/// Maximum of a configured size in bytes: 1 PiB.
pub const MAX_BYTES: u64 = 1 << 50;

/// The problems of a configuration, in the order in which they were found.
#[derive(Debug, Default)]
pub struct ConfigProblems {
    problems: Vec<String>,
}

impl ConfigProblems {
    /// Returns the problems, one line each: field, reason, remedy.
    pub fn into_lines(self) -> Vec<String> {
        self.problems
    }

    /// Adds a problem of a field, such as `detect.error-ratio`.
    pub fn add(&mut self, field: &str, reason_and_remedy: impl Display) {
        self.problems.push(hide_user_info(format!("field {field}: {reason_and_remedy}")));
    }

    /// Requires a condition.
    pub fn require(&mut self, holds: bool, field: &str, reason_and_remedy: impl Display) {
        if !holds {
            self.add(field, reason_and_remedy);
        }
    }

    /// Requires a whole number within a range.
    pub fn range<T: PartialOrd + Display>(&mut self, field: &str, value: T, range: RangeInclusive<T>) {
        let (min, max) = (range.start(), range.end());
        self.require(range.contains(&value), field, format_args!("{value} is not in {min} to {max}"));
    }

    /// Requires a number of things: at least 1, at most [`MAX_COUNT`].
    pub fn count(&mut self, field: &str, value: usize) {
        self.range(field, value as u64, 1..=MAX_COUNT);
    }

    /// Requires a size in bytes of at least `min`, at most [`MAX_BYTES`].
    pub fn bytes(&mut self, field: &str, value: usize, min: u64) {
        self.range(field, value as u64, min..=MAX_BYTES);
    }

    /// Requires a share: a number from 0 to 1.
    pub fn ratio(&mut self, field: &str, value: f64) {
        let is_ratio = (0.0..=1.0).contains(&value);
        self.require(is_ratio, field, format_args!("{} is not in 0 to 1; 5 % is written as 0.05", shown(value)));
    }

    /// Requires a number within a range.
    pub fn number(&mut self, field: &str, value: f64, range: RangeInclusive<f64>) {
        let (min, max) = (range.start(), range.end());
        self.require(range.contains(&value), field, format_args!("{} is not in {min} to {max}", shown(value)));
    }

    /// Requires that a value is not below another one.
    pub fn ordered<T: PartialOrd + Debug>(&mut self, (field, value): (&str, T), (other, least): (&str, T)) {
        let is_ordered = value >= least;
        self.require(is_ordered, field, format_args!("{value:?} is less than {other}, {least:?}; raise it"));
    }

    /// Requires that names are not empty and have no spaces around them.
    pub fn names(&mut self, field: &str, names: &[String]) {
        for name in names.iter().filter(|name| name.is_empty() || name.trim() != name.as_str()) {
            self.add(field, format_args!("{name:?} is empty or has spaces around it; remove them"));
        }
    }
}

/// A number for people: `1e300` has no 300 zeros.
fn shown(value: f64) -> String {
    if value.abs() < 1e16 { value.to_string() } else { format!("{value:?}") }
}

/// Splits a text at the user and the password of a URL in it: what is before them, both, and what follows the `@`.
/// Returns `None` if there are none. The last `@` counts: a password may have any character.
pub fn split_user_info(text: &str) -> Option<(&str, &str, &str)> {
    let (before, url) = text.split_once("//")?;
    let (user_info, after) = url.rsplit_once('@')?;
    Some((before, user_info, after))
}

/// Replaces the user and the password of a URL in a text: `s3://user:password@bucket` becomes `s3://…@bucket`.
fn hide_user_info(text: String) -> String {
    split_user_info(&text).map(|(before, _, after)| format!("{before}//…@{after}")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_info_of_a_url_is_not_repeated() {
        for (text, expected) in [
            ("\"ftp://user:PW@host/x\" is no URL", "\"ftp://…@host/x\" is no URL"),
            ("\"ftp://u:P@W/x@host\" is no URL", "\"ftp://…@host\" is no URL"),
            ("write s3://BUCKET/FOLDER", "write s3://BUCKET/FOLDER"),
            ("no URL", "no URL"),
        ] {
            let mut problems = ConfigProblems::default();
            problems.add("lake.uri", text);
            assert_eq!(problems.into_lines(), [format!("field lake.uri: {expected}")]);
        }
    }

    #[test]
    fn each_problem_names_its_field() {
        let mut problems = ConfigProblems::default();
        for value in [0.0, 0.05, 1.0] {
            problems.ratio("a.ratio", value);
        }
        problems.range("a.seconds", 1, 1..=MAX_SECONDS);
        problems.ordered(("a.high", 3.0), ("a.low", 3.0));
        problems.names("a.names", &["service.name".to_owned()]);
        assert!(problems.problems.is_empty(), "{problems:?}");
        for value in [5.0, -0.1, f64::NAN, f64::INFINITY] {
            problems.ratio("a.ratio", value);
            problems.range("a.seconds", 0, 1..=MAX_SECONDS);
            problems.ordered(("a.high", f64::NAN), ("a.low", 3.0));
            problems.number("a.floor", 1e300, 0.0..=10.0);
            problems.names("a.names", &[" x".to_owned(), String::new()]);
            problems.count("a.count", 0);
            problems.bytes("a.bytes", 1023, 1024);
        }
        let lines = problems.into_lines();
        assert_eq!(lines.len(), 4 * 8, "{lines:#?}");
        assert_eq!(lines[0], "field a.ratio: 5 is not in 0 to 1; 5 % is written as 0.05");
        assert!(lines.contains(&"field a.floor: 1e300 is not in 0 to 10".to_owned()), "{lines:#?}");
    }
}
