//! Questions with a name: seed 004's tools, log search and traces.
//!
//! What varies goes into a plan as a value and never into text.

use deltalake_core::datafusion::common::ScalarValue;
use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::execution::context::SessionContext;
use deltalake_core::datafusion::functions_nested::expr_fn::{array_element, map_extract};
use deltalake_core::datafusion::logical_expr::{Expr, SortExpr};
use deltalake_core::datafusion::prelude::{DataFrame, col, contains, lit};
use wardroom_domain::{Severity, TenantId, Timestamp};

use crate::rows::micros;
use crate::sql::{Form, Queries, QueryError};
use crate::table::LiveFile;

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

    /// The log lines of a stretch of time that meet a filter, newest first. The newest part of the stretch is looked at first: if it
    /// has as many as are asked for, nothing else is read.
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
        let mut files = self.lake.log_files().await?;
        files.retain(|file| file.tenant == *tenant);
        let recent = recent(files, (start.millis(), end.millis())).map(Timestamp::from_millis);
        self.logs_by(tenant, filter, (start, recent, end), limit as usize, form).await
    }

    /// The same, with the moment at which the part begins that is looked at first.
    async fn logs_by(
        &self,
        tenant: &TenantId,
        filter: LogFilter,
        (start, recent, end): (Timestamp, Option<Timestamp>, Timestamp),
        limit: usize,
        form: Form,
    ) -> Result<Vec<u8>, QueryError> {
        let plan = async move |session: SessionContext| -> Result<DataFrame, DataFusionError> {
            let Some(recent) = recent else {
                return lines(&session, &filter, (start, end), limit).await?.select_columns(&SHOWN);
            };
            let mut found = lines(&session, &filter, (recent, end), limit).await?.cache().await?;
            let more = limit.saturating_sub(found.clone().count().await?);
            if more > 0 {
                found = found.union(lines(&session, &filter, (start, recent), more).await?)?;
            }
            found.sort(newest())?.limit(0, Some(limit))?.select_columns(&SHOWN)
        };
        self.answer(tenant, plan, form).await
    }
}

/// Lines from which on it pays to look at the newest first.
const MANY: u64 = 500_000;

/// Where the newest eighth of the lines of a stretch (ms) begins, as far as their files tell; nothing if they are few, or do not
/// follow each other in time.
fn recent(mut files: Vec<LiveFile>, (start_ms, end_ms): (i64, i64)) -> Option<i64> {
    files.retain(|file| file.span_ms.0 < end_ms && file.span_ms.1 >= start_ms);
    let all: u64 = files.iter().map(|file| file.rows).sum();
    files.sort_unstable_by_key(|file| std::cmp::Reverse(file.span_ms.1));
    let (mut lines, mut first_ms) = (0, end_ms);
    for file in files {
        if lines >= all / 8 {
            break;
        }
        first_ms = file.span_ms.0.min(first_ms);
        lines += file.rows;
    }
    (all >= MANY && first_ms > start_ms).then_some(first_ms)
}

/// What is shown of a line.
const SHOWN: [&str; 7] = ["ts", "service", "severity", "message", "template_id", "parameters", "labels"];

/// By what lines are sorted.
const ORDER: [&str; 4] = ["ts", "nanos", "offset", "seq"];

/// The newest line first.
fn newest() -> Vec<SortExpr> {
    ORDER.map(|column| col(column).sort(false, false)).to_vec()
}

