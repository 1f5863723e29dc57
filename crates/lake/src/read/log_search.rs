//! Searches log lines by a filter.

use deltalake_core::datafusion::common::ScalarValue;
use deltalake_core::datafusion::error::DataFusionError;
use deltalake_core::datafusion::execution::context::SessionContext;
use deltalake_core::datafusion::functions_nested::expr_fn::{array_element, map_extract};
use deltalake_core::datafusion::logical_expr::{Expr, SortExpr};
use deltalake_core::datafusion::prelude::{DataFrame, col, contains, lit};
use wardroom_domain::trace_id::{normal_span_id, normal_trace_id};
use wardroom_domain::{Severity, TenantId, Timestamp};

use crate::error::Error;
use crate::format::row_buffer::micros;
use crate::format::table_schemas::LOGS;
use crate::lake::Lake;
use crate::read::sql_engine::{OutputFormat, QueryEngine, QueryError};
use crate::table::live_file::LiveFile;

/// A filter of log lines: `service=billing level>=error region!=eu "pool exhausted" timeout`.
///
/// All conditions must hold. A word, or words in double quotes, must occur in the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// The message contains this text.
    Words(String),
    /// The severity is at least this.
    MinSeverity(Severity),
    /// A field or label equals this value, or does not.
    Equals { name: String, value: String, negated: bool },
}

/// Maximum length of a filter, in bytes.
const MAX_FILTER_BYTES: usize = 4096;
/// Maximum number of conditions in a filter; each is evaluated for each line.
const MAX_CONDITIONS: usize = 64;

/// Severities in ascending order.
const SEVERITIES: [Severity; 4] = [Severity::Info, Severity::Warning, Severity::High, Severity::Critical];

impl LogFilter {
    /// Parses a filter.
    ///
    /// # Errors
    /// Returns a message if the filter is too long, a quote is unterminated or a level is unknown.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_FILTER_BYTES {
            return Err(format!(
                "the filter has {} bytes; at most {MAX_FILTER_BYTES} are allowed: search for fewer words",
                text.len()
            ));
        }
        let words = split_words(text)?;
        if words.len() > MAX_CONDITIONS {
            return Err(format!(
                "the filter has {} conditions; at most {MAX_CONDITIONS} are allowed: put words that follow each other \
                 in quotes",
                words.len()
            ));
        }
        let mut conditions = Vec::new();
        for (word, quoted) in words {
            let condition = if quoted {
                Condition::Words(word)
            } else if let Some((name, level)) = word.split_once(">=") {
                if !["level", "severity"].contains(&name) {
                    return Err(format!("{word:?}: only level can be compared with >="));
                }
                Condition::MinSeverity(parse_severity(level)?)
            } else if let Some((name, value)) = word.split_once("!=") {
                equals(name, value, true)?
            } else if let Some((name, value)) = word.split_once('=') {
                equals(name, value, false)?
            } else {
                Condition::Words(word)
            };
            conditions.push(condition);
        }
        Ok(Self(conditions))
    }

    /// Returns the conditions in one expression, whose depth grows with the logarithm of their number: plans are
    /// traversed recursively.
    fn expression(&self) -> Option<Expr> {
        let mut conditions = self.expressions();
        while conditions.len() > 1 {
            let pairs = conditions.chunks(2).map(|pair| pair.iter().cloned().reduce(Expr::and));
            conditions = pairs.flatten().collect();
        }
        conditions.pop()
    }

    fn expressions(&self) -> Vec<Expr> {
        let expression = |condition: &Condition| match condition {
            Condition::Words(words) => contains(col("message"), lit(words.as_str())),
            Condition::MinSeverity(min) => {
                let levels = SEVERITIES.into_iter().filter(|level| level >= min);
                col("severity").in_list(levels.map(|level| lit(level.as_str())).collect(), false)
            }
            Condition::Equals { name, value, negated } => {
                let field = match name.as_str() {
                    "service" | "severity" | "template_id" => col(name.as_str()),
                    _ => array_element(map_extract(col("labels"), lit(name.as_str())), lit(1_i64)),
                };
                // The id is stored as its sender spelled it, or as 16 or 32 digits.
                let normal = match name.as_str() {
                    "trace_id" => normal_trace_id(value),
                    "span_id" => normal_span_id(value),
                    _ => None,
                };
                let is_given = field.clone().eq(lit(value.as_str()));
                let is_equal = match normal.filter(|normal| normal != value) {
                    Some(normal) => is_given.or(field.clone().eq(lit(normal))),
                    None => is_given,
                };
                if *negated { field.is_null().or(!is_equal) } else { is_equal }
            }
        };
        self.0.iter().map(expression).collect()
    }
}

