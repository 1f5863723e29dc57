//! Bar 3b: server and executor are killed at a system call that changes something outside, between an approval and the
//! end of its incident. `kills` is the number of calls, spread over all of them; the verdict must always be the same.
//!
//! strace kills the process at the N-th `fdatasync`, `write`, `rename` or `sendto` from the approval on: in the middle
//! of what it does, and not only between its steps as the crash points do. It counts each call for each thread by
//! itself, so the N-th is that of the thread that makes N of them first. A first run finds how many that are at most.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::{Server, Shop, SyntheticTelemetry, now_ms, remote_write};

use super::strace::Strace;
use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

/// System calls at which the process is killed.
const CALLS: [&str; 4] = ["fdatasync", "write", "rename", "sendto"];
/// The processes, by their roles.
const ROLES: [&str; 2] = ["server", "executor"];
const AFFECTED_SERVICE: &str = "cart";
const UNAFFECTED_SERVICE: &str = "newsletter";
/// Healthy seconds of telemetry before the problem begins.
const HEALTHY_STEPS: usize = 60;
/// An incident must end within this time.
const TIMEOUT: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Where a process is killed.
#[derive(Clone, Copy, Debug)]
struct Kill {
    role: &'static str,
    call: &'static str,
    /// From 1.
    number: u64,
}

/// Runs one incident for each kill.
pub(super) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("3b")?;
    let shop = Shop::start(&dir.join("shop"), &[])?;
    let mut all = Vec::new();
    for role in ROLES {
        let folder = dir.join(format!("count-{role}"));
        let (counted, calls) = Incident::start(&folder, &shop)?.run(role, None)?;
        ensure!(counted.faults.is_empty(), "without a kill: {:?}", counted.faults);
        std::fs::remove_dir_all(folder)?;
        print_progress(format!("calls of the {role} by its busiest thread: {calls:?}"));
        let kills = |(call, most): (&'static str, u64)| (1..=most).map(move |number| Kill { role, call, number });
        all.extend(calls.into_iter().flat_map(kills));
    }
    ensure!(!all.is_empty(), "no call was counted");
    let count = options.kills.min(all.len() as u64);
    let mut result = BarResult { points: all.len() as u64, ..BarResult::default() };
    for number in 0..count {
        // Spread over all of them, the same ones with the same seed.
        let point = (number * all.len() as u64 / count + options.seed) % all.len() as u64;
        let kill = all[point as usize];
        let (folder, started) = (dir.join(format!("{}-{}-{}", kill.role, kill.call, kill.number)), Instant::now());
        let (found, _) = Incident::start(&folder, &shop)?.run(kill.role, Some(kill))?;
        let outcome = if found.is_clean() { "ok".to_owned() } else { found.faults.join("; ") };
        print_progress(format!(
            "{} of {count}: {} {} of the {}{}: {outcome} ({:.1} s)",
            number + 1,
            kill.call,
            kill.number,
            kill.role,
            if found.kills == 0 { ", not reached" } else { "" },
            started.elapsed().as_secs_f64()
        ));
        if found.is_clean() {
            std::fs::remove_dir_all(folder)?;
        }
        result.add(BarResult { points: 0, ..found });
    }
    // Threads share the work differently in each run.
    if result.kills * 2 < count {
        result.faults.push(format!("only {} of {count} calls were reached", result.kills));
    }
    drop(shop);
    if result.is_clean() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(result)
}

