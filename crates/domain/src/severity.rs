//! Severity (ADR 016).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The levels of OpenTelemetry that have the variants 2 to 4.
const NUMBERED_LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];

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

    /// Returns the severity of a log level in the spelling of any common logger; information if the word is unknown.
    pub fn from_level(level: &str) -> Self {
        Self::from_known_level(level).unwrap_or(Self::Info)
    }

    /// Returns the severity of a log level; `None` if the word is unknown.
    ///
    /// The words are those of OpenTelemetry's logs data model, Appendix B (syslog, Windows event log, Log4j, Zap,
    /// `java.util.logging`, .NET), its short names such as `ERROR2`, and common abbreviations. A word means what its
    /// severity number would. "Critical" is ERROR2 in syslog and FATAL in .NET and Python; the worse is taken.
    pub fn from_known_level(level: &str) -> Option<Self> {
        let word = level.trim().to_ascii_uppercase();
        let word = word.strip_prefix("LOGLEVEL.").or_else(|| word.strip_prefix("SEVERITY_NUMBER_")).unwrap_or(&word);
        // The short names of severity numbers: TRACE2, ERROR4.
        let base = word.strip_suffix(['2', '3', '4']).filter(|base| NUMBERED_LEVELS.contains(base)).unwrap_or(word);
        Some(match base {
            "FATAL" | "CRITICAL" | "CRIT" | "EMERGENCY" | "EMERG" => Self::Critical,
            "ERROR" | "ERR" | "SEVERE" | "DPANIC" | "PANIC" | "ALERT" => Self::High,
            "WARN" | "WARNING" => Self::Warning,
            "INFO" | "INFORMATION" | "INFORMATIONAL" | "NOTICE" | "CONFIG" | "DEBUG" | "VERBOSE" | "TRACE" | "FINE"
            | "FINER" | "FINEST" => Self::Info,
            _ => return None,
        })
    }

    /// Returns the severity of an OpenTelemetry severity number; `None` for 0, which means unspecified.
    pub const fn from_severity_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => return None,
            1..=12 => Self::Info,
            13..=16 => Self::Warning,
            17..=20 => Self::High,
            _ => Self::Critical,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of Appendix B: severity number, and its words.
    const APPENDIX_B: [(u64, &[&str]); 11] = [
        (1, &["TRACE", "FINEST", "LogLevel.Trace"]),
        (5, &["Debug", "Verbose", "DEBUG", "FINER", "LogLevel.Debug"]),
        (6, &["FINE"]),
        (7, &["CONFIG"]),
        (9, &["Informational", "Information", "INFO", "Info", "LogLevel.Information"]),
        (10, &["Notice"]),
        (13, &["Warning", "WARN", "Warn", "WARNING", "LogLevel.Warning"]),
        (17, &["Error", "ERROR", "SEVERE", "LogLevel.Error"]),
        (18, &["Dpanic"]),
        (19, &["Alert", "Panic"]),
        (21, &["Emergency", "FATAL", "Fatal", "LogLevel.Critical"]),
    ];

    #[test]
    fn words_of_appendix_b_have_the_severity_of_their_number() {
        for (number, words) in APPENDIX_B {
            for word in words {
                for spelling in [(*word).to_owned(), word.to_lowercase(), word.to_uppercase(), format!(" {word} ")] {
                    let expected = Severity::from_severity_number(number);
                    assert_eq!(Severity::from_known_level(&spelling), expected, "{spelling}");
                }
            }
        }
        let names =
            NUMBERED_LEVELS.iter().flat_map(|level| ["", "2", "3", "4"].map(|variant| format!("{level}{variant}")));
        for (number, name) in (1..).zip(names) {
            for spelling in [name.clone(), format!("SEVERITY_NUMBER_{name}")] {
                assert_eq!(Severity::from_known_level(&spelling), Severity::from_severity_number(number), "{spelling}");
            }
        }
    }

    #[test]
    fn other_words_are_known_or_information() {
        assert_eq!(Severity::from_known_level("crit"), Some(Severity::Critical));
        assert_eq!(Severity::from_known_level("emerg"), Some(Severity::Critical));
        assert_eq!(Severity::from_known_level("err"), Some(Severity::High));
        for unknown in ["", "ERROR1", "ERROR5", "WARNING2", "loud"] {
            assert_eq!(Severity::from_known_level(unknown), None, "{unknown}");
            assert_eq!(Severity::from_level(unknown), Severity::Info);
        }
    }
}
