//! Severity (ADR 016).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Severity in ascending order, so that `max` is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For information.
    Info,
    /// Should be checked.
    Warning,
    /// Needs attention soon.
    High,
    /// Needs attention now.
    Critical,
}

impl Severity {
    /// Returns the severity of an absolute z-score by the thresholds (warning, high, critical), by default 2.5, 3 and
    /// 4.
    pub fn from_z_score(z: f64, thresholds: (f64, f64, f64)) -> Option<Self> {
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

    /// Returns the severity of a log level in the spelling of any common logger.
    pub fn from_level(level: &str) -> Self {
        match level.to_ascii_uppercase().as_str() {
            "FATAL" | "CRITICAL" | "PANIC" | "EMERGENCY" | "ALERT" => Self::Critical,
            "ERROR" | "ERR" => Self::High,
            "WARN" | "WARNING" => Self::Warning,
            _ => Self::Info,
        }
    }

    /// Returns the JSON spelling.
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