/// Returns how many of each call the thread has made that made most of them.
fn most_calls(log: &str) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::<(&str, &'static str), u64>::new();
    for line in log.lines() {
        // `1234 write(5, ...) = 1`, or `1234 write(5, <unfinished ...>`; a resumed call has no name before the bracket.
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let name = rest.trim_start().split('(').next().unwrap_or_default();
        if let Some(call) = CALLS.into_iter().find(|call| *call == name) {
            *counts.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in counts {
        let known = most.entry(call).or_insert(0);
        *known = count.max(*known);
    }
    most
}

/// An incident whose plan awaits its approval.
struct Incident<'a> {
    server: Server,
    shop: &'a Shop,
    telemetry: SyntheticTelemetry,
    started: Instant,
}

impl<'a> Incident<'a> {
    fn start(dir: &Path, shop: &'a Shop) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let server = Server::start(dir, &shop.target(AFFECTED_SERVICE), &[("WARDROOM_RESPOND__HOLD", "6")])?;
        let telemetry = SyntheticTelemetry::new(now_ms() - 400_000, &[AFFECTED_SERVICE, UNAFFECTED_SERVICE]);
        let mut incident = Self { server, shop, telemetry, started: Instant::now() };
        for _ in 0..HEALTHY_STEPS {
            incident.send(&[])?;
        }
        while incident.state()? != "awaiting_approval" {
            ensure!(incident.started.elapsed() < TIMEOUT, "no plan awaits an approval: {:?}", incident.state());
            incident.send(&[AFFECTED_SERVICE])?;
        }
        // Each part has the whole time.
        incident.started = Instant::now();
        Ok(incident)
    }

    /// Approves the plan and follows the incident to its end. A process is killed at a call; without one, its calls are
    /// counted.
    fn run(mut self, role: &str, kill: Option<Kill>) -> anyhow::Result<(BarResult, BTreeMap<&'static str, u64>)> {
        let since = Timestamp::from_millis(now_ms());
        let pid = |server: &Server| server.processes().into_iter().find(|(found, _)| found == role).map(|(_, pid)| pid);
        let killed = pid(&self.server).with_context(|| format!("there is no {role}"))?;
        let counted = self.server.dir.join("calls");
        let strace = match kill {
            Some(Kill { call, number, .. }) => {
                let inject = format!("inject={call}:signal=KILL:when={number}");
                Strace::attach_process(killed, &["-e", &format!("trace={call}"), "-e", &inject], None)?
            }
            None => Strace::attach_process(killed, &["-e", &format!("trace={}", CALLS.join(","))], Some(&counted))?,
        };
        loop {
            self.ensure_running()?;
            let incident = self.incident()?;
            match incident["state"].as_str().unwrap_or_default() {
                "resolved" | "escalated" | "closed" | "suppressed" => break,
                "awaiting_approval" => {
                    let body = json!({ "plan_sha256": incident["plan_sha256"], "reason": "telemetry" });
                    let path = "/api/v1/incidents/INC-1/approve";
                    // A lost answer is no refusal: its effect shows in the state.
                    drop(self.server.post_json(path, &self.server.responder_token, &body));
                }
                "verifying" | "mitigated" => self.send(&[])?,
                _ => std::thread::sleep(POLL_INTERVAL),
            }
        }
        let was_killed = pid(&self.server) != Some(killed);
        drop(strace);
        // It may have been killed at its end.
        while self.state()?.is_empty() {
            self.ensure_running()?;
        }
        let mut result = BarResult { issued: 1, kills: u64::from(was_killed), ..BarResult::default() };
        let calls = if kill.is_none() { most_calls(&std::fs::read_to_string(counted)?) } else { BTreeMap::new() };
        let effects = self.shop.effects_since(since)?.len() as u64;
        result.acked = effects.min(1);
        result.missing = 1_u64.saturating_sub(effects);
        result.duplicate = effects.saturating_sub(1);
        let state = self.state()?;
        if state != "resolved" || effects != 1 {
            result.faults.push(format!("{state} after {effects} effects"));
        }
        self.server.kill();
        let data = self.server.dir.join("data").display().to_string();
        if self.server.run(&["audit", "verify", "--data", &data])?.0 != Some(0) {
            result.faults.push("the audit log is broken".to_owned());
        }
        Ok((result, calls))
    }

    fn ensure_running(&mut self) -> anyhow::Result<()> {
        ensure!(self.started.elapsed() < TIMEOUT, "the incident does not end: {:?}", self.state());
        if self.server.has_exited() { self.server.restart() } else { Ok(()) }
    }

    fn send(&mut self, affected: &[&str]) -> anyhow::Result<()> {
        let body = remote_write::body(self.telemetry.next_second(affected));
        while self.server.write(&body).unwrap_or(0) != 204 {
            self.ensure_running()?;
        }
        Ok(())
    }

    /// The incident; null while it is not there, or the server does not answer.
    fn incident(&self) -> anyhow::Result<Value> {
        match self.server.get("/api/v1/incidents/INC-1", &self.server.responder_token) {
            Ok((200, text)) => Ok(serde_json::from_str(&text)?),
            _ => Ok(Value::Null),
        }
    }

    fn state(&self) -> anyhow::Result<String> {
        Ok(self.incident()?["state"].as_str().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_for_each_thread() {
        let log = "\
            11 write(5, \"fdatasync(\", 10) = 10\n\
            12 fdatasync(7 <unfinished ...>\n\
            11  write(5, \"x\", 1)             = 1\n\
            12 <... fdatasync resumed>)         = 0\n\
            12 write(6, \"y\", 1)              = 1\n\
            12 --- SIGCHLD {si_signo=SIGCHLD} ---\n\
            13 +++ exited with 0 +++\n";
        assert_eq!(most_calls(log), BTreeMap::from([("fdatasync", 1), ("write", 2)]));
    }
}
