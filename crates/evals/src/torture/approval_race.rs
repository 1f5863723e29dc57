//! Many people approve one plan at the same moment, with the state in PostgreSQL: the target must record one action,
//! one request succeeds, and the others are refused.
//!
//! Each round has a database and an incident of its own, and two servers on it. Approvals come through the API of both,
//! the incident's page and the command line; only the server that opened the incident may take one. Before the rounds,
//! two workers compete for effects of one database (see `competing_workers`).

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::{PostgresServer, Server, Shop, SyntheticTelemetry, now_ms, remote_write};

use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;
use crate::torture::competing_workers;

/// Approvals of one plan at the same time.
const APPROVALS: usize = 64;
/// Of these, through the page …
const BY_PAGE: usize = 8;
/// … through the command line …
const BY_COMMAND: usize = 2;
/// … and through the API of the other server.
const BY_OTHER_SERVER: usize = 16;
const AFFECTED_SERVICE: &str = "cart";
const UNAFFECTED_SERVICE: &str = "newsletter";
/// Healthy seconds of telemetry before the problem begins.
const HEALTHY_STEPS: usize = 60;
/// Exit code of a command whose request comes too late.
const CONFLICT_EXIT: i32 = 6;
/// An incident must await its approval, and be executed, within this time.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs as many rounds as kills were asked for.
pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("3d")?;
    let postgres = PostgresServer::start(&dir.join("postgres"))?;
    let mut result = competing_workers::run(&dir.join("workers"), &postgres, options)?;
    let shop = Shop::start(&dir.join("shop"), &[])?;
    let rounds = if options.mutant.is_some() && !result.is_clean() { 0 } else { options.kills.max(1) };
    for round in 0..rounds {
        let started = Instant::now();
        let (found, counts) = run_round(&dir.join(format!("round-{round}")), (&postgres, &shop), round, options)?;
        let seconds = started.elapsed().as_secs_f64();
        print_progress(format!("{} of {rounds}: {counts} ({seconds:.1} s)", round + 1));
        if found.is_clean() {
            std::fs::remove_dir_all(dir.join(format!("round-{round}")))?;
        }
        result.add(found);
        if options.mutant.is_some() && !result.is_clean() {
            break;
        }
    }
    drop((postgres, shop));
    if result.is_clean() || options.mutant.is_some() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(result)
}

/// One incident, and its approvals at once. Returns what was found, and the counts for people.
fn run_round(
    folder: &Path,
    (postgres, shop): (&PostgresServer, &Shop),
    round: u64,
    options: &BarOptions,
) -> anyhow::Result<(BarResult, String)> {
    let database = format!("race-{}-{round}", options.seed);
    postgres.create_database(&database)?;
    let url = postgres.url(&database);
    let mut environment = vec![
        ("WARDROOM_STORE__URL", url.as_str()),
        ("WARDROOM_STORE__PASSWORD", "env:TORTURE_DATABASE_PASSWORD"),
        ("TORTURE_DATABASE_PASSWORD", &postgres.password),
    ];
    if !options.mutant_name().is_empty() {
        environment.push(("WARDROOM_MUTANT", options.mutant_name()));
    }
    let server = Server::start(&folder.join("first"), &shop.target(AFFECTED_SERVICE), &environment)?;
    let other = Server::start(&folder.join("other"), &shop.target(AFFECTED_SERVICE), &environment)?;
    let plan = await_plan(&server)?;
    let since = Timestamp::from_millis(now_ms());
    let answers = approve_at_once(&server, &other, &plan)?;
    let executed = await_execution(&server)?;
    let effects = shop.effects_since(since)?.len() as u64;
    let ledger = std::fs::read_to_string(folder.join("first/data/executor/ledger.jsonl"))?;
    let recorded = ledger.lines().filter(|line| line.contains("\"authorized\"") && line.contains(&plan)).count();
    let count = |wanted: Answer| answers.iter().filter(|answer| **answer == wanted).count();
    let (accepted, refused) = (count(Answer::Accepted), count(Answer::Refused));
    let mut result = BarResult { issued: 1, acked: effects.min(1), ..BarResult::default() };
    result.missing = 1_u64.saturating_sub(effects);
    result.duplicate = effects.saturating_sub(1);
    let counts = format!("{accepted} accepted, {refused} refused, {recorded} recorded, {effects} effects");
    if effects != 1 || (accepted, recorded) != (1, 1) || refused != APPROVALS - 1 || executed != "applied" {
        result.faults.push(format!("round {round}: {counts}, execution {executed}: {answers:?}"));
    }
    Ok((result, counts))
}

/// The answer to one approval.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    Refused,
    /// Neither: its status or exit code.
    Other(String),
}

