//! Bar 3h: one target does not answer for `kills` seconds, while an approved action on it waits. Detection and the
//! actions on everything else must go on as if it were not there.
//!
//! A thousand incidents that await their approval are there, too (fewer in the short form). What is measured:
//!
//! | figure | limit |
//! |---|---|
//! | CPU of a thousand incidents that await an approval | 1 % of a core |
//! | longest time for which detection had a record that it had not processed | 2 s |
//! | p99 from the request of an approval to the request of the action at its target | 500 ms |
//! | longest time from the request to stop all actions until server and executor have stopped them | 1 s |
//!
//! The limits are those of a release build on a machine that does nothing else. A mutant must be detected by its
//! effects: its build is not optimised, and is not held to them.
//!
//! The target of every plan is a supervisor in this process, which counts the effects: each approved action once, those
//! on the target that hangs never, and none while everything is stopped.

mod control_api;
mod copied_incidents;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use wardroom_domain::executor::Response;
use wardroom_testing::{Server, SyntheticTelemetry, now_ms, remote_write};

use crate::bar::{BarOptions, BarResult};
use crate::bench::process_usage::process_tree_usage;
use crate::bench::statistics::quantile;
use crate::progress::print_progress;
use crate::server_metrics::detector_lag_records;
use crate::torture::executor_socket::ask_executor;
use control_api::ControlApi;
use copied_incidents::{Awaiting, copy_incident};

/// The service of the incident that is copied; its name is as long as those of the copies, and in no other word.
const FIRST_SERVICE: &str = "service-0000";
/// The service that has a problem while another one's target hangs.
const SECOND_SERVICE: &str = "orders";
const HEALTHY_SERVICE: &str = "newsletter";
/// Seconds of telemetry before the first problem.
const HEALTHY_STEPS: usize = 60;
/// Seconds of telemetry after it, so that nothing joins it any more.
const RECOVERY_STEPS: usize = 150;
/// Time after a start, or after telemetry, until tables are written and entries are signed.
const QUIET_AFTER: Duration = Duration::from_secs(15);
/// Duration of a second of telemetry while the problem is looked for.
const FAST_SECOND: Duration = Duration::from_millis(200);
/// Limits; see above.
const MAX_WAITING_CORE: f64 = 0.01;
const MAX_LAG: Duration = Duration::from_secs(2);
const MAX_START: Duration = Duration::from_millis(500);
const MAX_STOP: Duration = Duration::from_secs(1);
/// A stop must be in force for this long before it ends.
const STOPPED_DURATION: Duration = Duration::from_millis(300);
/// Longest wait for anything that happens within seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How much is done in a run.
struct Extent {
    /// How long the target hangs.
    hang: Duration,
    copies: usize,
    approvals: usize,
    stops: usize,
    cpu: Duration,
}

impl Extent {
    /// The long form from five minutes on.
    const fn of(seconds: u64) -> Self {
        let hang = Duration::from_secs(seconds);
        if seconds >= 300 {
            Self { hang, copies: 1000, approvals: 250, stops: 20, cpu: Duration::from_secs(30) }
        } else {
            Self { hang, copies: 100, approvals: 60, stops: 3, cpu: Duration::from_secs(5) }
        }
    }
}

