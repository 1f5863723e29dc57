//! The whole incident response on synthetic telemetry, killed at every crash point.
//!
//! Each cycle runs one scenario on a new data folder with one kill. The server dies at its crash point (or at a random
//! moment), is restarted, and must bring the incident to the scenario's final state with exactly the scenario's
//! effects, which the target records: an action carried out twice is a `duplicate`, one not carried out is `missing`.
//!
//! Crash points are the transitions of the incident's state machine, those of the effects' rows, and the steps of the
//! executor, each before and after it is persisted. Bar 3a passes those of the first two on PostgreSQL.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::{PostgresServer, Server, Shop, SyntheticTelemetry, now_ms, remote_write, server};

use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

/// The service with the problem, and one that it does not affect.
const AFFECTED_SERVICE: &str = "cart";
const UNAFFECTED_SERVICE: &str = "newsletter";
/// Cycles that run at the same time: most of a cycle is spent waiting. Each worker has its own targets.
const WORKERS: usize = 2;
/// A cycle must reach its final state within this time.
const CYCLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Healthy seconds of telemetry before the problem begins: a signal is compared after forty.
const HEALTHY_STEPS: usize = 60;
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Random kills that come after the end of their cycle are drawn again, up to this many times.
const MAX_LATE_KILLS: u64 = 1000;

/// What happens to the incident, and how it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// The plan is approved and helps; resolved.
    Resolved,
    /// The plan, a change of a setting, does not help and is undone.
    DoesNotHelp,
    /// The service recovers and degrades again within the hold time.
    Relapse,
    /// The target accepts the action and does nothing.
    ActionIgnored,
    /// A user rejects the plan, then closes the incident.
    RejectedAndClosed,
    /// A user rejects the plan, then marks the incident as noise.
    RejectedAsNoise,
    /// A user rejects the plan, closes the incident, reopens it, and rejects the plan that it gets then.
    Reopened,
    /// A user marks the incident as noise while the plan awaits approval.
    Noise,
    /// The executor has no such target.
    NoPlan,
    /// A check chooses a plan of two steps; the target of the second one accepts it and does nothing, so that the first
    /// one is undone.
    SecondStepIgnored,
    /// A plan of two steps does not help, and both are undone.
    StepsDoNotHelp,
}

impl Scenario {
    /// Scenarios for random kills.
    const RANDOM: [Self; 5] =
        [Self::Resolved, Self::DoesNotHelp, Self::Relapse, Self::SecondStepIgnored, Self::StepsDoNotHelp];

    /// Returns the final state, and how many actions and undos the target must record.
    const fn expected_end(self) -> (&'static str, u64, u64) {
        match self {
            Self::Resolved => ("resolved", 1, 0),
            Self::DoesNotHelp | Self::SecondStepIgnored => ("escalated", 1, 1),
            Self::StepsDoNotHelp => ("escalated", 2, 2),
            Self::Relapse => ("escalated", 1, 0),
            Self::ActionIgnored | Self::NoPlan | Self::Reopened => ("escalated", 0, 0),
            Self::RejectedAndClosed => ("closed", 0, 0),
            Self::RejectedAsNoise | Self::Noise => ("suppressed", 0, 0),
        }
    }

    /// Returns the scenario that passes a crash point.
    fn for_crash_point(point: &str) -> Self {
        let step = point.rsplit_once(':').map_or(point, |(step, _)| step);
        match step {
            "incident:investigating-escalated" => Self::NoPlan,
            "incident:awaiting_approval-escalated" | "incident:escalated-closed" => Self::RejectedAndClosed,
            "incident:closed-investigating" => Self::Reopened,
            "incident:awaiting_approval-suppressed" => Self::Noise,
            "incident:escalated-suppressed" => Self::RejectedAsNoise,
            "incident:mitigating-escalated" => Self::ActionIgnored,
            "incident:verifying-escalated"
            | "adapter:undo"
            | "ledger:undone"
            | "ledger:settled"
            | "effect:undo-finish"
            | "effect:undo-lease"
            | "effect:settle-finish"
            | "effect:settle-lease" => Self::DoesNotHelp,
            "incident:mitigated-escalated" => Self::Relapse,
            "incident:plan_prepared"
            | "incident:step_ended"
            | "effect:read-finish"
            | "effect:read-lease"
            | "effect:execution_later-finish"
            | "effect:execution_later-lease" => Self::SecondStepIgnored,
            "effect:undo_later-finish" | "effect:undo_later-lease" => Self::StepsDoNotHelp,
            _ => Self::Resolved,
        }
    }

