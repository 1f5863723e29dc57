//! The whole loop, driven by a tape, killed at every point; effects are counted by the target.
//!
//! Each cycle runs one scenario on fresh data with one aim. The server dies where it was aimed, is
//! started again, and must bring the incident to the scenario's end with exactly the scenario's effects:
//! an action twice is a `duplicate`, one forgotten is `missing`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_testing::server;
use wardroom_testing::tape::Tape;
use wardroom_testing::{Server, Shop, now_ms, wire};

use crate::{Options, Tally, tell};

/// The service that is in trouble, and one that is apart.
const STRUCK: &str = "cart";
const CONTROL: &str = "newsletter";

/// What happens to the incident, and how it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// Approved, helped, resolved.
    Heals,
    /// A setting is put back, nothing gets better, and it is taken back.
    DoesNotHelp,
    /// It gets better and then worse again within the hold.
    Relapses,
    /// The supervisor says yes and does nothing.
    Ignored,
    /// A person says no, then closes it.
    RejectedAndClosed,
    /// A person says no, then that it was noise.
    RejectedAsNoise,
    /// A person says that it is noise while the plan waits.
    Noise,
    /// The executor knows no such target.
    NoPlan,
}

impl Scenario {
    const ALL: [Self; 8] = [
        Self::Heals,
        Self::DoesNotHelp,
        Self::Relapses,
        Self::Ignored,
        Self::RejectedAndClosed,
        Self::RejectedAsNoise,
        Self::Noise,
        Self::NoPlan,
    ];

    /// The state it ends in, and the effects the target must show: the action, and its undo.
    const fn end(self) -> (&'static str, u64, u64) {
        match self {
            Self::Heals => ("resolved", 1, 0),
            Self::DoesNotHelp => ("escalated", 1, 1),
            Self::Relapses => ("escalated", 1, 0),
            Self::Ignored | Self::NoPlan => ("escalated", 0, 0),
            Self::RejectedAndClosed => ("closed", 0, 0),
            Self::RejectedAsNoise | Self::Noise => ("suppressed", 0, 0),
        }
    }

