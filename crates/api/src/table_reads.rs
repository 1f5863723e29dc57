//! Reads of the tables for lists and charts: templates and a histogram of log lines, and traces of a service. Each is
//! one SQL query over the caller's tenant; what a caller gives is a text in it, in quotes.

use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use wardroom_domain::{Severity, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::problem_responses::TableErrors;
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, DEFAULT_ROWS, MAX_ROWS, TableFormat, parse_step_ms, parse_time};
use crate::warnings::{changed_limit, with_warnings};

/// Maximum length of a text that is compared, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// Maximum number of steps of a histogram.
const MAX_STEPS: i64 = 11_000;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [templates_backend, histogram_backend, traces_backend] = std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get(
            "/api/v1/logs/templates",
            Access::Read,
            move |caller: Caller, headers: HeaderMap, parameters: QueryParameters<TemplateParameters>| {
                log_templates(templates_backend.clone(), caller, headers, parameters)
            },
        )
        .get(
            "/api/v1/logs/histogram",
            Access::Read,
            move |caller: Caller, headers: HeaderMap, parameters: QueryParameters<HistogramParameters>| {
                log_histogram(histogram_backend.clone(), caller, headers, parameters)
            },
        )
        .get(
            "/api/v1/traces",
            Access::Read,
            move |caller: Caller, headers: HeaderMap, parameters: QueryParameters<TraceParameters>| {
                list_traces(traces_backend.clone(), caller, headers, parameters)
            },
        )
}

/// The conditions of a query.
#[derive(Debug, Default)]
struct Conditions(Vec<String>);

impl Conditions {
    /// Adds a range of time: start inclusive, end exclusive.
    fn range(&mut self, start: Option<&str>, end: Option<&str>) -> Result<(), Problem> {
        let micros = |name, text: Option<&str>| text.map(|text| parse_time(name, text).map(micros_of)).transpose();
        let micros = (micros("start", start)?, micros("end", end)?);
        self.0.extend(micros.0.map(|micros| format!("ts >= to_timestamp_micros({micros})")));
        self.0.extend(micros.1.map(|micros| format!("ts < to_timestamp_micros({micros})")));
        Ok(())
    }

    /// Adds that a column has a value.
    fn equals(&mut self, name: &str, column: &str, value: Option<&str>) -> Result<(), Problem> {
        if let Some(value) = value {
            self.0.push(format!("{column} = {}", quoted(name, value)?));
        }
        Ok(())
    }

    /// Returns the `WHERE` clause; empty without conditions.
    fn clause(&self) -> String {
        if self.0.is_empty() { String::new() } else { format!("WHERE {}", self.0.join(" AND ")) }
    }
}

const fn micros_of(at: Timestamp) -> i64 {
    at.nanos().div_euclid(1000)
}

/// A text in quotes of SQL.
fn quoted(name: &str, text: &str) -> Result<String, Problem> {
    if text.len() > MAX_TEXT_BYTES || text.contains('\0') {
        let detail = format!("parameter {name}: at most {MAX_TEXT_BYTES} bytes, none of them zero");
        return Err(Problem::bad_request("bad_parameter", detail));
    }
    Ok(format!("'{}'", text.replace('\'', "''")))
}

async fn run(
    backend: Backend,
    caller: Caller,
    (sql, warning): (String, Option<String>),
    (format, headers): (Option<String>, &HeaderMap),
) -> Result<Response, Problem> {
    let format = match format {
        Some(name) => TableFormat::parse(&name)?,
        None => TableFormat::from_accept(headers),
    };
    let table = (backend.tables.sql)(caller.tenant.clone(), sql, format).await?;
    Ok(with_warnings(format.response(table), warning.into_iter().collect()))
}

