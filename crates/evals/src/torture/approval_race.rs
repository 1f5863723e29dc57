//! Many people approve one plan at the same moment, with the state in PostgreSQL: the target must record one action,
//! one request succeeds, and the others are refused as late.
//!
//! Each round has a data folder, a database and an incident of its own.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::{PostgresServer, Server, Shop, SyntheticTelemetry, now_ms, remote_write};

use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

/// Approvals of one plan at the same time.
const APPROVALS: usize = 64;
const AFFECTED_SERVICE: &str = "cart";
const UNAFFECTED_SERVICE: &str = "newsletter";
/// Healthy seconds of telemetry before the problem begins.
const HEALTHY_STEPS: usize = 60;
/// An incident must await its approval, and be executed, within this time.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs as many rounds as kills were asked for.
pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("3d")?;
    let postgres = PostgresServer::start(&dir.join("postgres"))?;
    let shop = Shop::start(&dir.join("shop"), &[])?;
    let mut result = BarResult::default();
    for round in 0..options.kills.max(1) {
        let started = Instant::now();
        let database = format!("race-{round}");
        postgres.create_database(&database)?;
        let url = postgres.url(&database);
        let environment = [
            ("WARDROOM_STORE__URL", url.as_str()),
            ("WARDROOM_STORE__PASSWORD", "env:TORTURE_DATABASE_PASSWORD"),
            ("TORTURE_DATABASE_PASSWORD", &postgres.password),
        ];
        let folder = dir.join(&database);
        let mut server = Server::start(&folder, &shop.target(AFFECTED_SERVICE), &environment)?;
        let plan = await_plan(&server)?;
        let since = Timestamp::from_millis(now_ms());
        let statuses = approve_at_once(&server, &plan);
        let executed = await_execution(&server)?;
        let effects = shop.effects_since(since)?.len() as u64;
        let accepted = statuses.iter().filter(|status| **status == 202).count() as u64;
        let refused = statuses.iter().filter(|status| **status == 409).count() as u64;
        result.issued += 1;
        result.acked += effects.min(1);
        result.missing += 1_u64.saturating_sub(effects);
        result.duplicate += effects.saturating_sub(1);
        if effects != 1 || accepted == 0 || accepted + refused != APPROVALS as u64 || executed != "applied" {
            result.faults.push(format!(
                "round {round}: {effects} effects, execution {executed}, {accepted} accepted and {refused} refused of \
                 {APPROVALS}: {statuses:?}"
            ));
        }
        server.kill();
        let seconds = started.elapsed().as_secs_f64();
        print_progress(format!(
            "{round:>3}: {accepted} accepted, {refused} refused, {effects} effects ({seconds:.1} s)"
        ));
        if result.is_clean() {
            std::fs::remove_dir_all(folder)?;
        }
    }
    drop((postgres, shop));
    if result.is_clean() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(result)
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

/// Approves the plan from many threads at once; returns the status of each response.
fn approve_at_once(server: &Server, plan_sha256: &str) -> Vec<u16> {
    let start = Barrier::new(APPROVALS);
    let body = json!({ "plan_sha256": plan_sha256, "reason": "the race" });
    std::thread::scope(|scope| {
        let approvals: Vec<_> = (0..APPROVALS)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let path = "/api/v1/incidents/INC-1/approve";
                    server.post_json(path, &server.responder_token, &body).map_or(0, |(status, _)| status)
                })
            })
            .collect();
        approvals.into_iter().map(|approval| approval.join().unwrap_or(0)).collect()
    })
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