    /// The scenario that goes through a point.
    fn through(point: &str) -> Self {
        let step = point.rsplit_once(':').map_or(point, |(step, _)| step);
        match step {
            "incident:investigating-escalated" => Self::NoPlan,
            "incident:awaiting_approval-escalated" | "incident:escalated-closed" => Self::RejectedAndClosed,
            "incident:awaiting_approval-suppressed" => Self::Noise,
            "incident:escalated-suppressed" => Self::RejectedAsNoise,
            "incident:mitigating-escalated" => Self::Ignored,
            "incident:verifying-escalated" | "adapter:undo" | "ledger:undone" => Self::DoesNotHelp,
            "incident:mitigated-escalated" => Self::Relapses,
            _ => Self::Heals,
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-loop-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let (_, list) = server::run(&["crash-points"])?;
    // What touches the target comes first: there a fault on purpose shows soonest.
    let mut points: Vec<&str> = list.lines().collect();
    points.sort_by_key(|point| (!point.starts_with("adapter:"), !point.starts_with("ledger:")));
    tell(format!("{} kill points: transition table and executor steps, each before and after", points.len()));
    let shops = [Shop::start(&dir.join("shop"), &[])?, Shop::start(&dir.join("deaf"), &["--ignore-control"])?];
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut tally = Tally { points: points.len() as u64, ..Tally::default() };
    let (mut kill, mut early) = (0, 0_u64);
    while kill < options.kills {
        // Every point once; whatever is left is random.
        let aim = match points.get(kill as usize) {
            Some(point) => Aim::Point((*point).to_owned()),
            None => Aim::Random(random.random_range(0..3), Duration::from_millis(random.random_range(0..1300))),
        };
        let scenario = match &aim {
            Aim::Point(point) => Scenario::through(point),
            Aim::Random(..) => Scenario::ALL[random.random_range(0..3)],
        };
        let started = Instant::now();
        let folder = dir.join(format!("cycle-{kill}-{early}"));
        let mut cycle = Cycle::new(&folder, &shops, scenario, &aim, options)?;
        cycle.run()?;
        if matches!(aim, Aim::Random(..)) && !cycle.killed {
            // It was over before its time came: that is no kill, and another is drawn.
            early += 1;
            anyhow::ensure!(early < 1000, "random kills come too late to hit anything");
            continue;
        }
        let found = cycle.judge(&shops[usize::from(scenario == Scenario::Ignored)])?;
        let words = if found.clean() { "ok".to_owned() } else { found.faults.join("; ") };
        kill += 1;
        tell(format!("{kill:>3} {scenario:?} {aim:?}: {words} ({:.1} s)", started.elapsed().as_secs_f64()));
        if found.clean() {
            drop(cycle);
            std::fs::remove_dir_all(folder)?;
        }
        tally.add(found);
        if options.mutant.is_some() && !tally.clean() {
            tell("caught");
            break;
        }
    }
    drop(shops);
    if tally.clean() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(tally)
}

#[derive(Clone, Debug)]
enum Aim {
    Point(String),
    /// 0 the server, 1 the executor, 2 both; after this long.
    Random(u8, Duration),
}

struct Cycle {
    scenario: Scenario,
    aim: Aim,
    server: Server,
    tape: Tape,
    started: Instant,
    killed: bool,
    mark: PathBuf,
    posted_trouble: bool,
}

impl Cycle {
    fn new(dir: &Path, shops: &[Shop; 2], scenario: Scenario, aim: &Aim, options: &Options) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        // Inside the folder that the confined server may write.
        let mark = dir.join("data/state/crash-mark");
        let mark_text = mark.display().to_string();
        let mutant = options.mutant.clone().unwrap_or_default();
        let mut environment = vec![
            ("WARDROOM_RESPOND__HOLD", "6"),
            ("WARDROOM_RESPOND__VERIFY_TIMEOUT", "45"),
            ("WARDROOM_CRASH_MARK", mark_text.as_str()),
        ];
        if let Aim::Point(point) = aim {
            environment.push(("WARDROOM_CRASH_AT", point));
        }
        if !mutant.is_empty() {
            environment.push(("WARDROOM_MUTANT", &mutant));
        }
        let shop = &shops[usize::from(scenario == Scenario::Ignored)];
        let target = if scenario == Scenario::NoPlan { "nobody" } else { STRUCK };
        let targets = shop.target(target);
        let server = Server::start(dir, &targets, &environment)?;
        let tape = Tape::new(now_ms() - 400_000, &[STRUCK, CONTROL]);
        Ok(Self {
            scenario,
            aim: aim.clone(),
            server,
            tape,
            started: Instant::now(),
            killed: false,
            mark,
            posted_trouble: false,
        })
    }

    /// Drives the scenario to its end, starting the server again whenever it dies.
    fn run(&mut self) -> anyhow::Result<()> {
        for _ in 0..40 {
            self.step(false)?;
        }
        let end = self.scenario.end().0;
        while self.started.elapsed() < Duration::from_secs(60) {
            self.keep_up()?;
            let incident = match self.incident() {
                Ok(Some(incident)) => incident,
                // Nothing noticed yet: the trouble goes on.
                Ok(None) => {
                    self.step(true)?;
                    continue;
                }
                // Down: started again above.
                Err(_) => continue,
            };
            let state = incident["state"].as_str().unwrap_or_default().to_owned();
            match state.as_str() {
                state if state == end => return Ok(()),
                "open" | "investigating" => self.step(true)?,
                "awaiting_approval" => self.decide(&incident)?,
                "mitigating" => std::thread::sleep(Duration::from_millis(20)),
                "verifying" => self.step(self.scenario == Scenario::DoesNotHelp)?,
                "mitigated" => self.step(self.scenario == Scenario::Relapses)?,
                "escalated" if self.scenario == Scenario::RejectedAndClosed => self.tell("close", &json!({}))?,
                "escalated" if self.scenario == Scenario::RejectedAsNoise => {
                    self.tell("verdict", &json!({ "verdict": "noise" }))?;
                }
                // Another end than the scenario's: judged below.
                "resolved" | "escalated" | "closed" | "suppressed" => return Ok(()),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(())
    }

    /// The next second of the tape; sent until it is taken.
    fn step(&mut self, trouble: bool) -> anyhow::Result<()> {
        if trouble && !self.posted_trouble && self.scenario == Scenario::DoesNotHelp {
            // A changed setting stands behind it, so that the plan is one that can be taken back.
            let at = Timestamp::from_millis(self.tape.at_ms);
            let line = json!({ "timestamp": at, "level": "INFO", "service": STRUCK,
                "message": "configuration reloaded key=pool_size from=25 to=20" });
            while self.server.json("/ingest/logs", &self.server.sender, &line).map_or(0, |answer| answer.0) != 200 {
                self.keep_up()?;
                anyhow::ensure!(self.started.elapsed() < Duration::from_secs(60), "logs are not taken");
            }
        }
        self.posted_trouble |= trouble;
        let body = wire::body(self.tape.next(if trouble { &[STRUCK] } else { &[] }));
        while self.server.write(&body).unwrap_or(0) != 204 {
            self.keep_up()?;
            anyhow::ensure!(self.started.elapsed() < Duration::from_secs(60), "telemetry is not taken");
        }
        Ok(())
    }

    /// Starts the server again if it died; performs a random kill when its time has come.
    fn keep_up(&mut self) -> anyhow::Result<()> {
        if let Aim::Random(which, after) = self.aim
            && !self.killed
            && self.started.elapsed() >= after
        {
            self.killed = true;
            for (role, pid) in self.server.processes() {
                let hit = match which {
                    0 => role == "server",
                    1 => role == "executor",
                    _ => true,
                };
                if hit {
                    kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
                }
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        if self.server.ended() {
            self.server.restart()?;
        }
        Ok(())
    }

    fn incident(&self) -> anyhow::Result<Option<Value>> {
        let (status, text) = self.server.get("/api/v1/incidents/INC-1", &self.server.responder)?;
        match status {
            200 => Ok(Some(serde_json::from_str(&text)?)),
            404 => Ok(None),
            other => anyhow::bail!("{other} {text}"),
        }
    }

    fn decide(&mut self, incident: &Value) -> anyhow::Result<()> {
        match self.scenario {
            Scenario::RejectedAndClosed | Scenario::RejectedAsNoise => self.tell("reject", &json!({ "reason": "no" })),
            Scenario::Noise => self.tell("verdict", &json!({ "verdict": "noise" })),
            _ => self.tell("approve", &json!({ "plan_sha256": incident["plan_sha256"], "reason": "tape" })),
        }
    }

    /// Tells the server; whether it took it shows in the incident's state.
    fn tell(&mut self, what: &str, body: &Value) -> anyhow::Result<()> {
        let path = format!("/api/v1/incidents/INC-1/{what}");
        if self.server.json(&path, &self.server.responder, body).is_err() {
            self.keep_up()?;
        }
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    }

    /// Compares the end with the scenario's, and the target's effects with what was approved.
    fn judge(&mut self, shop: &Shop) -> anyhow::Result<Tally> {
        let (end, actions, undos) = self.scenario.end();
        let mut tally = Tally { issued: actions + undos, kills: 1, ..Tally::default() };
        let Some(incident) = self.incident()? else {
            tally.faults.push("no incident".to_owned());
            return Ok(tally);
        };
        if incident["state"] != end {
            let line = incident["timeline"].as_array().and_then(|lines| lines.last()).cloned().unwrap_or_default();
            tally.faults.push(format!("ended {} instead of {end}: {}", incident["state"], line["text"]));
        }
        let pulled = self.killed || self.mark.exists();
        if !pulled {
            tally.faults.push("the point was never reached".to_owned());
        }
        // Counted by service, not by key: an action under another key is an action too.
        let done = shop.effects_since(Timestamp::from_millis(self.started_ms()))?;
        let (done, undone): (Vec<_>, Vec<_>) = done.into_iter().partition(|key| !key.ends_with("-undo"));
        for (found, wanted) in [(done.len() as u64, actions), (undone.len() as u64, undos)] {
            tally.acked += found.min(wanted);
            tally.missing += wanted.saturating_sub(found);
            tally.duplicate += found.saturating_sub(wanted);
        }
        if tally.missing + tally.duplicate > 0 {
            tally.faults.push(format!("{} done and {} undone, wanted {actions} and {undos}", done.len(), undone.len()));
        }
        self.server.kill();
        let data = self.server.dir.join("data").display().to_string();
        if server::run(&["audit", "verify", "--data", &data])?.0 != Some(0) {
            tally.faults.push("the audit book is broken".to_owned());
        }
        Ok(tally)
    }

    fn started_ms(&self) -> i64 {
        now_ms() - self.started.elapsed().as_millis() as i64
    }
}
