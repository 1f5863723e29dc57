//! `bench live-streams`: what clients of live events cost the API and intake.
//!
//! Samples arrive at 20 000 a second, a few readers ask the API, and every second a deployment is reported and the
//! incident commented on; first alone, then beside 200 clients of `/api/v1/stream`. Answers of the API must stay below
//! their limit, acknowledgements must hardly notice, and every client must get every event.

mod stream_client;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, ValueExt};
use serde_json::{Value, json};
use wardroom_testing::server::create_token;
use wardroom_testing::{Server, SyntheticTelemetry, now_ms, remote_write, server};

use self::stream_client::{Received, StreamClients, VERSION_PREFIX};
use super::process_usage::process_tree_usage;
use super::run_environment::{commit, machine};
use super::statistics::quantile;
use super::surroundings::{Measured, measure};
use crate::progress::print_progress;

/// Limit of the API's 99th percentile.
const MAX_API_P99_MS: f64 = 100.0;
/// Allowed p99 of acknowledgements, relative to that without streams.
const MAX_ACK_RATIO: f64 = 1.5;
/// A p99 of acknowledgements below this is unharmed, whatever the ratio.
const UNHARMED_ACK_MS: f64 = 10.0;
/// Streams of one principal.
const STREAMS_PER_TOKEN: usize = 50;
/// Threads that ask the API, and how often each does.
const READERS: usize = 4;
const READ_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of the deployments and comments.
const CHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// Time for the first samples to create their series, which is not measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// Time after opening the streams: the server must know what is not new.
const STREAM_WARM_UP: Duration = Duration::from_secs(3);
/// Time for the last events to arrive.
const LAST_EVENTS: Duration = Duration::from_secs(5);
/// Time until a new token is valid.
const TOKEN_DELAY: Duration = Duration::from_millis(1200);
const INCIDENT_TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// What a console asks for, without the range of time.
const PATHS: [&str; 11] = [
    "/api/v1/incidents?limit=50",
    "/api/v1/incidents/INC-1",
    "/api/v1/incidents/INC-1/history",
    "/api/v1/incidents/INC-1/approval-request",
    "/api/v1/plans",
    "/api/v1/events?limit=100",
    "/api/v1/entities?limit=100",
    "/api/v1/topology?entity=cart",
    "/api/v1/signals?bad=true",
    "/api/v1/anomalies?limit=100",
    "/api/v1/metrics?match%5B%5D=queue_depth_items%7Binstance%3D%2210.0.0.1%3A9100%22%7D",
];

struct Options {
    clients: usize,
    /// Length of each of the two measurements.
    duration: Duration,
    json: Option<PathBuf>,
}

