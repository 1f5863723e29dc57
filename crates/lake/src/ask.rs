//! Questions with a name: seed 004's tools, log search and traces.
//!
//! What varies goes into a plan as a value and never into text.

use deltalake_core::datafusion::common::ScalarValue;
use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::execution::context::SessionContext;
use deltalake_core::datafusion::functions_nested::expr_fn::{array_element, map_extract};
use deltalake_core::datafusion::logical_expr::Expr;
use deltalake_core::datafusion::prelude::{DataFrame, col, contains, lit};
use wardroom_domain::{Severity, TenantId, Timestamp};

use crate::rows::micros;
use crate::sql::{Form, Queries, QueryError};

/// A question that has a name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// What it answers, and the text it stands for.
    pub text: &'static str,
}

/// Every question that has a name.
pub const NAMED: [Named; 4] = [
    Named { name: "detect_anomalies", text: include_str!("ask/detect_anomalies.sql") },
    Named { name: "correlate_error_logs", text: include_str!("ask/correlate_error_logs.sql") },
    Named { name: "check_recent_deployments", text: include_str!("ask/check_recent_deployments.sql") },
    Named { name: "trace", text: include_str!("ask/trace.sql") },
];

/// What a named question is about.
#[derive(Clone, Debug)]
pub struct About {
    /// From this moment on.
    pub start: Timestamp,
    /// Before this moment.
    pub end: Timestamp,
    /// One service only.
    pub service: Option<String>,
    /// One trace, for `trace`.
    pub trace: Option<String>,
    /// Share of failed requests above which a service is shown.
    pub error_rate: f64,
    /// Milliseconds above which a service's 99th percentile is shown.
    pub p99_ms: f64,
    /// Rows at most.
    pub limit: u32,
}

/// Which log lines are wanted: `service=billing level>=error region!=eu "pool exhausted" timeout`.
///
/// Every condition has to hold. A word, or words in double quotes, stand somewhere in the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// The message holds this.
    Words(String),
    /// At least this bad.
    AtLeast(Severity),
    /// A field or label is this, or is not.
    Is { name: String, value: String, not: bool },
}

/// Levels from mild to worst.
const LEVELS: [Severity; 4] = [Severity::Info, Severity::Warning, Severity::High, Severity::Critical];

impl LogFilter {
    /// Reads it.
    ///
    /// # Errors
    /// A quote that does not end, or a level that there is not; the text says which.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut conditions = Vec::new();
        for (word, quoted) in words(text)? {
            let condition = if quoted {
                Condition::Words(word)
            } else if let Some((name, level)) = word.split_once(">=") {
                if !["level", "severity"].contains(&name) {
                    return Err(format!("{word:?}: only level can be compared by >="));
                }
                Condition::AtLeast(level_of(level)?)
            } else if let Some((name, value)) = word.split_once("!=") {
                is(name, value, true)?
            } else if let Some((name, value)) = word.split_once('=') {
                is(name, value, false)?
            } else {
                Condition::Words(word)
            };
            conditions.push(condition);
        }
        Ok(Self(conditions))
    }

    fn expressions(&self) -> Vec<Expr> {
        let each = |condition: &Condition| match condition {
            Condition::Words(words) => contains(col("message"), lit(words.as_str())),
            Condition::AtLeast(least) => {
                let wanted = LEVELS.into_iter().filter(|level| level >= least);
                col("severity").in_list(wanted.map(|level| lit(level.as_str())).collect(), false)
            }
            Condition::Is { name, value, not } => {
                let field = match name.as_str() {
                    "service" | "severity" | "template_id" => col(name.as_str()),
                    _ => array_element(map_extract(col("labels"), lit(name.as_str())), lit(1_i64)),
                };
                let same = field.clone().eq(lit(value.as_str()));
                if *not { field.is_null().or(!same) } else { same }
            }
        };
        self.0.iter().map(each).collect()
    }
}

fn is(name: &str, value: &str, not: bool) -> Result<Condition, String> {
    let name = match name {
        "" => return Err(format!("={value}: a name is missing before it")),
        "level" => "severity",
        "template" => "template_id",
        other => other,
    };
    let value = if name == "severity" { level_of(value)?.as_str().to_owned() } else { value.to_owned() };
    Ok(Condition::Is { name: name.to_owned(), value, not })
}

/// A level in the words of loggers, or in ours.
fn level_of(word: &str) -> Result<Severity, String> {
    let own = LEVELS.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(word));
    let known = ["trace", "debug", "info", "notice", "warn", "warning", "err", "error", "fatal", "critical", "panic"];
    let other = known.iter().any(|known| known.eq_ignore_ascii_case(word)).then(|| Severity::of_level(word));
    own.or(other).ok_or_else(|| format!("{word:?} is no level; there are info, warning, error and critical"))
}