impl Answer {
    /// Of an HTTP status. The other server refuses with 503: the incident is not its own.
    fn of_status(status: u16, refusals: &[u16]) -> Self {
        match status {
            202 | 303 => Self::Accepted,
            status if refusals.contains(&status) => Self::Refused,
            status => Self::Other(status.to_string()),
        }
    }
}

/// Sends telemetry with a problem until a plan awaits its approval; returns the plan's hash.
fn await_plan(server: &Server) -> anyhow::Result<String> {
    let started = Instant::now();
    let mut telemetry = SyntheticTelemetry::new(now_ms() - 400_000, &[AFFECTED_SERVICE, UNAFFECTED_SERVICE]);
    for step in 0.. {
        ensure!(started.elapsed() < ROUND_TIMEOUT, "no plan awaits an approval");
        let affected: &[&str] = if step < HEALTHY_STEPS { &[] } else { &[AFFECTED_SERVICE] };
        ensure!(server.write(&remote_write::body(telemetry.next_second(affected)))? == 204, "samples are not accepted");
        let Some(incident) = incident(server)? else { continue };
        if incident["state"] == "awaiting_approval" {
            return Ok(incident["plan_sha256"].as_str().context("the incident has no plan")?.to_owned());
        }
    }
    unreachable!("the loop ends by its timeout")
}

/// Approves the plan from many threads at once, in several ways.
fn approve_at_once(server: &Server, other: &Server, plan_sha256: &str) -> anyhow::Result<Vec<Answer>> {
    let start = Barrier::new(APPROVALS);
    let (_, page) = server.get("/incidents/INC-1", &server.responder_token)?;
    let form_token = form_token(&page, plan_sha256).context("the page has no form for the plan")?;
    let form = format!("plan_sha256={plan_sha256}&form_token={form_token}&reason=the+race");
    let body = json!({ "plan_sha256": plan_sha256, "reason": "the race" });
    let by_api = |server: &Server, refusals: &[u16]| {
        let answer = server.post_json("/api/v1/incidents/INC-1/approve", &server.responder_token, &body);
        answer.map_or_else(|error| Answer::Other(error.to_string()), |(status, _)| Answer::of_status(status, refusals))
    };
    let by_page = || {
        let headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Origin", server.url.as_str())];
        let answer = server.post("/incidents/INC-1/approve", &server.responder_token, &headers, form.as_bytes());
        answer.map_or_else(|error| Answer::Other(error.to_string()), |(status, ..)| Answer::of_status(status, &[409]))
    };
    let by_command = || {
        let arguments = ["incidents", "approve", "INC-1", "--plan", plan_sha256, "--url", &server.url];
        match server.run(&[&arguments[..], &["--token", &server.responder_token]].concat()) {
            Ok((Some(0), _)) => Answer::Accepted,
            Ok((Some(CONFLICT_EXIT), _)) => Answer::Refused,
            other => Answer::Other(format!("{other:?}")),
        }
    };
    let answers = std::thread::scope(|scope| {
        let approvals: Vec<_> = (0..APPROVALS)
            .map(|number| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    match number {
                        number if number < BY_PAGE => by_page(),
                        number if number < BY_PAGE + BY_COMMAND => by_command(),
                        number if number < BY_PAGE + BY_COMMAND + BY_OTHER_SERVER => by_api(other, &[409, 503]),
                        _ => by_api(server, &[409]),
                    }
                })
            })
            .collect();
        let panicked = |_| Answer::Other("a thread panicked".to_owned());
        approvals.into_iter().map(|approval| approval.join().unwrap_or_else(panicked)).collect()
    });
    Ok(answers)
}

/// The token of the form that approves a plan: it comes with the plan's hash.
fn form_token<'a>(page: &'a str, plan_sha256: &str) -> Option<&'a str> {
    let (_, form) = page.split_once(&format!("name=\"plan_sha256\" value=\"{plan_sha256}\""))?;
    let (_, rest) = form.split_once("name=\"form_token\" value=\"")?;
    rest.split('"').next()
}

/// Waits for the outcome of the execution.
fn await_execution(server: &Server) -> anyhow::Result<String> {
    let started = Instant::now();
    while started.elapsed() < ROUND_TIMEOUT {
        if let Some(incident) = incident(server)?
            && let Some(outcome) = incident["execution"].as_str()
        {
            return Ok(outcome.to_owned());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok("none".to_owned())
}

fn incident(server: &Server) -> anyhow::Result<Option<Value>> {
    let (status, text) = server.get("/api/v1/incidents/INC-1", &server.responder_token)?;
    Ok(if status == 200 { Some(serde_json::from_str(&text)?) } else { None })
}
