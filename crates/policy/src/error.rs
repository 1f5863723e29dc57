//! Problems of policy files.

use std::fmt;

/// One problem of a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 if the problem is not at a line.
    pub line: usize,
    /// Id of the rule; empty if the text could not be divided into rules.
    pub rule: String,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.rule.is_empty() {
            write!(f, ", rule {}", self.rule)?;
        }
        write!(f, ": {}", self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// A policy that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {file}: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
pub struct PolicyError {
    /// The file, or `built-in`.
    pub file: String,
    /// The problems, in the order of the file.
    pub problems: Vec<Problem>,
}