fn equals(name: &str, value: &str, negated: bool) -> Result<Condition, String> {
    let name = match name {
        "" => return Err(format!("={value}: the name before = is missing")),
        "level" => "severity",
        "template" => "template_id",
        other => other,
    };
    let value = if name == "severity" { parse_severity(value)?.as_str().to_owned() } else { value.to_owned() };
    Ok(Condition::Equals { name: name.to_owned(), value, negated })
}

/// Parses a level by the common names of loggers, or a severity.
fn parse_severity(word: &str) -> Result<Severity, String> {
    let exact = SEVERITIES.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(word));
    exact
        .or_else(|| Severity::from_known_level(word))
        .ok_or_else(|| format!("unknown level {word:?}; known levels are info, warning, error and critical"))
}

/// Splits into words, each with whether it was quoted. Values may be quoted, too: `region="eu west"`.
fn split_words(text: &str) -> Result<Vec<(String, bool)>, String> {
    let (mut found, mut word, mut quoted, mut in_quotes) = (Vec::new(), String::new(), false, false);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                quoted |= word.is_empty();
                in_quotes = !in_quotes;
            }
            '\\' if in_quotes => word.extend(chars.next()),
            char if char.is_whitespace() && !in_quotes => {
                if !word.is_empty() {
                    found.push((std::mem::take(&mut word), quoted));
                }
                quoted = false;
            }
            char => word.push(char),
        }
    }
    if in_quotes {
        return Err(format!("unterminated quote before {word:?}"));
    }
    if !word.is_empty() {
        found.push((word, quoted));
    }
    Ok(found)
}

impl QueryEngine {
    /// Searches the log lines of a time range, newest first. The newest part of the range is searched first; if it has
    /// enough lines, the rest is not read.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn search_logs(
        &self,
        tenant: &TenantId,
        filter: LogFilter,
        (start, end): (Timestamp, Timestamp),
        limit: u32,
        format: OutputFormat,
    ) -> Result<Vec<u8>, QueryError> {
        let mut files = self.lake.log_files().await?;
        files.retain(|file| file.tenant == *tenant);
        let recent_start = recent_start(files, (start.millis(), end.millis())).map(Timestamp::from_millis);
        self.search_logs_in_steps(tenant, filter, (start, recent_start, end), limit as usize, format).await
    }

    /// Searches the lines since `recent_start` first.
    async fn search_logs_in_steps(
        &self,
        tenant: &TenantId,
        filter: LogFilter,
        (start, recent_start, end): (Timestamp, Option<Timestamp>, Timestamp),
        limit: usize,
        format: OutputFormat,
    ) -> Result<Vec<u8>, QueryError> {
        let plan = async move |session: SessionContext| -> Result<DataFrame, DataFusionError> {
            let Some(recent_start) = recent_start else {
                return select_lines(&session, &filter, (start, end), limit).await?.select_columns(&OUTPUT_COLUMNS);
            };
            let mut found = select_lines(&session, &filter, (recent_start, end), limit).await?.cache().await?;
            let missing = limit.saturating_sub(found.clone().count().await?);
            if missing > 0 {
                found = found.union(select_lines(&session, &filter, (start, recent_start), missing).await?)?;
            }
            found.sort(newest_first())?.limit(0, Some(limit))?.select_columns(&OUTPUT_COLUMNS)
        };
        self.run_trusted(tenant, plan, format).await
    }
}

impl Lake {
    /// Lists the files of `silver.logs`.
    pub(crate) async fn log_files(&self) -> Result<Vec<LiveFile>, Error> {
        match self.table(LOGS.name) {
            Some(table) => table.lock().await.files().await,
            None => Ok(Vec::new()),
        }
    }
}

/// Number of lines from which a search in two steps is faster.
const MIN_LINES_FOR_TWO_STEPS: u64 = 500_000;

/// Returns the start of the newest eighth of the lines of a time range (ms), by their files. Returns `None` if there
/// are few lines, or if the files overlap in time.
fn recent_start(mut files: Vec<LiveFile>, (start_ms, end_ms): (i64, i64)) -> Option<i64> {
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
    (all >= MIN_LINES_FOR_TWO_STEPS && first_ms > start_ms).then_some(first_ms)
}

