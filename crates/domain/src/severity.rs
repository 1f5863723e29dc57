//! How bad: the four words of decision D16.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Severity, from mild to worst, so that `max` is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warning,
    /// Needs a person soon.
    High,
    /// Needs a person now.
    Critical,
}

impl Severity {
    /// Seed 002's bands on the absolute z-score: above 4 critical, above 3 high, above 2.5 warning.
    pub fn of_z(z: f64, thresholds: (f64, f64, f64)) -> Option<Self> {
        let (warning, high, critical) = thresholds;
        let z = z.abs();
        if z > critical {
            Some(Self::Critical)
        } else if z > high {
            Some(Self::High)
        } else if z > warning {
            Some(Self::Warning)
        } else {
            None
        }
    }

    /// The severity of a log line by its level, in any of the words that loggers use.
    pub fn of_level(level: &str) -> Self {
        match level.to_ascii_uppercase().as_str() {
            "FATAL" | "CRITICAL" | "PANIC" | "EMERGENCY" | "ALERT" => Self::Critical,
            "ERROR" | "ERR" => Self::High,
            "WARN" | "WARNING" => Self::Warning,
            _ => Self::Info,
        }
    }

    /// The word, as it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