/// Runs it once.
pub(super) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let (dir, extent) = (options.create_dir("3h")?, Extent::of(options.kills));
    let (control, mut result) = (ControlApi::start()?, BarResult::default());
    let services: Vec<String> = (1..=extent.copies).map(|number| format!("service-{number:04}")).collect();
    let targets = services.iter().map(String::as_str).chain([FIRST_SERVICE, SECOND_SERVICE]);
    let targets: String = targets.map(|service| control.target(service)).collect();
    let mut environment = vec![("WARDROOM_RESPOND__HOLD", "6"), ("WARDROOM_RESPOND__APPROVAL_MINUTES", "120")];
    if !options.mutant_name().is_empty() {
        environment.push(("WARDROOM_MUTANT", options.mutant_name()));
    }
    let mut server = Server::start(&dir, &targets, &environment)?;
    let mut telemetry = SyntheticTelemetry::new(now_ms() - 900_000, &[FIRST_SERVICE, SECOND_SERVICE, HEALTHY_SERVICE]);
    await_first_incident(&server, &mut telemetry)?;
    let alone = core_share(&server, extent.cpu)?;
    server.stop()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let copies = runtime.block_on(copy_incident(&dir.join("data"), FIRST_SERVICE, &services))?;
    server.restart()?;
    let waiting = core_share(&server, extent.cpu)?;
    print_progress(format!(
        "CPU: {:.2} % of a core with one incident that awaits its approval, {:.2} % with {}",
        alone * 100.0,
        waiting * 100.0,
        copies.len() + 1
    ));
    let is_timed = options.mutant.is_none();
    let run = Run { server: &server, control: &control, extent, copies: &copies, is_timed };
    let waiting_percent = (waiting - alone).max(0.0) * 100.0;
    run.check(&mut result, "waiting_core_percent", waiting_percent, MAX_WAITING_CORE * 100.0);
    run.measure(&mut telemetry, &mut result)?;
    drop(server);
    if result.is_clean() || options.mutant.is_some() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(result)
}

/// Sends telemetry with a problem until its plan awaits an approval.
fn await_first_incident(server: &Server, telemetry: &mut SyntheticTelemetry) -> anyhow::Result<()> {
    let started = Instant::now();
    for step in 0.. {
        ensure!(started.elapsed() < TIMEOUT, "no plan awaits an approval");
        let affected: &[&str] = if step < HEALTHY_STEPS { &[] } else { &[FIRST_SERVICE] };
        ensure!(server.write(&remote_write::body(telemetry.next_second(affected)))? == 204, "samples are not accepted");
        if step > HEALTHY_STEPS && incident(server, "INC-1")?["state"] == "awaiting_approval" {
            // The first of the escalation route is asked within a second.
            std::thread::sleep(Duration::from_secs(3));
            return Ok(());
        }
    }
    unreachable!("the loop ends by its timeout")
}

/// Share of a core that the server's processes use while nothing arrives.
fn core_share(server: &Server, duration: Duration) -> anyhow::Result<f64> {
    std::thread::sleep(QUIET_AFTER);
    let supervisor = server.processes().first().map(|(_, pid)| *pid).context("the server does not run")?;
    let before = process_tree_usage(supervisor).cpu_s;
    let started = Instant::now();
    std::thread::sleep(duration);
    Ok((process_tree_usage(supervisor).cpu_s - before) / started.elapsed().as_secs_f64())
}

fn incident(server: &Server, id: &str) -> anyhow::Result<Value> {
    let (status, text) = server.get(&format!("/api/v1/incidents/{id}"), &server.responder_token)?;
    Ok(if status == 200 { serde_json::from_str(&text)? } else { Value::Null })
}

/// A run while the target hangs.
struct Run<'a> {
    server: &'a Server,
    control: &'a ControlApi,
    extent: Extent,
    copies: &'a [Awaiting],
    /// Whether figures must be below their limits.
    is_timed: bool,
}

