//! Bar 3g: incidents in every state are begun by an earlier version (`OLD_WARDROOM_BIN`) and ended by this one. `kills`
//! is the number of incidents; every second one is killed at the change, the others are stopped.
//!
//! Each must end as resolved with one effect at its target. The earlier version, started on the data folder afterwards,
//! must run or refuse; this one must find the folder intact then.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::{Server, Shop, SyntheticTelemetry, now_ms, remote_write, server};

use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

/// States at which the version changes.
const STATES: [&str; 6] = ["", "open", "awaiting_approval", "mitigating", "verifying", "mitigated"];
const AFFECTED_SERVICE: &str = "cart";
const UNAFFECTED_SERVICE: &str = "newsletter";
/// Healthy seconds of telemetry before the problem begins.
const HEALTHY_STEPS: usize = 60;
/// An incident must end within this time.
const TIMEOUT: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Runs the incidents.
pub(super) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let (old, dir) = (server::program("OLD_WARDROOM_BIN"), options.create_dir("3g")?);
    ensure!(old.is_file(), "{}: OLD_WARDROOM_BIN must name a program of an earlier version", old.display());
    let shop = Shop::start(&dir.join("shop"), &[])?;
    let mut result = BarResult::default();
    for number in 0..options.kills {
        let (started, folder) = (Instant::now(), dir.join(format!("incident-{number}")));
        let state = STATES[(number as usize / 2) % STATES.len()];
        let change = Change { state, is_killed: number % 2 == 1, old: &old };
        let found = Upgrade::start(&folder, &shop, &old)?.run(&change)?;
        let outcome = if found.is_clean() { "ok".to_owned() } else { found.faults.join("; ") };
        print_progress(format!(
            "{} of {}: {} at {state:?}: {outcome} ({:.1} s)",
            number + 1,
            options.kills,
            if change.is_killed { "killed" } else { "stopped" },
            started.elapsed().as_secs_f64()
        ));
        if found.is_clean() {
            std::fs::remove_dir_all(folder)?;
        }
        result.add(found);
    }
    drop(shop);
    if result.is_clean() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(result)
}

/// When and how the version changes.
struct Change<'a> {
    /// State from which on; empty for before the problem.
    state: &'static str,
    is_killed: bool,
    old: &'a PathBuf,
}

struct Upgrade<'a> {
    server: Server,
    shop: &'a Shop,
    telemetry: SyntheticTelemetry,
    started: Instant,
    since: Timestamp,
}

impl<'a> Upgrade<'a> {
    fn start(dir: &Path, shop: &'a Shop, old: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let environment = [("WARDROOM_RESPOND__HOLD", "6")];
        let server = Server::start_version(old, dir, &shop.target(AFFECTED_SERVICE), &environment)?;
        let telemetry = SyntheticTelemetry::new(now_ms() - 400_000, &[AFFECTED_SERVICE, UNAFFECTED_SERVICE]);
        let since = Timestamp::from_millis(now_ms());
        Ok(Self { server, shop, telemetry, started: Instant::now(), since })
    }

    fn run(mut self, change: &Change<'_>) -> anyhow::Result<BarResult> {
        for _ in 0..HEALTHY_STEPS {
            self.send(&[])?;
        }
        let mut is_changed = false;
        let state = loop {
            ensure!(self.started.elapsed() < TIMEOUT, "the incident does not end: {}", self.incident()?);
            let incident = self.incident()?;
            let state = incident["state"].as_str().unwrap_or_default().to_owned();
            // A state that is over within milliseconds may be seen by its successor only.
            if !is_changed && is_reached(change.state, &state) {
                is_changed = true;
                self.change_version(change)?;
                continue;
            }
            match state.as_str() {
                "resolved" | "escalated" | "closed" | "suppressed" => break state,
                "" | "open" | "investigating" => self.send(&[AFFECTED_SERVICE])?,
                "awaiting_approval" => {
                    let body = json!({ "plan_sha256": incident["plan_sha256"], "reason": "telemetry" });
                    let path = "/api/v1/incidents/INC-1/approve";
                    drop(self.server.post_json(path, &self.server.responder_token, &body));
                }
                "verifying" | "mitigated" => self.send(&[])?,
                _ => std::thread::sleep(POLL_INTERVAL),
            }
        };
        let effects = self.shop.effects_since(self.since)?.len() as u64;
        let mut result = BarResult { issued: 1, acked: effects.min(1), kills: 1, ..BarResult::default() };
        result.missing = 1_u64.saturating_sub(effects);
        result.duplicate = effects.saturating_sub(1);
        if state != "resolved" || !is_changed {
            result.faults.push(format!("{state}; version changed: {is_changed}"));
        }
        result.faults.extend(self.go_back(change)?);
        Ok(result)
    }

    fn change_version(&mut self, change: &Change<'_>) -> anyhow::Result<()> {
        if change.is_killed {
            self.server.kill();
        } else {
            self.server.stop()?;
        }
        self.server.set_program(&server::program("WARDROOM_BIN"));
        self.server.restart()
    }

    /// The earlier version runs on the folder or refuses; this one finds it intact.
    fn go_back(&mut self, change: &Change<'_>) -> anyhow::Result<Option<String>> {
        self.server.stop()?;
        self.server.set_program(change.old);
        let is_running = self.server.restart_once()?;
        if is_running {
            self.server.stop()?;
        }
        self.server.set_program(&server::program("WARDROOM_BIN"));
        self.server.restart()?;
        let incident = self.incident()?;
        self.server.stop()?;
        let data = self.server.dir.join("data").display().to_string();
        let (code, text) = self.server.run(&["audit", "verify", "--data", &data])?;
        let is_intact = code == Some(0) && incident["state"] == "resolved";
        Ok((!is_intact).then(|| format!("after the way back (it ran: {is_running}): {}: {text}", incident["state"])))
    }

    fn send(&mut self, affected: &[&str]) -> anyhow::Result<()> {
        let status = self.server.write(&remote_write::body(self.telemetry.next_second(affected)))?;
        ensure!(status == 204, "samples are not accepted: {status}");
        Ok(())
    }

    fn incident(&self) -> anyhow::Result<Value> {
        let (status, text) = self.server.get("/api/v1/incidents/INC-1", &self.server.responder_token)?;
        if status == 200 { serde_json::from_str(&text).context("the incident") } else { Ok(Value::Null) }
    }
}

/// Whether a state, or one that only follows it, is reached.
fn is_reached(wanted: &str, state: &str) -> bool {
    let order = ["", "open", "investigating", "awaiting_approval", "mitigating", "verifying", "mitigated", "resolved"];
    let position = |name: &str| order.iter().position(|known| *known == name);
    position(state).zip(position(wanted)).is_some_and(|(state, wanted)| state >= wanted)
}
