//! Bar 1b: an acknowledgement means "on disk".
//!
//! Writers post requests whose content is a function of their number; the oracle notes which were
//! acknowledged. The server is killed at random moments. Afterwards everything acknowledged must read
//! back, bit for bit, and nothing may be there that was never sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::{Server, now_ms, server, wire};

use crate::events::Events;
use crate::silver::{self, Silver};
use crate::{Options, Tally, tell};

pub(crate) const SERIES: u64 = 100;
/// Many small requests rather than few large ones: the more acknowledgements are on their way at the moment
/// of a kill, the surer a lost one is noticed.
const WRITERS: u64 = 16;
/// Requests a second of each writer at most: 60 000 samples/s in all, above what bar 1b asks for.
const PACE: Duration = Duration::from_millis(1000 * SERIES * WRITERS / 60_000);

/// After a kill the server is ready again this soon.
const READY: Duration = Duration::from_secs(5);

pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-1b-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let mutant = options.mutant.clone().unwrap_or_default();
    // Batches go to the tables all the time, so that kills find them on their way.
    let environment = [("WARDROOM_MUTANT", mutant.as_str()), ("WARDROOM_LAKE__FLUSH_SECONDS", "2")];
    let mut server = Server::start(&dir, "", &environment)?;
    let started = Instant::now();
    let mut load = Load::start(&server, WRITERS, PACE, options.seed, Spread::RECENT);
    let mut events = Events::start(&server, options.seed);
    let Torment { kills, looking, slowest } = torment(&mut server, options, &dir, &load.oracle)?;
    std::thread::sleep(Duration::from_millis(500));
    load.stop()?;
    events.stop()?;
    let seconds = (started.elapsed() - looking).as_secs_f64();
    // A fresh request must pass once the trouble is over.
    let mut faults = Vec::new();
    if !load.oracle.send() {
        faults.push("the probe after the kills was not acknowledged".to_owned());
    }
    if slowest > READY {
        faults.push(format!("ready again only after {slowest:?}"));
    }
    silver::settle(&server)?;
    server.kill();
    let acked = load.oracle.acked();
    let samples_per_s = (acked.len() as u64 * SERIES) as f64 / seconds;
    tell(format!("{samples_per_s:.0} samples/s acknowledged over {seconds:.0} s, restarts counted in"));
    anyhow::ensure!(samples_per_s >= 20_000.0, "the load was too small for the bar to mean anything");
    let mut tally = load.oracle.compare(&dir, &acked, None)?;
    let beside = events.compare(&dir)?;
    tell(format!(
        "beside them {} requests of log lines and deployments, {} acknowledged, {} missing; ready again within {slowest:?}",
        beside.issued, beside.acked, beside.missing
    ));
    tally.add(beside);
    let silver = Silver::read(&dir, false)?;
    let tables = [load.oracle.judge_silver(&silver, &acked), events.judge_silver(&silver)];
    for (what, found) in ["samples", "events"].into_iter().zip(tables) {
        let Tally { missing, spurious, corrupted, duplicate, .. } = found;
        tell(format!(
            "{what} in the tables: {missing} missing, {spurious} spurious, {corrupted} corrupted, {duplicate} twice"
        ));
        // They are the same requests, counted already.
        tally.add(Tally { issued: 0, acked: 0, ..found });
    }
    tally.kills = kills;
    tally.samples_per_s = samples_per_s;
    tally.faults = faults;
    std::fs::remove_dir_all(&dir)?;
    Ok(tally)
}

/// Kills and restarts as often as asked. A fault on purpose is looked for on the way, so that its run may end once it is caught: while the server is down,
/// nothing more can be acknowledged.
fn torment(server: &mut Server, options: &Options, dir: &Path, oracle: &Oracle) -> anyhow::Result<Torment> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let (mut looking, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for kills in 1..=options.kills {
        std::thread::sleep(Duration::from_millis(random.random_range(200..1500)));
        server.kill();
        let mut caught = false;
        if kills % 10 == 0 {
            tell(format!("{kills} kills"));
            if options.mutant.is_some() {
                let started = Instant::now();
                caught = !oracle.compare(dir, &oracle.acked(), None)?.clean();
                looking += started.elapsed();
            }
        }
        let started = Instant::now();
        server.restart()?;
        while server.get("/readyz", &server.sender)?.0 != 200 {
            anyhow::ensure!(started.elapsed() < READY * 6, "not ready half a minute after a kill");
            std::thread::sleep(Duration::from_millis(10));
        }
        slowest = slowest.max(started.elapsed());
        if caught {
            tell("caught");
            return Ok(Torment { kills, looking, slowest });
        }
    }
    Ok(Torment { kills: options.kills, looking, slowest })
}

/// What was done to a server.
struct Torment {
    kills: u64,
    /// How long was spent on looking in between.
    looking: Duration,
    /// The longest way from a start to ready.
    slowest: Duration,
}

/// Where in time the samples of a load lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// How far back the first of them is.
    pub(crate) back_ms: i64,
    /// From one request to the next.
    pub(crate) step_ms: i64,
}

impl Spread {
    /// In the last hour.
    pub(crate) const RECENT: Self = Self { back_ms: 3_600_000, step_ms: 1 };
}

