//! Checks of configured values: each problem names the field, what is wrong, and what to write instead.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// Maximum of a configured time in hours.
pub const MAX_HOURS: u64 = 1_000_000;
/// Maximum of a configured time in minutes.
pub const MAX_MINUTES: u64 = 100_000_000;
/// Maximum of a configured time in seconds.
pub const MAX_SECONDS: u64 = 1_000_000_000;

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
        self.problems.push(format!("field {field}: {reason_and_remedy}"));
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

    /// Requires a whole number that is at least 1.
    pub fn positive(&mut self, field: &str, value: usize) {
        self.require(value > 0, field, "it must be at least 1");
    }

    /// Requires a share: a number from 0 to 1.
    pub fn ratio(&mut self, field: &str, value: f64) {
        let is_ratio = (0.0..=1.0).contains(&value);
        self.require(is_ratio, field, format_args!("{value} is not in 0 to 1; 5 % is written as 0.05"));
    }

    /// Requires a number that is finite and not negative.
    pub fn not_negative(&mut self, field: &str, value: f64) {
        let is_valid = value.is_finite() && value >= 0.0;
        self.require(is_valid, field, format_args!("{value} is not a finite number of at least 0"));
    }

    /// Requires that a value is not below another one.
    pub fn ordered<T: PartialOrd + Display>(&mut self, (field, value): (&str, T), (other, least): (&str, T)) {
        let is_ordered = value >= least;
        self.require(is_ordered, field, format_args!("{value} is less than {other}, {least}; raise it"));
    }

    /// Requires that names are not empty and have no spaces around them.
    pub fn names(&mut self, field: &str, names: &[String]) {
        for name in names.iter().filter(|name| name.is_empty() || name.trim() != name.as_str()) {
            self.add(field, format_args!("{name:?} is empty or has spaces around it; remove them"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            problems.not_negative("a.floor", -1.0);
            problems.names("a.names", &[" x".to_owned(), String::new()]);
            problems.positive("a.count", 0);
        }
        let lines = problems.into_lines();
        assert_eq!(lines.len(), 4 * 7, "{lines:#?}");
        assert_eq!(lines[0], "field a.ratio: 5 is not in 0 to 1; 5 % is written as 0.05");
    }
}