impl Run<'_> {
    fn check(&self, result: &mut BarResult, name: &'static str, value: f64, limit: f64) {
        if self.is_timed {
            result.check(name, value, limit);
        } else {
            result.figures.insert(name, value);
        }
    }

    fn measure(&self, telemetry: &mut SyntheticTelemetry, result: &mut BarResult) -> anyhow::Result<()> {
        for _ in 0..RECOVERY_STEPS {
            self.send(telemetry, &[])?;
        }
        let (stuck, rest) = self.copies.split_first().context("there is no copy")?;
        self.control.hang(&stuck.service);
        self.approve(stuck)?;
        let began = Instant::now();
        let (is_over, is_slow) = (AtomicBool::new(false), AtomicBool::new(true));
        std::thread::scope(|scope| {
            let lag = scope.spawn(|| longest_lag(self.server, &is_over));
            let sending = scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    let second = Instant::now();
                    let is_slow = is_slow.load(Ordering::Acquire);
                    let affected: &[&str] = if is_slow { &[SECOND_SERVICE] } else { &[] };
                    self.send(telemetry, affected)?;
                    // Telemetry time passes faster until the problem is found.
                    let interval = if is_slow { FAST_SECOND } else { Duration::from_secs(1) };
                    std::thread::sleep(interval.saturating_sub(second.elapsed()));
                }
                anyhow::Ok(())
            });
            let acted = self.act(rest, &is_slow, began, result);
            is_over.store(true, Ordering::Release);
            let joined = |_| anyhow::anyhow!("a thread panicked");
            sending.join().map_err(joined)??;
            let lag = lag.join().map_err(joined)??;
            self.check(result, "detect_lag_s", lag.as_secs_f64(), MAX_LAG.as_secs_f64());
            acted
        })?;
        let (state, unanswered) = (incident(self.server, &stuck.id)?["state"].clone(), self.control.unanswered());
        let effects = self.control.effects(&stuck.service).len() as u64;
        print_progress(format!(
            "the target did not answer {unanswered} requests in {:.0} s; its incident is {state}, {effects} effects",
            began.elapsed().as_secs_f64()
        ));
        result.spurious += effects;
        if unanswered == 0 {
            result.faults.push("the target that hangs was never asked".to_owned());
        }
        Ok(())
    }

    /// What goes on while the target hangs.
    fn act(
        &self,
        copies: &[Awaiting],
        is_slow: &AtomicBool,
        began: Instant,
        result: &mut BarResult,
    ) -> anyhow::Result<()> {
        let (measured, rest) = copies.split_at(self.extent.approvals.min(copies.len()));
        let mut seconds: Vec<f64> =
            measured.iter().map(|copy| self.start_seconds(copy)).collect::<anyhow::Result<_>>()?;
        seconds.sort_unstable_by(f64::total_cmp);
        print_progress(format!(
            "from approval to start: p50 {:.0} ms, p99 {:.0} ms, most {:.0} ms of {}",
            quantile(&seconds, 0.5) * 1000.0,
            quantile(&seconds, 0.99) * 1000.0,
            quantile(&seconds, 1.0 - f64::EPSILON) * 1000.0,
            seconds.len()
        ));
        self.check(result, "approval_to_start_p99_s", quantile(&seconds, 0.99), MAX_START.as_secs_f64());
        self.detect_and_act(is_slow)?;
        let mut rest = rest.iter();
        let mut longest = Duration::ZERO;
        for _ in 0..self.extent.stops {
            longest = longest.max(self.stop_round(rest.next().context("too few copies")?, result)?);
        }
        self.check(result, "stop_s", longest.as_secs_f64(), MAX_STOP.as_secs_f64());
        // The rest of the time, one action after the other.
        while began.elapsed() < self.extent.hang {
            let pause = Instant::now();
            if let Some(copy) = rest.next() {
                self.start_seconds(copy)?;
            }
            std::thread::sleep(Duration::from_secs(5).saturating_sub(pause.elapsed()));
        }
        let started = self.copies.iter().skip(1).filter(|copy| !self.control.effects(&copy.service).is_empty());
        let started: Vec<&Awaiting> = started.collect();
        for copy in &started {
            result.duplicate += self.control.effects(&copy.service).len() as u64 - 1;
        }
        result.acked += started.len() as u64;
        result.issued += started.len() as u64;
        Ok(())
    }

    /// Approves a plan; returns the time from the request to that of the action at the target.
    fn start_seconds(&self, copy: &Awaiting) -> anyhow::Result<f64> {
        let requested = Instant::now();
        self.approve(copy)?;
        Ok(self.await_effect(&copy.service)?.saturating_duration_since(requested).as_secs_f64())
    }

    fn await_effect(&self, service: &str) -> anyhow::Result<Instant> {
        let started = Instant::now();
        loop {
            if let Some(at) = self.control.effects(service).first() {
                return Ok(*at);
            }
            ensure!(started.elapsed() < TIMEOUT, "the action on {service} did not start");
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn approve(&self, copy: &Awaiting) -> anyhow::Result<()> {
        let body = json!({ "plan_sha256": copy.plan_sha256, "reason": "measured" });
        let path = format!("/api/v1/incidents/{}/approve", copy.id);
        let (status, answer) = self.server.post_json(&path, &self.server.responder_token, &body)?;
        ensure!(status == 202, "{}: {status} {answer}", copy.id);
        Ok(())
    }

    /// A real problem: it is detected, its plan is approved and carried out.
    fn detect_and_act(&self, is_slow: &AtomicBool) -> anyhow::Result<()> {
        let (id, started) = (format!("INC-{}", self.copies.len() + 2), Instant::now());
        loop {
            let found = incident(self.server, &id)?;
            if found["state"] == "awaiting_approval" {
                let plan_sha256 = found["plan_sha256"].as_str().context("no plan")?.to_owned();
                let service = SECOND_SERVICE.to_owned();
                let seconds = self.start_seconds(&Awaiting { id, service, plan_sha256 })?;
                is_slow.store(false, Ordering::Release);
                print_progress(format!(
                    "a problem beside it: plan after {:.0} s, action {:.0} ms after its approval",
                    started.elapsed().as_secs_f64(),
                    seconds * 1000.0
                ));
                return Ok(());
            }
            ensure!(started.elapsed() < TIMEOUT, "the problem of {SECOND_SERVICE} has no plan: {found}");
            std::thread::sleep(POLL_INTERVAL * 10);
        }
    }

    /// Stops everything, approves a plan meanwhile, and resumes. Returns the time until the stop was in force.
    fn stop_round(&self, copy: &Awaiting, result: &mut BarResult) -> anyhow::Result<Duration> {
        let (server, token) = (self.server, &self.server.responder_token);
        let requested = Instant::now();
        let (status, answer) = server.post_json("/api/v1/stop-all", token, &json!({ "reason": "measured" }))?;
        ensure!(status == 200, "stop-all: {status} {answer}");
        let in_force = loop {
            let by_executor = matches!(
                ask_executor(server, &json!({ "op": "stop_state" }))?,
                Response::StopState { stopped: Some(_) }
            );
            let by_server = server.get("/api/v1/stop-all", token)?.1.contains("\"stopped\":true");
            if by_executor && by_server {
                break requested.elapsed();
            }
            ensure!(requested.elapsed() < TIMEOUT, "the stop is not in force");
            std::thread::sleep(POLL_INTERVAL);
        };
        self.approve(copy)?;
        std::thread::sleep(STOPPED_DURATION);
        let effects = self.control.effects(&copy.service).len() as u64;
        if effects > 0 {
            result.spurious += effects;
            result.faults.push(format!("{} was acted on while everything was stopped", copy.service));
        }
        let (status, answer) = server.post_json("/api/v1/resume", token, &json!({}))?;
        ensure!(status == 200, "resume: {status} {answer}");
        self.await_effect(&copy.service)?;
        Ok(in_force)
    }

    fn send(&self, telemetry: &mut SyntheticTelemetry, affected: &[&str]) -> anyhow::Result<()> {
        let status = self.server.write(&remote_write::body(telemetry.next_second(affected)))?;
        ensure!(status == 204, "samples are not accepted: {status}");
        Ok(())
    }
}

/// The longest time for which detection had not processed a record, from one look without any to the next.
fn longest_lag(server: &Server, is_over: &AtomicBool) -> anyhow::Result<Duration> {
    let (mut longest, mut idle_at) = (Duration::ZERO, Instant::now());
    while !is_over.load(Ordering::Acquire) {
        let asked = Instant::now();
        let lag = detector_lag_records(server)?;
        longest = longest.max(idle_at.elapsed());
        if lag == 0.0 {
            idle_at = asked;
        }
        std::thread::sleep(POLL_INTERVAL * 2);
    }
    Ok(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_form_has_the_numbers_of_the_bar() {
        let long = Extent::of(600);
        assert!(long.copies >= 1000 && long.approvals >= 200 && long.stops >= 20);
        let needed = long.approvals + long.stops + 600 / 5;
        assert!(long.copies > needed, "{needed} copies are needed");
        assert_eq!(FIRST_SERVICE.len(), "service-1000".len());
    }
}