/// Columns of the result.
const OUTPUT_COLUMNS: [&str; 7] = ["ts", "service", "severity", "message", "template_id", "parameters", "labels"];

/// Sort key of lines.
const SORT_COLUMNS: [&str; 4] = ["ts", "nanos", "offset", "seq"];

/// Sorts the newest line first.
fn newest_first() -> Vec<SortExpr> {
    SORT_COLUMNS.map(|column| col(column).sort(false, false)).to_vec()
}

/// Selects the newest lines of a time range that match a filter.
async fn select_lines(
    session: &SessionContext,
    filter: &LogFilter,
    (start, end): (Timestamp, Timestamp),
    limit: usize,
) -> Result<DataFrame, DataFusionError> {
    let timestamp = |at: Timestamp| lit(ScalarValue::TimestampMicrosecond(Some(micros(at)), Some("UTC".into())));
    let mut lines = session.table("logs").await?;
    lines = lines.filter(col("ts").gt_eq(timestamp(start)).and(col("ts").lt(timestamp(end))))?;
    if let Some(condition) = filter.expression() {
        lines = lines.filter(condition)?;
    }
    // The sort keeps whole rows in memory: select only the columns of the result and of the sort key.
    let columns: Vec<&str> = OUTPUT_COLUMNS
        .into_iter()
        .chain(SORT_COLUMNS.into_iter().filter(|column| !OUTPUT_COLUMNS.contains(column)))
        .collect();
    lines.select_columns(&columns)?.sort(newest_first())?.limit(0, Some(limit))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use wardroom_domain::{Entity, Labels, LogEntry};

    use super::*;
    use crate::config::{Config, QueryConfig};
    use crate::write::event_batch::{EventBatch, LogLine, RequestOrigin};

    #[test]
    fn parses_filters() {
        let equals =
            |name: &str, value: &str, negated| Condition::Equals { name: name.into(), value: value.into(), negated };
        for (text, expected) in [
            ("", vec![]),
            ("service=billing", vec![equals("service", "billing", false)]),
            ("level>=error", vec![Condition::MinSeverity(Severity::High)]),
            ("level=WARN", vec![equals("severity", "warning", false)]),
            ("level=SEVERE", vec![equals("severity", "high", false)]),
            ("level>=emerg", vec![Condition::MinSeverity(Severity::Critical)]),
            ("region!=\"eu west\"", vec![equals("region", "eu west", true)]),
            ("\"a=b c\" d", vec![Condition::Words("a=b c".into()), Condition::Words("d".into())]),
            (r#""say \"no\"""#, vec![Condition::Words("say \"no\"".into())]),
            ("template=67b32256d4", vec![equals("template_id", "67b32256d4", false)]),
        ] {
            assert_eq!(LogFilter::parse(text), Ok(LogFilter(expected)), "{text}");
        }
        for text in ["\"open", "level>=loud", "bytes>=7", "=x", "level=x"] {
            assert!(LogFilter::parse(text).is_err(), "{text}");
        }
    }

    /// Each condition of a filter used to nest the plan deeper; 60 words overflowed the stack.
    #[test]
    fn filters_are_limited_and_not_deep() {
        let words = |count: usize| (0..count).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
        let expression = LogFilter::parse(&words(MAX_CONDITIONS)).unwrap().expression().unwrap();
        let text = expression.to_string();
        assert!((0..MAX_CONDITIONS).all(|n| text.contains(&format!("\"w{n}\""))), "{text}");
        let (mut level, mut depth) = (vec![&expression], 0);
        while !level.is_empty() {
            depth += 1;
            let mut next = Vec::new();
            for expression in level {
                if let Expr::BinaryExpr(both) = expression {
                    next.extend([both.left.as_ref(), both.right.as_ref()]);
                }
            }
            level = next;
        }
        assert_eq!(depth, 7, "six levels of AND above the conditions");
        assert_eq!(LogFilter::default().expression(), None);
        assert!(LogFilter::parse(&words(MAX_CONDITIONS + 1)).unwrap_err().contains("65 conditions"));
        assert!(LogFilter::parse(&"x".repeat(MAX_FILTER_BYTES + 1)).unwrap_err().contains("4097 bytes"));
    }

    #[test]
    fn ids_are_searched_as_given_and_as_stored() {
        let expression = |text: &str| LogFilter::parse(text).unwrap().expressions()[0].to_string();
        let stored = format!("{:0>32}", "5b8eff");
        let found = expression("trace_id=5B8EFF");
        assert!(found.contains("5B8EFF") && found.contains(&stored), "{found}");
        assert!(expression("span_id!=1").contains("0000000000000001"));
        assert_eq!(expression(&format!("trace_id={stored}")).matches(&stored).count(), 1);
        assert!(!expression("request_id=5B8EFF").contains("5b8eff"));
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
    fn starts_at_the_newest_eighth_of_many_lines() {
        let day: Vec<_> = (0..16).map(|hour| file(100_000, hour * 100, hour * 100 + 99)).collect();
        assert_eq!(recent_start(day.clone(), (0, 1600)), Some(1400));
        assert_eq!(recent_start(day.clone(), (0, 1000)), Some(800), "files beyond the end do not count");
        assert_eq!(recent_start(day[..4].to_vec(), (0, 1600)), None, "few");
        assert_eq!(
            recent_start(vec![file(1 << 20, 0, 1600), file(1 << 20, 10, 1590)], (0, 1600)),
            None,
            "all at one time"
        );
        assert_eq!(recent_start(Vec::new(), (0, 1600)), None);
    }

    /// The result does not depend on where the first step starts.
    #[tokio::test]
    async fn finds_the_same_lines_in_two_steps_as_in_one() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Arc::new(Lake::open(&Config::default(), folder.path()).await.unwrap());
        let (main, second) =
            (TenantId::main(), |number: i64| Timestamp::from_millis(1_795_255_038_000 + number * 1000));
        for batch in 0..3 {
            let mut events = EventBatch::new(lake.committed_event_offsets().await.unwrap());
            for number in batch * 20..batch * 20 + 20 {
                let message = format!("{} {number}", if number % 7 == 0 { "seldom" } else { "often" });
                let log = LogEntry {
                    at: second(number / 2),
                    severity: Severity::Info,
                    message,
                    service: "web".into(),
                    labels: Labels::default(),
                };
                for tenant in ["main", "other"] {
                    let from = RequestOrigin::new(TenantId::new(tenant).unwrap(), number as u64, log.at, None);
                    events
                        .add_log(
                            &from,
                            0,
                            &LogLine { log: &log, entity: &Entity::service("web"), template: "t", parameters: &[] },
                        )
                        .unwrap();
                }
            }
            // The last batch is not committed.
            if batch < 2 {
                lake.commit_events(&events.finish(batch as u64 * 20 + 20, second(60)).unwrap()).await.unwrap();
            } else {
                lake.publish_pending(events.pending_rows(60).unwrap()).await;
            }
        }
        let queries = QueryEngine::new(lake, QueryConfig::default()).unwrap();
        for (filter, limit) in [("", 1), ("", 7), ("", 1000), ("seldom", 2), ("seldom", 8), ("nowhere", 5)] {
            let filter = LogFilter::parse(filter).unwrap();
            let search = async |recent_start: Option<i64>| {
                let span = (second(0), recent_start.map(second), second(30));
                let found =
                    queries.search_logs_in_steps(&main, filter.clone(), span, limit, OutputFormat::Json).await.unwrap();
                serde_json::from_slice::<Vec<serde_json::Value>>(&found).unwrap()
            };
            let expected = search(None).await;
            for recent_start in [0, 1, 9, 15, 25, 29, 30] {
                assert_eq!(search(Some(recent_start)).await, expected, "{filter:?} {limit} from {recent_start}");
            }
            assert!(expected.len() <= limit && expected.is_sorted_by(|a, b| a["ts"].as_str() >= b["ts"].as_str()));
            assert_eq!(expected.is_empty(), filter == LogFilter::parse("nowhere").unwrap());
        }
    }

    proptest! {
        /// Any text parses or is rejected, and is searched verbatim if quoted.
        #[test]
        fn parses_any_text_and_searches_quoted_text_verbatim(text in "(?s).{0,80}") {
            drop(LogFilter::parse(&text));
            let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let expected = if text.is_empty() { vec![] } else { vec![Condition::Words(text)] };
            prop_assert_eq!(LogFilter::parse(&quoted), Ok(LogFilter(expected)));
        }
    }
}
