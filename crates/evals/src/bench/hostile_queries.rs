//! `bench hostile-queries`: what hostile questions of one tenant's viewers do to intake and to another tenant.
//!
//! Samples arrive at 20 000 a second, and another tenant asks an ordinary question once a second; first alone, then
//! beside generated SQL, log searches and selectors from a few clients. Most of them exceed a limit; the others are as
//! expensive as the limits allow. The server must not die, acknowledgements and the other tenant must hardly notice,
//! and the memory of all processes must stay within what the configuration allows.

mod filter_grammar;
mod sql_grammar;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use serde_json::{Value, json};
use wardroom_testing::server::create_tenant_token;
use wardroom_testing::{Server, server};

use self::filter_grammar::{FilterGrammar, ReadRequest};
use self::sql_grammar::SqlGrammar;
use super::run_environment::{commit, machine};
use super::surroundings::{Measured, locked, measure, write_logs};
use crate::progress::print_progress;

/// Clients that send hostile queries, each one after the other.
const CLIENTS: usize = 4;
/// Pause before a query is sent again that was refused because others run.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Queries that are kept for the report of each way in which one must not end.
const KEPT_EXAMPLES: usize = 5;
/// Length of those, in characters.
const EXAMPLE_CHARS: usize = 400;
/// Timeout of a client; longer than that of a query, so that the server ends it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// Time until a new token is valid.
const TOKEN_DELAY: Duration = Duration::from_millis(1200);
/// Time for the first samples to create their series, which is not measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// Allowed p99 of acknowledgements, relative to that without queries.
const MAX_P99_RATIO: f64 = 1.5;
/// Share of the other tenant's queries that must succeed in time.
const MIN_SUCCESS_SHARE: f64 = 0.99;
/// Allowed time of the other tenant's queries, relative to the slowest without hostile ones.
const MAX_TIME_RATIO: f64 = 2.0;

struct Options {
    /// Statements of SQL, and requests with selectors; a tenth as many log searches.
    queries: u64,
    seed: u64,
    /// Maximum duration of each kind.
    duration: Duration,
    /// Duration of the measurement without queries.
    alone: Duration,
    /// `lake.query.seconds`.
    query_seconds: u64,
    /// Memory that all processes may use beyond that without queries, in MiB.
    memory_mib: u64,
    json: Option<PathBuf>,
    /// The kinds to measure; all if empty.
    kinds: Vec<String>,
    /// Whether the times of acknowledgements and of the other tenant are goals.
    judges_times: bool,
}