/// Returns the number of rows to read, and the warning if that is not what was asked for.
fn rows(limit: Option<u32>) -> (u32, Option<String>) {
    let asked = limit.unwrap_or(DEFAULT_ROWS);
    let used = asked.clamp(1, MAX_ROWS);
    (used, changed_limit(asked, used))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TemplateParameters {
    /// Only this service.
    service: Option<String>,
    /// Start, inclusive: RFC 3339 or seconds since the epoch.
    start: Option<String>,
    /// End, exclusive: RFC 3339 or seconds since the epoch.
    end: Option<String>,
    /// Maximum number of templates; 100 by default, at most 10000.
    limit: Option<u32>,
    /// Format; otherwise by `Accept`, JSON by default.
    #[param(value_type = Option<TableFormat>)]
    format: Option<String>,
}

/// Templates of log lines by service, the most frequent first.
#[utoipa::path(
    get, path = "/api/v1/logs/templates", operation_id = "listLogTemplates", tag = "logs",
    params(TemplateParameters),
    responses((status = 200, description = "service, template_id, template, lines, first, last, example",
        content((Vec<Object> = "application/json"), (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/plain"))), TableErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn log_templates(
    backend: Backend,
    caller: Caller,
    headers: HeaderMap,
    QueryParameters(parameters): QueryParameters<TemplateParameters>,
) -> Result<Response, Problem> {
    let mut conditions = Conditions::default();
    conditions.range(parameters.start.as_deref(), parameters.end.as_deref())?;
    conditions.equals("service", "service", parameters.service.as_deref())?;
    let (rows, warning) = rows(parameters.limit);
    let sql = format!(
        "SELECT service, template_id, first_value(template ORDER BY ts) AS template, \
         CAST(sum(lines) AS BIGINT) AS lines, min(ts) AS first, max(\"last\") AS \"last\", first_value(example ORDER BY ts) AS example \
         FROM log_templates {} GROUP BY service, template_id ORDER BY lines DESC, service, template_id LIMIT {rows}",
        conditions.clause()
    );
    run(backend, caller, (sql, warning), (parameters.format, &headers)).await
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistogramParameters {
    /// Only this service.
    service: Option<String>,
    /// Only lines of this severity: `info`, `warning`, `high` or `critical`.
    severity: Option<String>,
    /// Only lines that have this text, whatever its case.
    text: Option<String>,
    /// Start, inclusive: RFC 3339 or seconds since the epoch.
    start: String,
    /// End, exclusive: RFC 3339 or seconds since the epoch.
    end: String,
    /// Such as `15`, `15s` or `1m`; by default a hundredth of the range.
    step: Option<String>,
    /// Format; otherwise by `Accept`, JSON by default.
    #[param(value_type = Option<TableFormat>)]
    format: Option<String>,
}

/// Number of log lines over time, by severity.
#[utoipa::path(
    get, path = "/api/v1/logs/histogram", operation_id = "getLogHistogram", tag = "logs",
    params(HistogramParameters),
    responses((status = 200, description = "at (start of the step), severity, lines; steps without lines have no row",
        content((Vec<Object> = "application/json"), (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/plain"))), TableErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn log_histogram(
    backend: Backend,
    caller: Caller,
    headers: HeaderMap,
    QueryParameters(parameters): QueryParameters<HistogramParameters>,
) -> Result<Response, Problem> {
    let sql = histogram_sql(&parameters)?;
    run(backend, caller, (sql, None), (parameters.format, &headers)).await
}

fn histogram_sql(parameters: &HistogramParameters) -> Result<String, Problem> {
    let (start, end) = (parse_time("start", &parameters.start)?, parse_time("end", &parameters.end)?);
    let span_ms = end.millis().saturating_sub(start.millis());
    if span_ms <= 0 {
        return Err(Problem::bad_request("bad_time", "parameter end: must be after start"));
    }
    let step_ms = match &parameters.step {
        Some(step) => i64::from(parse_step_ms(step)?.get()),
        None => (span_ms / 100).max(1),
    };
    if span_ms / step_ms > MAX_STEPS {
        let detail = format!("parameter step: at most {MAX_STEPS} steps; use a longer step or a shorter range");
        return Err(Problem::bad_request("bad_step", detail));
    }
    let mut conditions = Conditions::default();
    conditions.range(Some(&parameters.start), Some(&parameters.end))?;
    conditions.equals("service", "service", parameters.service.as_deref())?;
    if let Some(severity) = &parameters.severity {
        let known = [Severity::Info, Severity::Warning, Severity::High, Severity::Critical];
        if !known.iter().any(|known| known.to_string() == *severity) {
            let detail = format!("parameter severity: {severity:?} is none of info, warning, high, critical");
            return Err(Problem::bad_request("bad_parameter", detail));
        }
    }
    conditions.equals("severity", "severity", parameters.severity.as_deref())?;
    if let Some(text) = &parameters.text {
        conditions.0.push(format!("contains(lower(message), {})", quoted("text", &text.to_lowercase())?));
    }
    let origin = micros_of(start);
    Ok(format!(
        "SELECT date_bin(INTERVAL '{step_ms} milliseconds', ts, to_timestamp_micros({origin})) AS at, severity, \
         count(*) AS lines FROM logs {} GROUP BY 1, severity ORDER BY at, severity",
        conditions.clause()
    ))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TraceParameters {
    /// Only traces with a span of this service.
    service: Option<String>,
    /// Only traces in which a span failed (`true`), or in which none did.
    failed: Option<bool>,
    /// Only traces whose longest span took at least this long, in milliseconds.
    min_ms: Option<u64>,
    /// Start, inclusive: RFC 3339 or seconds since the epoch.
    start: Option<String>,
    /// End, exclusive: RFC 3339 or seconds since the epoch.
    end: Option<String>,
    /// Maximum number of traces; 100 by default, at most 10000.
    limit: Option<u32>,
    /// Format; otherwise by `Accept`, JSON by default.
    #[param(value_type = Option<TableFormat>)]
    format: Option<String>,
}

/// Traces, the newest first; of a service, what its spans say.
#[utoipa::path(
    get, path = "/api/v1/traces", operation_id = "listTraces", tag = "traces",
    params(TraceParameters),
    responses((status = 200, description = "trace_id, started, spans, duration_ns (of the longest), failed, service, \
            name (of the first span)",
        content((Vec<Object> = "application/json"), (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "text/plain"))), TableErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list_traces(
    backend: Backend,
    caller: Caller,
    headers: HeaderMap,
    QueryParameters(parameters): QueryParameters<TraceParameters>,
) -> Result<Response, Problem> {
    let mut conditions = Conditions::default();
    conditions.range(parameters.start.as_deref(), parameters.end.as_deref())?;
    conditions.equals("service", "service", parameters.service.as_deref())?;
    let mut having = vec![format!(
        "max(duration_ns) >= {}",
        parameters.min_ms.unwrap_or(0).saturating_mul(1_000_000).min(i64::MAX as u64)
    )];
    having.extend(parameters.failed.map(|failed| format!("bool_or(failed) = {failed}")));
    let (rows, warning) = rows(parameters.limit);
    let sql = format!(
        "SELECT trace_id, min(ts) AS started, count(*) AS spans, max(duration_ns) AS duration_ns, \
         bool_or(failed) AS failed, first_value(service ORDER BY ts) AS service, first_value(name ORDER BY ts) AS name \
         FROM spans {} GROUP BY trace_id HAVING {} ORDER BY started DESC, trace_id LIMIT {rows}",
        conditions.clause(),
        having.join(" AND ")
    );
    run(backend, caller, (sql, warning), (parameters.format, &headers)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_gives_stays_a_text() {
        for text in ["x", "it's", "'; DROP TABLE logs; --", "\\'", "''"] {
            let quoted = quoted("service", text).unwrap();
            assert_eq!(quoted.matches('\'').count() % 2, 0, "{quoted}");
            let inside = quoted.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
            assert_eq!(inside.replace("''", "'"), text, "{quoted}");
            assert!(!inside.replace("''", "").contains('\''), "{quoted}");
        }
        assert!(quoted("service", &"x".repeat(1025)).is_err() && quoted("service", "a\0").is_err());
    }

    #[test]
    fn the_steps_of_a_histogram_begin_at_its_start() {
        let parameters = |start: &str, end: &str, step: Option<&str>| HistogramParameters {
            service: Some("it's".to_owned()),
            severity: None,
            text: Some("Pool".to_owned()),
            start: start.to_owned(),
            end: end.to_owned(),
            step: step.map(str::to_owned),
            format: None,
        };
        let sql = histogram_sql(&parameters("10", "110", None)).unwrap();
        for part in [
            "INTERVAL '1000 milliseconds', ts, to_timestamp_micros(10000000)",
            "service = 'it''s'",
            "contains(lower(message), 'pool')",
            "ts < to_timestamp_micros(110000000)",
        ] {
            assert!(sql.contains(part), "{part}: {sql}");
        }
        let code = |start, end, step| histogram_sql(&parameters(start, end, step)).unwrap_err().code();
        assert_eq!(code("10", "10", None), "bad_time");
        assert_eq!(code("0", "100000", Some("1s")), "bad_step");
        let severity = HistogramParameters { severity: Some("loud".into()), ..parameters("1", "2", None) };
        assert_eq!(histogram_sql(&severity).unwrap_err().code(), "bad_parameter");
    }
}