/// Writers that post until they are stopped.
pub(crate) struct Load {
    pub(crate) oracle: Arc<Oracle>,
    stop: Arc<AtomicBool>,
    writers: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Starts so many writers, each with at most one request in `pace`.
    pub(crate) fn start(server: &Server, writers: u64, pace: Duration, seed: u64, spread: Spread) -> Self {
        let oracle = Arc::new(Oracle {
            url: server.url.clone(),
            token: server.sender.clone(),
            seed,
            base_ms: now_ms() - spread.back_ms,
            step_ms: spread.step_ms,
            next: AtomicU64::new(0),
            acked: Mutex::default(),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let write = |_| {
            let (stop, oracle) = (Arc::clone(&stop), Arc::clone(&oracle));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let sent = Instant::now();
                    if oracle.send() {
                        std::thread::sleep(pace.saturating_sub(sent.elapsed()));
                    } else {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            })
        };
        Self { writers: (0..writers).map(write).collect(), stop, oracle }
    }

    /// Ends the writers.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.writers.drain(..).try_for_each(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked")))
    }
}

/// Issues requests whose content is a function of their number, and notes which were acknowledged.
pub(crate) struct Oracle {
    url: String,
    token: String,
    seed: u64,
    base_ms: i64,
    step_ms: i64,
    next: AtomicU64,
    acked: Mutex<BTreeSet<u64>>,
}

impl Oracle {
    /// Posts the next request; whether it was acknowledged.
    pub(crate) fn send(&self) -> bool {
        thread_local! {
            static AGENT: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(Duration::from_secs(5)))
                .build()
                .new_agent();
        }
        let id = self.next.fetch_add(1, Ordering::AcqRel);
        let taken = AGENT.with(|agent| {
            let request = agent
                .post(format!("{}/api/v1/write", self.url))
                .header("Authorization", format!("Bearer {}", self.token))
                .header("Content-Type", "application/x-protobuf")
                .header("Content-Encoding", "snappy");
            request.send(&self.request(id)[..]).is_ok_and(|answer| answer.status().is_success())
        });
        if taken {
            self.acked.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        taken
    }

    /// What was acknowledged up to now.
    pub(crate) fn acked(&self) -> BTreeSet<u64> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn request(&self, id: u64) -> Vec<u8> {
        let series = (0..SERIES).map(|index| {
            let name = index.to_string();
            let labels = [("__name__", "oracle"), ("i", name.as_str())];
            wire::series(&labels, self.value(id, index), self.base_ms + id as i64 * self.step_ms)
        });
        wire::body(series.collect())
    }

    fn value(&self, id: u64, index: u64) -> f64 {
        let mixed = (id ^ self.seed.rotate_left(32))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(index)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 11) as f64
    }

    /// Reads the data folder back and compares: all of it, or one series of each request.
    pub(crate) fn compare(&self, dir: &Path, acked: &BTreeSet<u64>, only: Option<u64>) -> anyhow::Result<Tally> {
        let data = dir.join("data").display().to_string();
        let selector = only.map_or("oracle".to_owned(), |index| format!("oracle{{i=\"{index}\"}}"));
        let (code, dump) = server::run(&["samples", "dump", "--data", &data, "--match", &selector])?;
        anyhow::ensure!(code == Some(0), "samples dump failed");
        let lines = dump.lines().map(|line| {
            let (labels, rest) = line.rsplit_once("} ").context("a line without labels")?;
            let (value, at) = rest.split_once(' ').context("a line without a time")?;
            let index = labels.split("i=\"").nth(1).and_then(|tail| tail.split('"').next()).context("no label i")?;
            Ok((index.parse()?, at.parse()?, value.parse::<f64>()?))
        });
        self.judge(lines, acked, if only.is_some() { 1 } else { SERIES })
    }

    /// The request whose samples have this time.
    fn id(&self, at_ms: i64) -> Option<u64> {
        let since = at_ms - self.base_ms;
        u64::try_from(since / self.step_ms).ok().filter(|_| since % self.step_ms == 0)
    }

    /// Compares what the tables hold with what was acknowledged: every request whole, and once.
    pub(crate) fn judge_silver(&self, silver: &Silver, acked: &BTreeSet<u64>) -> Tally {
        let issued = self.next.load(Ordering::Acquire);
        let mut tally = Tally { issued, acked: acked.len() as u64, ..Tally::default() };
        let mut found = BTreeSet::new();
        for (at_ms, rows) in &silver.requests {
            let Some(id) = self.id(*at_ms).filter(|id| *id < issued) else {
                tally.spurious += 1;
                continue;
            };
            let sum = (0..SERIES).map(|index| silver::part(self.value(id, index), index)).sum::<u128>();
            match rows.count {
                SERIES if rows.sum == sum => drop(found.insert(id)),
                SERIES => tally.corrupted += 1,
                count if count > SERIES => tally.duplicate += 1,
                // Part of a request: it is not there.
                _ => {}
            }
        }
        tally.missing = acked.difference(&found).count() as u64;
        tally
    }

    /// Compares samples (series, time in ms, value) with what was acknowledged.
    pub(crate) fn judge(
        &self,
        samples: impl Iterator<Item = anyhow::Result<(u64, i64, f64)>>,
        acked: &BTreeSet<u64>,
        each: u64,
    ) -> anyhow::Result<Tally> {
        let issued = self.next.load(Ordering::Acquire);
        let mut tally = Tally { issued, acked: acked.len() as u64, ..Tally::default() };
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        for sample in samples {
            let (index, at, value) = sample?;
            let Some(id) = self.id(at).filter(|id| *id < issued) else {
                tally.spurious += 1;
                continue;
            };
            if value.to_bits() != self.value(id, index).to_bits() {
                tally.corrupted += 1;
            } else {
                *found.entry(id).or_default() += 1;
            }
        }
        tally.missing = acked.iter().filter(|id| found.get(id) != Some(&each)).count() as u64;
        Ok(tally)
    }
}