/// Runs the benchmark; fails if a goal is missed.
pub(super) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let mut options = Options { clients: 200, duration: Duration::from_secs(60), json: None };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("clients") => options.clients = arguments.value()?.parse()?,
            Long("seconds") => options.duration = Duration::from_secs(arguments.value()?.parse()?),
            Long("json") => options.json = Some(PathBuf::from(arguments.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    // Next to the build, on a real disk: /tmp may be a tmpfs.
    let program = server::program("WARDROOM_BIN");
    let dir = program.parent().context("WARDROOM_BIN has no folder")?.join("bench-live-streams");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let environment = [("RUST_LOG", "warn"), ("WARDROOM_EDGE__REQUESTS_PER_SECOND", "0")];
    let server = Server::start(&dir, "", &environment)?;
    let report = compare(&server, &options)?;
    drop(server);
    print_progress(serde_json::to_string_pretty(&report)?);
    if let Some(file) = &options.json {
        std::fs::write(file, report.to_string())?;
    }
    let missed = missed_goals(&report);
    missed.iter().for_each(|goal| print_progress(format!("missed: {goal}")));
    ensure!(missed.is_empty(), "{} goals missed; the server's log is in {}", missed.len(), dir.display());
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// Measures without streams, and beside them.
fn compare(server: &Server, options: &Options) -> anyhow::Result<Value> {
    let data = server.dir.join("data");
    let screens = options.clients.div_ceil(STREAMS_PER_TOKEN).max(1);
    let tokens = (1..=screens).map(|number| create_token(&data, &format!("screen-{number}"), "viewer"));
    let tokens = tokens.collect::<anyhow::Result<Vec<String>>>()?;
    std::thread::sleep(TOKEN_DELAY);
    open_incident(server)?;
    let mut changes = Changes::default();
    measure(server, None, || std::thread::sleep(WARM_UP))?;
    print_progress(format!("without streams, {} s", options.duration.as_secs()));
    let alone = Phase::measure(server, &tokens, options.duration, &mut changes)?;
    print_progress(format!("beside {} streams, {} s", options.clients, options.duration.as_secs()));
    let clients = StreamClients::open(server, &tokens, options.clients)?;
    std::thread::sleep(STREAM_WARM_UP);
    changes.reported.clear();
    let beside = Phase::measure(server, &tokens, options.duration, &mut changes)?;
    std::thread::sleep(LAST_EVENTS);
    let received = clients.close()?;
    Ok(json!({ "commit": commit(), "machine": machine(), "clients": options.clients, "alone": alone.row(),
        "beside": beside.row(), "streams": stream_row(&received, &changes) }))
}

/// Sends telemetry with a problem until there is an incident.
fn open_incident(server: &Server) -> anyhow::Result<()> {
    let mut telemetry = SyntheticTelemetry::new(now_ms() - 310_000, &["cart", "newsletter"]);
    for second in 0..300 {
        let slow: &[&str] = if second < 240 { &[] } else { &["cart"] };
        let status = server.write(&remote_write::body(telemetry.next_second(slow)))?;
        ensure!(status == 204, "samples are not accepted: {status}");
    }
    let started = Instant::now();
    while server.get("/api/v1/incidents/INC-1", &server.responder_token)?.0 != 200 {
        ensure!(started.elapsed() < INCIDENT_TIMEOUT, "there is no incident");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What was changed, and what all clients must get.
#[derive(Default)]
struct Changes {
    number: u64,
    /// When each deployment was reported, by its number.
    reported: BTreeMap<u64, Instant>,
    /// Revision of the incident after the last comment.
    revision: i64,
}

impl Changes {
    /// Reports a deployment and comments on the incident, once a second.
    fn make(&mut self, server: &Server, duration: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < duration {
            let second = Instant::now();
            self.number += 1;
            let version = format!("{VERSION_PREFIX}{}", self.number);
            let deployment = json!({ "service": "cart", "version": version, "status": "success" });
            let (status, answer) = server.post_json("/ingest/deployment", &server.sender_token, &deployment)?;
            ensure!(status == 200, "a deployment was refused: {status} {answer}");
            self.reported.insert(self.number, second);
            let comment = json!({ "text": format!("deployed {version}") });
            let path = "/api/v1/incidents/INC-1/comment";
            let (status, answer) = server.post_json(path, &server.responder_token, &comment)?;
            ensure!(status == 200, "a comment was refused: {status} {answer}");
            std::thread::sleep(CHANGE_INTERVAL.saturating_sub(second.elapsed()));
        }
        let (_, text) = server.get("/api/v1/incidents/INC-1", &server.responder_token)?;
        let incident: Value = serde_json::from_str(&text)?;
        self.revision = incident["revision"].as_i64().context("the incident has no revision")?;
        Ok(())
    }
}

/// One answer of the API.
struct Read {
    path: &'static str,
    ms: f64,
    is_ok: bool,
}

/// A measurement.
struct Phase {
    measured: Measured,
    reads: Vec<Read>,
    /// CPU that the server's processes used, in cores.
    cores: f64,
}

impl Phase {
    fn measure(server: &Server, tokens: &[String], duration: Duration, changes: &mut Changes) -> anyhow::Result<Self> {
        let supervisor = server.processes().first().map(|(_, pid)| *pid).context("the server does not run")?;
        let (before, started) = (process_tree_usage(supervisor).cpu_s, Instant::now());
        let (measured, reads) = measure(server, None, || {
            std::thread::scope(|scope| {
                let readers = (0..READERS).zip(tokens.iter().cycle());
                let readers: Vec<_> = readers
                    .map(|(reader, token)| scope.spawn(move || read_api(server, token, reader, duration)))
                    .collect();
                changes.make(server, duration)?;
                let mut reads = Vec::new();
                for reader in readers {
                    reads.extend(reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?);
                }
                anyhow::Ok(reads)
            })
        })?;
        let cores = (process_tree_usage(supervisor).cpu_s - before) / started.elapsed().as_secs_f64();
        Ok(Self { measured, reads: reads?, cores })
    }

    /// The figures, with the 99th percentile of each path.
    fn row(&self) -> Value {
        let all = sorted_ms(self.reads.iter());
        let by_path: BTreeMap<&str, f64> = PATHS
            .into_iter()
            .map(|path| (path, quantile(&sorted_ms(self.reads.iter().filter(|read| read.path == path)), 0.99)))
            .collect();
        json!({ "seconds": self.measured.seconds, "samples_per_s": self.measured.samples_per_s(),
            "ack_p50_ms": self.measured.ack_ms(0.5), "ack_p99_ms": self.measured.ack_ms(0.99),
            "ack_errors": self.measured.ack_errors, "server_deaths": self.measured.server_deaths,
            "peak_rss_mib": self.measured.peak_rss_mib, "cores": self.cores, "api_requests": all.len(),
            "api_errors": self.reads.iter().filter(|read| !read.is_ok).count(), "api_p50_ms": quantile(&all, 0.5),
            "api_p99_ms": quantile(&all, 0.99), "api_p99_ms_by_path": by_path })
    }
}

fn sorted_ms<'a>(reads: impl Iterator<Item = &'a Read>) -> Vec<f64> {
    let mut ms: Vec<f64> = reads.map(|read| read.ms).collect();
    ms.sort_unstable_by(f64::total_cmp);
    ms
}

/// Asks for each path in turn.
fn read_api(server: &Server, token: &str, reader: usize, duration: Duration) -> Vec<Read> {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config.timeout_global(Some(REQUEST_TIMEOUT)).build().new_agent();
    let (started, mut reads) = (Instant::now(), Vec::new());
    // The readers do not ask for the same at the same time.
    for path in PATHS.into_iter().cycle().skip(reader * PATHS.len() / READERS) {
        if started.elapsed() >= duration {
            break;
        }
        let now = now_ms() / 1000;
        let range = if path.contains("/metrics") { format!("&start={}&end={now}", now - 900) } else { String::new() };
        let asked = Instant::now();
        let answer = agent
            .get(format!("{}{path}{range}", server.url))
            .header("Authorization", format!("Bearer {token}"))
            .call()
            .and_then(|mut answer| Ok((answer.status().as_u16(), answer.body_mut().read_to_vec()?)));
        let took = asked.elapsed();
        // Without a plan there is nothing to approve.
        let is_ok = answer.is_ok_and(|(status, _)| status == 200 || (status == 409 && path.ends_with("request")));
        reads.push(Read { path, ms: took.as_secs_f64() * 1000.0, is_ok });
        std::thread::sleep(READ_INTERVAL.saturating_sub(took));
    }
    reads
}

/// What the clients of live events got.
fn stream_row(received: &[Received], changes: &Changes) -> Value {
    let (mut seconds, mut missing) = (Vec::new(), 0_u64);
    for client in received {
        for (number, reported) in &changes.reported {
            match client.deployments.get(number) {
                Some(arrived) => seconds.push(arrived.saturating_duration_since(*reported).as_secs_f64()),
                None => missing += 1,
            }
        }
    }
    seconds.sort_unstable_by(f64::total_cmp);
    let count = |wanted: fn(&Received) -> bool| received.iter().filter(|client| wanted(client)).count();
    json!({ "lost": count(|client| client.is_lost), "reset": count(|client| client.resets > 0),
        "events": changes.reported.len(), "events_missing": missing,
        "events_repeated": received.iter().map(|client| client.repeated).sum::<u64>(),
        "behind": received.iter().filter(|client| client.revision < changes.revision).count(),
        "event_p50_s": quantile(&seconds, 0.5), "event_p99_s": quantile(&seconds, 0.99) })
}

/// Returns a line for each goal that the report misses.
fn missed_goals(report: &Value) -> Vec<String> {
    let number = |section: &str, field: &str| report[section][field].as_f64().unwrap_or(f64::NAN);
    let mut missed = Vec::new();
    let mut require = |holds: bool, text: String| {
        if !holds {
            missed.push(text);
        }
    };
    for section in ["alone", "beside"] {
        for field in ["ack_errors", "server_deaths", "api_errors"] {
            let count = number(section, field);
            require(count == 0.0, format!("{section}: {field} {count}"));
        }
    }
    let api = number("beside", "api_p99_ms");
    require(api < MAX_API_P99_MS, format!("p99 of the API is {api:.1} ms, the limit is {MAX_API_P99_MS}"));
    let (alone, beside) = (number("alone", "ack_p99_ms"), number("beside", "ack_p99_ms"));
    require(
        beside < UNHARMED_ACK_MS || beside <= alone * MAX_ACK_RATIO,
        format!("p99 of acknowledgements is {beside:.1} ms, {alone:.1} without streams"),
    );
    for (field, text) in [
        ("lost", "streams were ended"),
        ("reset", "clients were too slow"),
        ("events_missing", "events are missing"),
        ("events_repeated", "events came twice"),
        ("behind", "clients do not have the incident as it is"),
    ] {
        let count = number("streams", field);
        require(count == 0.0, format!("{count} {text}"));
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_missed_by_what_they_forbid() {
        let row =
            json!({ "ack_p99_ms": 20.0, "ack_errors": 0, "server_deaths": 0, "api_errors": 0, "api_p99_ms": 50.0 });
        let streams = json!({ "lost": 0, "reset": 0, "events_missing": 0, "events_repeated": 0, "behind": 0 });
        let report = json!({ "alone": row, "beside": row, "streams": streams });
        assert_eq!(missed_goals(&report), Vec::<String>::new());
        for (section, field, value) in [
            ("beside", "api_p99_ms", json!(100.0)),
            ("beside", "api_p99_ms", Value::Null),
            ("beside", "ack_p99_ms", json!(30.1)),
            ("beside", "ack_errors", json!(1)),
            ("streams", "lost", json!(1)),
            ("streams", "events_missing", json!(1)),
            ("streams", "behind", Value::Null),
        ] {
            let mut changed = report.clone();
            changed[section][field] = value;
            assert_eq!(missed_goals(&changed).len(), 1, "{section} {field}");
        }
    }
}