    /// Whether the plan has two steps.
    const fn has_steps(self) -> bool {
        matches!(self, Self::SecondStepIgnored | Self::StepsDoNotHelp)
    }
}

/// The runbook of the scenarios with steps, for the cause that the synthetic telemetry shows. Its check reads what a
/// program of the system returns.
const RUNBOOK: &str = r#"---
id: slow-dependency
title: A dependency responds slowly
causes: [slow-dependency]
when: without-deployment
symptoms: ["Slow responses"]
checks: ["Is it slow for all callers?"]
reads:
  - { id: reachable, question: "Does the host answer?", tool: exec, operation: answer, target: host }
actions:
  - when:
      - { read: reachable, value: /exit_code, equals: 0 }
    tool: process
    operation: settings
    target: cart
    arguments: { key: pool_size, value: 7 }
    then:
      - { tool: process, operation: settings, target: newsletter, arguments: { key: pool_size, value: 7 } }
  - { tool: process, operation: restart, target: cart }
---
The second action is chosen if the check is not read as it should be: then the effects are not those expected.
"#;
/// The target of the check.
const HOST_TARGET: &str = "  - tool: exec
    name: host
    blast-radius: nothing
    commands:
      - { name: answer, summary: does the host answer, read-only: true, run: { program: /bin/true, arguments: [] } }
";

/// When the server is killed.
#[derive(Clone, Debug)]
enum Kill {
    /// At a crash point of the binary.
    Point(String),
    /// After a time.
    After(KilledProcesses, Duration),
}

/// Processes of a timed kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KilledProcesses {
    Server,
    Executor,
    All,
}

/// With the state in SQLite, all crash points.
pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    run_all(options, "loop", None)
}

/// With the state in PostgreSQL, the crash points of what is written there.
pub(crate) fn run_on_postgres(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("3a-database")?;
    let result = run_all(options, "3a", Some(&PostgresServer::start(&dir)?));
    std::fs::remove_dir_all(&dir)?;
    result
}