/// Words, and whether each stood in quotes; a value may stand in quotes, too: `region="eu west"`.
fn words(text: &str) -> Result<Vec<(String, bool)>, String> {
    let (mut found, mut word, mut quoted, mut inside) = (Vec::new(), String::new(), false, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted |= word.is_empty();
                inside = !inside;
            }
            '\\' if inside => word.extend(letters.next()),
            letter if letter.is_whitespace() && !inside => {
                if !word.is_empty() {
                    found.push((std::mem::take(&mut word), quoted));
                }
                quoted = false;
            }
            letter => word.push(letter),
        }
    }
    if inside {
        return Err(format!("the quote before {word:?} does not end"));
    }
    if !word.is_empty() {
        found.push((word, quoted));
    }
    Ok(found)
}

impl Queries {
    /// Answers a question that has a name.
    ///
    /// # Errors
    /// There is none of that name, or see [`QueryError`].
    pub async fn named(&self, tenant: &TenantId, name: &str, about: About, form: Form) -> Result<Vec<u8>, QueryError> {
        let Some(named) = NAMED.iter().find(|named| named.name == name) else {
            let names: Vec<_> = NAMED.iter().map(|named| named.name).collect();
            return Err(QueryError::Invalid(format!("no question is called {name:?}; there are {}", names.join(", "))));
        };
        let text = |text: Option<String>| ScalarValue::Utf8(text);
        let moment = |at: Timestamp| ScalarValue::TimestampMicrosecond(Some(micros(at)), Some("UTC".into()));
        let values = vec![
            ("start", moment(about.start)),
            ("end", moment(about.end)),
            ("service", text(about.service)),
            ("trace", text(about.trace)),
            ("error_rate", ScalarValue::Float64(Some(about.error_rate))),
            ("p99_ms", ScalarValue::Float64(Some(about.p99_ms))),
            ("limit", ScalarValue::Int64(Some(about.limit.into()))),
        ];
        let values: Vec<_> = values.into_iter().filter(|(name, _)| named.text.contains(&format!("${name}"))).collect();
        let plan = async move |session: SessionContext| -> Result<DataFrame, DataFusionError> {
            session.sql(named.text).await?.with_param_values(values)
        };
        self.answer(tenant, plan, form).await
    }

    /// The log lines of a stretch of time that meet a filter, newest first.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn logs(
        &self,
        tenant: &TenantId,
        filter: LogFilter,
        (start, end): (Timestamp, Timestamp),
        limit: u32,
        form: Form,
    ) -> Result<Vec<u8>, QueryError> {
        let moment = |at: Timestamp| lit(ScalarValue::TimestampMicrosecond(Some(micros(at)), Some("UTC".into())));
        let plan = async move |session: SessionContext| -> Result<DataFrame, DataFusionError> {
            let mut lines = session.table("logs").await?;
            lines = lines.filter(col("ts").gt_eq(moment(start)).and(col("ts").lt(moment(end))))?;
            for condition in filter.expressions() {
                lines = lines.filter(condition)?;
            }
            let newest = [col("ts").sort(false, false), col("nanos").sort(false, false)];
            let newest = newest.into_iter().chain([col("offset").sort(false, false), col("seq").sort(false, false)]);
            let shown = ["ts", "service", "severity", "message", "template_id", "parameters", "labels"];
            lines.sort(newest.collect())?.limit(0, Some(limit as usize))?.select_columns(&shown)
        };
        self.answer(tenant, plan, form).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_are_read() {
        let is = |name: &str, value: &str, not| Condition::Is { name: name.into(), value: value.into(), not };
        for (text, expected) in [
            ("", vec![]),
            ("service=billing", vec![is("service", "billing", false)]),
            ("level>=error", vec![Condition::AtLeast(Severity::High)]),
            ("level=WARN", vec![is("severity", "warning", false)]),
            ("region!=\"eu west\"", vec![is("region", "eu west", true)]),
            ("\"a=b c\" d", vec![Condition::Words("a=b c".into()), Condition::Words("d".into())]),
            (r#""say \"no\"""#, vec![Condition::Words("say \"no\"".into())]),
            ("template=67b32256d4", vec![is("template_id", "67b32256d4", false)]),
        ] {
            assert_eq!(LogFilter::parse(text), Ok(LogFilter(expected)), "{text}");
        }
        for text in ["\"open", "level>=loud", "bytes>=7", "=x", "level=x"] {
            assert!(LogFilter::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// Any text is a filter or a clear no.
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,80}") {
            if let Ok(filter) = LogFilter::parse(&text) {
                prop_assert_eq!(filter.expressions().len(), filter.0.len());
            }
        }
    }
}