/// Runs the benchmark; fails if a goal is missed.
pub(super) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let mut options = Options {
        queries: 10_000,
        seed: 1,
        duration: Duration::from_secs(3600),
        alone: Duration::from_secs(30),
        query_seconds: 5,
        memory_mib: 1536,
        json: None,
        kinds: Vec::new(),
        judges_times: true,
    };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("queries") => options.queries = arguments.value()?.parse()?,
            Long("seed") => options.seed = arguments.value()?.parse()?,
            Long("minutes") => options.duration = Duration::from_secs_f64(60.0 * arguments.value()?.parse::<f64>()?),
            Long("alone-seconds") => options.alone = Duration::from_secs(arguments.value()?.parse()?),
            Long("query-seconds") => options.query_seconds = arguments.value()?.parse()?,
            Long("memory-mib") => options.memory_mib = arguments.value()?.parse()?,
            Long("kinds") => {
                options.kinds = arguments.value()?.string()?.split(',').map(str::to_owned).collect();
            }
            Long("json") => options.json = Some(PathBuf::from(arguments.value()?)),
            // Shows deaths; too short to judge times.
            Long("short") => {
                options.judges_times = false;
                (options.queries, options.query_seconds) = (60, 1);
                (options.alone, options.duration) = (Duration::from_secs(3), Duration::from_secs(4));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    // Next to the build, on a real disk: /tmp may be a tmpfs.
    let program = server::program("WARDROOM_BIN");
    let dir = program.parent().context("WARDROOM_BIN has no folder")?.join("bench-hostile-queries");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let query_seconds = options.query_seconds.to_string();
    let server =
        Server::start(&dir, "", &[("RUST_LOG", "warn"), ("WARDROOM_LAKE__QUERY__SECONDS", query_seconds.as_str())])?;
    let report = compare(&server, &options)?;
    drop(server);
    print_table(&report);
    print_progress(serde_json::to_string_pretty(&report)?);
    if let Some(file) = &options.json {
        std::fs::write(file, report.to_string())?;
    }
    let missed = missed_goals(&report);
    missed.iter().for_each(|goal| print_progress(format!("missed: {goal}")));
    ensure!(missed.is_empty(), "{} goals missed; the server's log is in {}", missed.len(), dir.display());
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// Measures without queries, and beside each kind of them.
fn compare(server: &Server, options: &Options) -> anyhow::Result<Value> {
    let data = server.dir.join("data");
    let viewer = create_tenant_token(&data, "hostile", "viewer", "main")?;
    let (neighbour_sender, neighbour) = (
        create_tenant_token(&data, "neighbour-sender", "sender", "neighbour")?,
        create_tenant_token(&data, "neighbour", "viewer", "neighbour")?,
    );
    std::thread::sleep(TOKEN_DELAY);
    write_logs(server, &server.sender_token)?;
    write_logs(server, &neighbour_sender)?;
    measure(server, Some(&neighbour), || std::thread::sleep(WARM_UP))?;
    print_progress(format!("without queries, {} s", options.alone.as_secs()));
    let alone = measure(server, Some(&neighbour), || std::thread::sleep(options.alone))?.0;
    let usual_ms = alone.neighbour_ms.iter().flatten().copied().fold(f64::NAN, f64::max);
    let mut kinds = Vec::new();
    let (mut sql, mut logs, mut selectors) =
        (SqlGrammar::new(options.seed), FilterGrammar::new(options.seed), FilterGrammar::new(options.seed + 1));
    let mut next_sql = || {
        let (kind, statement) = sql.statement();
        (kind, ReadRequest { path: "/api/v1/sql".into(), form: Some(statement) })
    };
    let mut next_logs = || ("log search", logs.log_search());
    let mut next_selectors = || ("selectors", selectors.selectors());
    let sources: [(&str, u64, Source<'_>); 3] = [
        ("SQL", options.queries, &mut next_sql),
        ("log searches", options.queries.div_ceil(10), &mut next_logs),
        ("selectors", options.queries, &mut next_selectors),
    ];
    let is_wanted = |name: &str| options.kinds.is_empty() || options.kinds.iter().any(|kind| kind == name);
    for (name, count, next) in sources.into_iter().filter(|(name, ..)| is_wanted(name)) {
        print_progress(format!("beside {count} {name}"));
        let now = Instant::now();
        let (not_before, deadline) = (now + options.alone, now + options.duration);
        let attack = Attack { server, token: &viewer, count, not_before, deadline };
        let (measured, outcomes) = measure(server, Some(&neighbour), || attack.send(next))?;
        kinds.push(json!({ "queries": name, "outcomes": outcomes, "measured": row(&measured, usual_ms) }));
    }
    Ok(json!({ "commit": commit(), "machine": machine(), "seed": options.seed, "query_seconds": options.query_seconds,
        "judges_times": options.judges_times, "usual_ms": usual_ms, "alone": row(&alone, usual_ms), "beside": kinds,
        "allowed_mib": alone.peak_rss_mib + options.memory_mib as f64 }))
}

/// Returns the figures of a measurement.
fn row(measured: &Measured, usual_ms: f64) -> Value {
    let queries = measured.neighbour_ms.len();
    let in_time = measured.neighbour_ms.iter().flatten().filter(|ms| **ms <= MAX_TIME_RATIO * usual_ms).count();
    let slowest = measured.neighbour_ms.iter().flatten().copied().fold(0.0, f64::max);
    json!({ "seconds": measured.seconds, "ack_p50_ms": measured.ack_ms(0.5), "ack_p99_ms": measured.ack_ms(0.99),
        "samples_per_s": measured.samples_per_s(), "ack_errors": measured.ack_errors, "neighbour_queries": queries,
        "neighbour_in_time": in_time, "neighbour_slowest_ms": slowest, "server_deaths": measured.server_deaths,
        "worker_restarts": measured.worker_restarts, "peak_rss_mib": measured.peak_rss_mib })
}

/// Returns the next request, with its kind.
type Source<'a> = &'a mut (dyn FnMut() -> (&'static str, ReadRequest) + Send);

/// Hostile requests of one kind.
struct Attack<'a> {
    server: &'a Server,
    token: &'a str,
    count: u64,
    /// More requests are sent until then, so that there is something to measure.
    not_before: Instant,
    deadline: Instant,
}

impl Attack<'_> {
    /// Sends the requests; returns how many of each kind were sent, and how they were answered.
    fn send(&self, next: Source<'_>) -> Value {
        let (next, sent) = (Mutex::new(next), AtomicU64::new(0));
        let answers = Mutex::new(BTreeMap::<String, u64>::new());
        let examples = Mutex::new(BTreeMap::<String, Vec<String>>::new());
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let config = ureq::Agent::config_builder().http_status_as_error(false);
                    let agent = config.timeout_global(Some(REQUEST_TIMEOUT)).build().new_agent();
                    while self.goes_on(sent.fetch_add(1, Ordering::Relaxed)) {
                        let (kind, request) = locked(&next)();
                        let answer = self.ask(&agent, &request);
                        if is_remarkable(&answer) {
                            let mut examples = locked(&examples);
                            let kept = examples.entry(answer.clone()).or_default();
                            if kept.len() < KEPT_EXAMPLES {
                                let text = request.form.as_ref().unwrap_or(&request.path);
                                kept.push(text.chars().take(EXAMPLE_CHARS).collect());
                            }
                        }
                        *locked(&answers).entry(format!("{kind}: {answer}")).or_default() += 1;
                    }
                });
            }
        });
        let answers = answers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let examples = examples.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        json!({ "sent": answers.values().sum::<u64>(), "answers": answers, "examples": examples })
    }

    fn goes_on(&self, sent: u64) -> bool {
        let now = Instant::now();
        (sent < self.count || now < self.not_before) && now < self.deadline
    }

    /// Sends a request until it is not refused for others; returns its status and the code of its problem.
    fn ask(&self, agent: &ureq::Agent, request: &ReadRequest) -> String {
        let (url, token) = (format!("{}{}", self.server.url, request.path), format!("Bearer {}", self.token));
        loop {
            let response = match &request.form {
                Some(form) => {
                    let content_type = match request.path.as_str() {
                        "/api/v1/sql" => "text/plain",
                        _ => "application/x-www-form-urlencoded",
                    };
                    agent.post(&url).header("Authorization", &token).header("Content-Type", content_type).send(form)
                }
                None => agent.get(&url).header("Authorization", &token).call(),
            };
            let mut response = match response {
                Ok(response) => response,
                Err(error) => return format!("no answer ({error})"),
            };
            let status = response.status().as_u16();
            let text = response.body_mut().with_config().limit(1 << 30).read_to_string().unwrap_or_default();
            if status == 200 {
                return "200".into();
            }
            let problem: Value = serde_json::from_str(&text).unwrap_or_default();
            let code = problem["code"].as_str().or_else(|| problem["errorType"].as_str()).unwrap_or("no code");
            let is_busy = status == 429 || code == "queries_unavailable";
            if !is_busy || Instant::now() > self.deadline {
                return format!("{status} {code}");
            }
            std::thread::sleep(BUSY_PAUSE);
        }
    }
}