fn run_all(options: &BarOptions, name: &str, postgres: Option<&PostgresServer>) -> anyhow::Result<BarResult> {
    let dir = options.create_dir(name)?;
    let (_, points) = server::run(&["crash-points"])?;
    // Points close to the target come first: mutants are detected there soonest.
    // Two transitions need a diagnosis that changes after half a minute; the response has tests of them. An incident
    // is reopened by one code, whatever its end was.
    let is_left_out = |point: &&str| {
        [
            "incident:awaiting_approval-investigating",
            "incident:escalated-awaiting_approval",
            "incident:resolved-investigating",
            "incident:suppressed-investigating",
        ]
        .iter()
        .any(|transition| point.starts_with(transition))
    };
    let mut points: Vec<String> = points.lines().filter(|point| !is_left_out(point)).map(str::to_owned).collect();
    points.sort_by_key(|point| (!point.starts_with("adapter:"), !point.starts_with("ledger:")));
    if postgres.is_some() {
        points.retain(|point| point.starts_with("incident:") || point.starts_with("effect:"));
    }
    print_progress(format!("{} crash points", points.len()));
    let result = BarResult { points: points.len() as u64, ..BarResult::default() };
    let random = StdRng::seed_from_u64(options.seed);
    let run = Mutex::new(Run { points, random, started: 0, late_kills: 0, done: 0, caught: false, result });
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                scope.spawn({
                    let (run, dir) = (&run, &dir);
                    move || work(worker, run, (dir, postgres), options)
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    let result = run.into_inner().unwrap_or_else(PoisonError::into_inner).result;
    if result.is_clean() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(result)
}

/// State of a run, shared by its workers.
struct Run {
    points: Vec<String>,
    random: StdRng,
    /// Kills drawn so far, without those that came too late.
    started: u64,
    late_kills: u64,
    /// Finished cycles.
    done: u64,
    /// A mutant was caught: no further cycle is started.
    caught: bool,
    result: BarResult,
}

impl Run {
    /// Draws the next kill: each crash point once, then random moments.
    fn next_kill(&mut self, kills: u64) -> Option<(u64, Kill, Scenario)> {
        if self.caught || self.started >= kills {
            return None;
        }
        let number = self.started;
        self.started += 1;
        Some(match self.points.get(number as usize) {
            Some(point) => (number, Kill::Point(point.clone()), Scenario::for_crash_point(point)),
            None => {
                let (kill, scenario) = self.random_kill();
                (number, kill, scenario)
            }
        })
    }

    fn random_kill(&mut self) -> (Kill, Scenario) {
        let processes =
            [KilledProcesses::Server, KilledProcesses::Executor, KilledProcesses::All][self.random.random_range(0..3)];
        let after = Duration::from_millis(self.random.random_range(0..1300));
        (Kill::After(processes, after), Scenario::RANDOM[self.random.random_range(0..Scenario::RANDOM.len())])
    }
}

/// Runs cycles until there are no more.
fn work(
    worker: usize,
    run: &Mutex<Run>,
    (dir, postgres): (&Path, Option<&PostgresServer>),
    options: &BarOptions,
) -> anyhow::Result<()> {
    let lock = || run.lock().unwrap_or_else(PoisonError::into_inner);
    let targets = [
        Shop::start(&dir.join(format!("shop-{worker}")), &[])?,
        Shop::start(&dir.join(format!("shop-{worker}-ignoring")), &["--ignore-control"])?,
    ];
    loop {
        let Some((number, mut kill, mut scenario)) = lock().next_kill(options.kills) else { return Ok(()) };
        let mut attempt = 0;
        let (mut cycle, folder, started) = loop {
            let started = Instant::now();
            let folder = dir.join(format!("cycle-{number}-{attempt}"));
            let mut cycle = Cycle::new((&folder, postgres), &targets, scenario, &kill, options)?;
            cycle.run()?;
            if matches!(kill, Kill::Point(_)) || cycle.killed {
                break (cycle, folder, started);
            }
            // The cycle ended before the kill: another one is drawn.
            attempt += 1;
            let mut run = lock();
            run.late_kills += 1;
            ensure!(run.late_kills < MAX_LATE_KILLS, "random kills come too late");
            (kill, scenario) = run.random_kill();
        };
        let found = cycle.compare(&targets[usize::from(scenario == Scenario::ActionIgnored)])?;
        let outcome = if found.is_clean() { "ok".to_owned() } else { found.faults.join("; ") };
        if found.is_clean() {
            drop(cycle);
            std::fs::remove_dir_all(folder)?;
        }
        let mut run = lock();
        run.done += 1;
        let (done, seconds) = (run.done, started.elapsed().as_secs_f64());
        print_progress(format!("{done:>3} of {} {scenario:?} {kill:?}: {outcome} ({seconds:.1} s)", options.kills));
        run.result.add(found);
        if options.mutant.is_some() && !run.result.is_clean() && !run.caught {
            print_progress("caught");
            run.caught = true;
        }
    }
}

/// One scenario on its own data folder.
struct Cycle {
    scenario: Scenario,
    kill: Kill,
    server: Server,
    telemetry: SyntheticTelemetry,
    started: Instant,
    killed: bool,
    /// File that the binary creates at its crash point.
    mark: PathBuf,
    problem_started: bool,
}

impl Cycle {
    fn new(
        (dir, postgres): (&Path, Option<&PostgresServer>),
        targets: &[Shop; 2],
        scenario: Scenario,
        kill: &Kill,
        options: &BarOptions,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        // In a folder that the sandboxed server may write to.
        let mark = dir.join("data/state/crash-mark");
        let mark_text = mark.display().to_string();
        let mut environment = vec![
            ("WARDROOM_RESPOND__HOLD", "6"),
            ("WARDROOM_RESPOND__VERIFY_TIMEOUT", "45"),
            ("WARDROOM_CRASH_MARK", mark_text.as_str()),
        ];
        if let Kill::Point(point) = kill {
            environment.push(("WARDROOM_CRASH_AT", point));
        }
        let database = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let url = postgres.map(|server| server.url(database)).unwrap_or_default();
        if let Some(server) = postgres {
            server.create_database(database)?;
            environment.push(("WARDROOM_STORE__URL", url.as_str()));
            environment.push(("WARDROOM_STORE__PASSWORD", "env:TORTURE_DATABASE_PASSWORD"));
            environment.push(("TORTURE_DATABASE_PASSWORD", &server.password));
        }
        if !options.mutant_name().is_empty() {
            environment.push(("WARDROOM_MUTANT", options.mutant_name()));
        }
        let target = &targets[usize::from(scenario == Scenario::ActionIgnored)];
        let service = if scenario == Scenario::NoPlan { "unknown" } else { AFFECTED_SERVICE };
        let second = &targets[usize::from(scenario == Scenario::SecondStepIgnored)];
        let mut targets = target.target(service);
        let runbooks = dir.join("runbooks");
        let runbooks_text = runbooks.display().to_string();
        if scenario.has_steps() {
            std::fs::create_dir_all(&runbooks)?;
            std::fs::write(runbooks.join("slow-dependency.md"), RUNBOOK)?;
            environment.push(("WARDROOM_KNOWLEDGE__RUNBOOKS", &runbooks_text));
            targets += &second.target(UNAFFECTED_SERVICE);
            targets += HOST_TARGET;
        }
        let server = Server::start(dir, &targets, &environment)?;
        let telemetry = SyntheticTelemetry::new(now_ms() - 400_000, &[AFFECTED_SERVICE, UNAFFECTED_SERVICE]);
        Ok(Self {
            scenario,
            kill: kill.clone(),
            server,
            telemetry,
            started: Instant::now(),
            killed: false,
            mark,
            problem_started: false,
        })
    }

    /// Drives the scenario to its end, restarting the server whenever it dies.
    fn run(&mut self) -> anyhow::Result<()> {
        for _ in 0..HEALTHY_STEPS {
            self.send_second(false)?;
        }
        let end = self.scenario.expected_end().0;
        while self.started.elapsed() < CYCLE_TIMEOUT {
            self.ensure_running()?;
            let incident = match self.incident() {
                Ok(Some(incident)) => incident,
                // Not detected yet: the problem continues.
                Ok(None) => {
                    self.send_second(true)?;
                    continue;
                }
                // Not reachable: restarted above.
                Err(_) => continue,
            };
            let state = incident["state"].as_str().unwrap_or_default().to_owned();
            let is_to_reopen = self.scenario == Scenario::Reopened && !was_reopened(&incident);
            match state.as_str() {
                "escalated" if is_to_reopen => self.post_decision("close", &json!({}))?,
                "closed" if is_to_reopen => self.post_decision("reopen", &json!({}))?,
                // What follows the last transition is passed a moment later.
                state if state == end && self.is_point_ahead() => std::thread::sleep(POLL_INTERVAL),
                state if state == end => return Ok(()),
                "open" | "investigating" => self.send_second(true)?,
                "awaiting_approval" => self.decide(&incident)?,
                "mitigating" => std::thread::sleep(POLL_INTERVAL),
                "verifying" => {
                    self.send_second(matches!(self.scenario, Scenario::DoesNotHelp | Scenario::StepsDoNotHelp))?;
                }
                "mitigated" => self.send_second(self.scenario == Scenario::Relapse)?,
                "escalated" if self.scenario == Scenario::RejectedAndClosed => {
                    self.post_decision("close", &json!({}))?
                }
                "escalated" if self.scenario == Scenario::RejectedAsNoise => {
                    self.post_decision("verdict", &json!({ "verdict": "noise" }))?;
                }
                // Not the expected end: reported by `compare`.
                "resolved" | "escalated" | "closed" | "suppressed" => return Ok(()),
                _ => std::thread::sleep(POLL_INTERVAL),
            }
        }
        Ok(())
    }

    /// Whether a crash point of an effect has not been passed.
    fn is_point_ahead(&self) -> bool {
        let Kill::Point(point) = &self.kill else { return false };
        let follows = ["effect:settle", "ledger:settled"].iter().any(|step| point.starts_with(step));
        follows && !self.mark.exists()
    }

    /// Sends the next second of telemetry, retrying until it is accepted.
    fn send_second(&mut self, problem: bool) -> anyhow::Result<()> {
        if problem && !self.problem_started && self.scenario == Scenario::DoesNotHelp {
            // A changed setting is the cause, so that the plan can be undone.
            let at = Timestamp::from_millis(self.telemetry.at_ms);
            let line = json!({ "timestamp": at, "level": "INFO", "service": AFFECTED_SERVICE,
                "message": "configuration reloaded key=pool_size from=25 to=20" });
            while self
                .server
                .post_json("/ingest/logs", &self.server.sender_token, &line)
                .map_or(0, |response| response.0)
                != 200
            {
                self.ensure_running()?;
                ensure!(self.started.elapsed() < CYCLE_TIMEOUT, "logs are not accepted");
            }
        }
        self.problem_started |= problem;
        let body = remote_write::body(self.telemetry.next_second(if problem { &[AFFECTED_SERVICE] } else { &[] }));
        while self.server.write(&body).unwrap_or(0) != 204 {
            self.ensure_running()?;
            ensure!(self.started.elapsed() < CYCLE_TIMEOUT, "samples are not accepted");
        }
        Ok(())
    }

    /// Carries out a timed kill when it is due, and restarts the server if it died.
    fn ensure_running(&mut self) -> anyhow::Result<()> {
        if let Kill::After(processes, after) = self.kill
            && !self.killed
            && self.started.elapsed() >= after
        {
            self.killed = true;
            for (role, pid) in self.server.processes() {
                let is_selected = match processes {
                    KilledProcesses::Server => role == "server",
                    KilledProcesses::Executor => role == "executor",
                    KilledProcesses::All => true,
                };
                if is_selected {
                    kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
                }
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        if self.server.has_exited() {
            self.server.restart()?;
        }
        Ok(())
    }

    fn incident(&self) -> anyhow::Result<Option<Value>> {
        let (status, text) = self.server.get("/api/v1/incidents/INC-1", &self.server.responder_token)?;
        match status {
            200 => Ok(Some(serde_json::from_str(&text)?)),
            404 => Ok(None),
            other => anyhow::bail!("{other} {text}"),
        }
    }

    fn decide(&mut self, incident: &Value) -> anyhow::Result<()> {
        match self.scenario {
            Scenario::RejectedAndClosed | Scenario::RejectedAsNoise | Scenario::Reopened => {
                self.post_decision("reject", &json!({ "reason": "no" }))
            }
            Scenario::Noise => self.post_decision("verdict", &json!({ "verdict": "noise" })),
            _ => {
                self.post_decision("approve", &json!({ "plan_sha256": incident["plan_sha256"], "reason": "telemetry" }))
            }
        }
    }

    /// Posts a decision. Its effect shows in the incident's state, so a lost response is ignored.
    fn post_decision(&mut self, decision: &str, body: &Value) -> anyhow::Result<()> {
        let path = format!("/api/v1/incidents/INC-1/{decision}");
        if self.server.post_json(&path, &self.server.responder_token, body).is_err() {
            self.ensure_running()?;
        }
        std::thread::sleep(POLL_INTERVAL);
        Ok(())
    }

    /// Compares the incident's end and the target's effects with what the scenario expects.
    fn compare(&mut self, target: &Shop) -> anyhow::Result<BarResult> {
        let (end, actions, undos) = self.scenario.expected_end();
        let mut result = BarResult { issued: actions + undos, kills: 1, ..BarResult::default() };
        let Some(incident) = self.incident()? else {
            result.faults.push("no incident".to_owned());
            return Ok(result);
        };
        if incident["state"] != end {
            let entry = incident["timeline"].as_array().and_then(|entries| entries.last()).cloned().unwrap_or_default();
            result.faults.push(format!("ended as {} instead of {end}: {}", incident["state"], entry["text"]));
        }
        let was_killed = self.killed || self.mark.exists();
        if !was_killed {
            result.faults.push("the crash point was not reached".to_owned());
        }
        // All effects count, whatever their key.
        let effects = target.effects_since(Timestamp::from_millis(self.started_ms()))?;
        let (done, undone): (Vec<_>, Vec<_>) = effects.into_iter().partition(|key| !key.ends_with("-undo"));
        for (found, expected) in [(done.len() as u64, actions), (undone.len() as u64, undos)] {
            result.acked += found.min(expected);
            result.missing += expected.saturating_sub(found);
            result.duplicate += found.saturating_sub(expected);
        }
        if result.missing + result.duplicate > 0 {
            result.faults.push(format!(
                "{} actions and {} undos, expected {actions} and {undos}",
                done.len(),
                undone.len()
            ));
        }
        self.server.kill();
        let data = self.server.dir.join("data").display().to_string();
        if self.server.run(&["audit", "verify", "--data", &data])?.0 != Some(0) {
            result.faults.push("the audit log is broken".to_owned());
        }
        Ok(result)
    }

    fn started_ms(&self) -> i64 {
        now_ms() - self.started.elapsed().as_millis() as i64
    }
}

fn was_reopened(incident: &Value) -> bool {
    let timeline = incident["timeline"].as_array().into_iter().flatten();
    timeline.filter_map(|line| line["text"].as_str()).any(|text| text.starts_with("reopened by "))
}