/// The newest lines of a stretch that meet a filter.
async fn lines(
    session: &SessionContext,
    filter: &LogFilter,
    (start, end): (Timestamp, Timestamp),
    limit: usize,
) -> Result<DataFrame, DataFusionError> {
    let moment = |at: Timestamp| lit(ScalarValue::TimestampMicrosecond(Some(micros(at)), Some("UTC".into())));
    let mut lines = session.table("logs").await?;
    lines = lines.filter(col("ts").gt_eq(moment(start)).and(col("ts").lt(moment(end))))?;
    for condition in filter.expressions() {
        lines = lines.filter(condition)?;
    }
    // What is put aside for later is read whole: no more than what is shown and sorted by.
    let columns: Vec<&str> =
        SHOWN.into_iter().chain(ORDER.into_iter().filter(|column| !SHOWN.contains(column))).collect();
    lines.select_columns(&columns)?.sort(newest())?.limit(0, Some(limit))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use wardroom_domain::{Labels, LogEntry};

    use super::*;
    use crate::{Config, Events, Lake, Line, Origin, QueryConfig};

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

    fn file(rows: u64, start_ms: i64, end_ms: i64) -> LiveFile {
        LiveFile {
            path: String::new(),
            tenant: TenantId::main(),
            day: 0,
            bytes: 1,
            rows,
            series: (0, 0),
            span_ms: (start_ms, end_ms),
            written_ms: 0,
            offset: 1,
        }
    }

    #[test]
    fn the_newest_eighth_of_many_lines_is_looked_at_first() {
        let day: Vec<_> = (0..16).map(|hour| file(100_000, hour * 100, hour * 100 + 99)).collect();
        assert_eq!(recent(day.clone(), (0, 1600)), Some(1400));
        assert_eq!(recent(day.clone(), (0, 1000)), Some(800), "files beyond the end do not count");
        assert_eq!(recent(day[..4].to_vec(), (0, 1600)), None, "few");
        assert_eq!(recent(vec![file(1 << 20, 0, 1600), file(1 << 20, 10, 1590)], (0, 1600)), None, "all at one time");
        assert_eq!(recent(Vec::new(), (0, 1600)), None);
    }

    /// Wherever the part begins that is looked at first, the answer is the same.
    #[tokio::test]
    async fn the_newest_lines_are_found_in_two_steps_as_in_one() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Arc::new(Lake::open(&Config::default(), folder.path()).await.unwrap());
        let (main, second) = (TenantId::main(), |at: i64| Timestamp::from_millis(1_795_255_038_000 + at * 1000));
        for batch in 0..3 {
            let mut events = Events::new(lake.events_reached().await.unwrap());
            for at in batch * 20..batch * 20 + 20 {
                let message = format!("{} {at}", if at % 7 == 0 { "seldom" } else { "often" });
                let log = LogEntry {
                    at: second(at / 2),
                    severity: Severity::Info,
                    message,
                    service: "web".into(),
                    labels: Labels::default(),
                };
                for tenant in ["main", "other"] {
                    let from = Origin::new(TenantId::new(tenant).unwrap(), at as u64, log.at, None);
                    events.log(&from, 0, &Line { log: &log, service: "web", template: "t", parameters: &[] }).unwrap();
                }
            }
            // The last of them stand in no file yet.
            if batch < 2 {
                lake.land(&events.finish(batch as u64 * 20 + 20, second(60)).unwrap()).await.unwrap();
            } else {
                lake.show(events.pending(60).unwrap()).await;
            }
        }
        let queries = Queries::new(lake, QueryConfig::default()).unwrap();
        for (filter, limit) in [("", 1), ("", 7), ("", 1000), ("seldom", 2), ("seldom", 8), ("nowhere", 5)] {
            let filter = LogFilter::parse(filter).unwrap();
            let ask = async |recent: Option<i64>| {
                let span = (second(0), recent.map(second), second(30));
                let found = queries.logs_by(&main, filter.clone(), span, limit, Form::Json).await.unwrap();
                serde_json::from_slice::<Vec<serde_json::Value>>(&found).unwrap()
            };
            let expected = ask(None).await;
            for recent in [0, 1, 9, 15, 25, 29, 30] {
                assert_eq!(ask(Some(recent)).await, expected, "{filter:?} {limit} from {recent}");
            }
            assert!(expected.len() <= limit && expected.is_sorted_by(|a, b| a["ts"].as_str() >= b["ts"].as_str()));
            assert_eq!(expected.is_empty(), filter == LogFilter::parse("nowhere").unwrap());
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