/// Whether the server failed to answer as it should.
fn is_failure(answer: &str) -> bool {
    answer.contains("500 ") || answer.contains("no answer")
}

/// Whether a query is worth a look: it crashed a worker, so that no limit held it, or had no answer.
fn is_remarkable(answer: &str) -> bool {
    is_failure(answer) || answer.contains("crashed")
}

/// Prints a line for each measurement.
fn print_table(report: &Value) {
    print_progress("beside         sent   p50 ms   p99 ms  neighbour in time  deaths  workers restarted  peak MiB");
    let rows = report["beside"].as_array().into_iter().flatten();
    let rows =
        rows.map(|kind| (kind["queries"].as_str().unwrap_or_default(), &kind["outcomes"]["sent"], &kind["measured"]));
    for (name, sent, row) in std::iter::once(("nothing", &Value::Null, &report["alone"])).chain(rows) {
        let number = |field: &str| row[field].as_f64().unwrap_or(f64::NAN);
        let in_time = format!("{} of {}", row["neighbour_in_time"], row["neighbour_queries"]);
        print_progress(format!(
            "{name:<12} {:>6} {:>8.1} {:>8.1} {in_time:>18} {:>7} {:>18} {:>9.0}",
            sent.as_u64().unwrap_or_default(),
            number("ack_p50_ms"),
            number("ack_p99_ms"),
            number("server_deaths"),
            number("worker_restarts"),
            number("peak_rss_mib")
        ));
    }
}

/// Returns a line for each goal that the report misses.
fn missed_goals(report: &Value) -> Vec<String> {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let alone_ms = number(&report["alone"]["ack_p99_ms"]);
    let judges_times = report["judges_times"] == true;
    let mut missed = Vec::new();
    for kind in report["beside"].as_array().into_iter().flatten() {
        let (name, row) = (kind["queries"].as_str().unwrap_or_default(), &kind["measured"]);
        let mut require = |holds: bool, text: String| {
            if !holds {
                missed.push(format!("{name}: {text}"));
            }
        };
        let deaths = number(&row["server_deaths"]);
        require(deaths == 0.0, format!("the server ended {deaths} times"));
        let errors = number(&row["ack_errors"]);
        require(errors == 0.0, format!("{errors} requests with samples were not acknowledged"));
        let ratio = number(&row["ack_p99_ms"]) / alone_ms;
        require(
            !judges_times || ratio <= MAX_P99_RATIO,
            format!("p99 of acknowledgements is {ratio:.2} times that without queries"),
        );
        let share = number(&row["neighbour_in_time"]) / number(&row["neighbour_queries"]);
        require(
            !judges_times || share >= MIN_SUCCESS_SHARE,
            format!("{share:.3} of the other tenant's queries succeeded in time"),
        );
        let (peak, allowed) = (number(&row["peak_rss_mib"]), number(&report["allowed_mib"]));
        require(peak <= allowed, format!("{peak:.0} MiB of memory, allowed {allowed:.0}"));
        let answers = kind["outcomes"]["answers"].as_object().into_iter().flatten();
        for (answer, count) in answers.filter(|(answer, _)| is_failure(answer)) {
            require(false, format!("{count} times {answer}"));
        }
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_missed_by_what_they_forbid() {
        let good = json!({ "ack_p99_ms": 10.0, "ack_errors": 0, "neighbour_queries": 100, "neighbour_in_time": 99,
            "server_deaths": 0, "peak_rss_mib": 500.0 });
        let report = |field: &str, value: Value, answer: &str| {
            let mut row = good.clone();
            row[field] = value;
            json!({ "alone": { "ack_p99_ms": 8.0 }, "judges_times": true, "allowed_mib": 600.0,
                "beside": [{ "queries": "SQL", "measured": row, "outcomes": { "answers": { answer: 1 } } }] })
        };
        assert_eq!(missed_goals(&report("ack_errors", json!(0), "deep: 400 query_limit")), Vec::<String>::new());
        for (field, value) in [
            ("ack_p99_ms", json!(12.1)),
            ("ack_p99_ms", Value::Null),
            ("ack_errors", json!(1)),
            ("neighbour_in_time", json!(98)),
            ("server_deaths", json!(1)),
            ("peak_rss_mib", json!(601.0)),
        ] {
            assert_eq!(missed_goals(&report(field, value, "deep: 200")).len(), 1, "{field}");
        }
        assert_eq!(missed_goals(&report("ack_errors", json!(0), "deep: no answer (connection refused)")).len(), 1);
        assert_eq!(missed_goals(&report("ack_errors", json!(0), "deep: 500 internal")).len(), 1);
    }
}
