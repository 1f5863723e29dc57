//! Bar 1b: an acknowledgement means "on disk".
//!
//! Writers post requests whose content is a function of their number; the oracle notes which were
//! acknowledged. The server is killed at random moments. Afterwards everything acknowledged must read
//! back, bit for bit, and nothing may be there that was never sent.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::{Server, now_ms, server, wire};

use crate::{Options, Tally, tell};

const SERIES: u64 = 100;
/// Many small requests rather than few large ones: the more acknowledgements are on their way at the moment
/// of a kill, the surer a lost one is noticed.
const WRITERS: u64 = 16;
/// Requests a second of each writer at most: 60 000 samples/s in all, above what bar 1b asks for.
const PACE: Duration = Duration::from_millis(1000 * SERIES * WRITERS / 60_000);

pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-1b-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let mutant = options.mutant.clone().unwrap_or_default();
    let environment: Vec<(&str, &str)> =
        if mutant.is_empty() { vec![] } else { vec![("WARDROOM_MUTANT", mutant.as_str())] };
    let mut server = Server::start(&dir, "", &environment)?;
    let base_ms = now_ms() - 3_600_000;
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let acked = Arc::new(Mutex::new(BTreeSet::new()));
    let started = Instant::now();
    let client = Arc::new(Client { url: server.url.clone(), token: server.sender.clone() });
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (stop, next, acked, client) =
                (Arc::clone(&stop), Arc::clone(&next), Arc::clone(&acked), Arc::clone(&client));
            let seed = options.seed;
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let id = next.fetch_add(1, Ordering::AcqRel);
                    let sent = Instant::now();
                    if client.send(request(id, seed, base_ms)) {
                        acked.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
                        std::thread::sleep(PACE.saturating_sub(sent.elapsed()));
                    } else {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            })
        })
        .collect();
    let (kills, looking) = torment(&mut server, options, &dir, &acked, &next, base_ms)?;
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Release);
    for writer in writers {
        writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?;
    }
    let seconds = (started.elapsed() - looking).as_secs_f64();
    // A fresh request must pass once the trouble is over.
    let last = next.fetch_add(1, Ordering::AcqRel);
    let mut faults = Vec::new();
    if client.send(request(last, options.seed, base_ms)) {
        acked.lock().unwrap_or_else(PoisonError::into_inner).insert(last);
    } else {
        faults.push("the probe after the kills was not acknowledged".to_owned());
    }
    server.kill();
    let acked = known(&acked);
    let issued = last + 1;
    let samples_per_s = (acked.len() as u64 * SERIES) as f64 / seconds;
    tell(format!("{samples_per_s:.0} samples/s acknowledged over {seconds:.0} s, restarts counted in"));
    anyhow::ensure!(samples_per_s >= 20_000.0, "the load was too small for the bar to mean anything");
    let mut tally = compare(&dir, &acked, issued, options.seed, base_ms)?;
    tally.kills = kills;
    tally.samples_per_s = samples_per_s;
    tally.faults = faults;
    std::fs::remove_dir_all(&dir)?;
    Ok(tally)
}

/// Kills and restarts as often as asked; how often, and how long was spent on looking in between. A fault on
/// purpose is looked for on the way, so that its run may end once it is caught: while the server is down,
/// nothing more can be acknowledged.
fn torment(
    server: &mut Server,
    options: &Options,
    dir: &std::path::Path,
    acked: &Mutex<BTreeSet<u64>>,
    next: &AtomicU64,
    base_ms: i64,
) -> anyhow::Result<(u64, Duration)> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut looking = Duration::ZERO;
    for kills in 1..=options.kills {
        std::thread::sleep(Duration::from_millis(random.random_range(200..1500)));
        server.kill();
        let mut caught = false;
        if kills % 10 == 0 {
            tell(format!("{kills} kills"));
            if options.mutant.is_some() {
                let started = Instant::now();
                let so_far = compare(dir, &known(acked), next.load(Ordering::Acquire), options.seed, base_ms)?;
                caught = !so_far.clean();
                looking += started.elapsed();
            }
        }
        server.restart()?;
        if caught {
            tell("caught");
            return Ok((kills, looking));
        }
    }
    Ok((options.kills, looking))
}

fn known(acked: &Mutex<BTreeSet<u64>>) -> BTreeSet<u64> {
    acked.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Client {
    url: String,
    token: String,
}

impl Client {
    /// Whether the request was acknowledged.
    fn send(&self, body: Vec<u8>) -> bool {
        thread_local! {
            static AGENT: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(Duration::from_secs(5)))
                .build()
                .new_agent();
        }
        AGENT.with(|agent| {
            let request = agent
                .post(format!("{}/api/v1/write", self.url))
                .header("Authorization", format!("Bearer {}", self.token))
                .header("Content-Type", "application/x-protobuf")
                .header("Content-Encoding", "snappy");
            request.send(&body[..]).is_ok_and(|answer| answer.status().is_success())
        })
    }
}

/// The content of a request is a function of its number.
fn request(id: u64, seed: u64, base_ms: i64) -> Vec<u8> {
    let series = (0..SERIES).map(|index| {
        let name = index.to_string();
        wire::series(&[("__name__", "oracle"), ("i", &name)], value(id, index, seed), base_ms + id as i64)
    });
    wire::body(series.collect())
}

fn value(id: u64, index: u64, seed: u64) -> f64 {
    let mixed = (id ^ seed.rotate_left(32))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(index)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 11) as f64
}

/// Reads everything back from the data folder and compares.
fn compare(
    dir: &std::path::Path,
    acked: &BTreeSet<u64>,
    issued: u64,
    seed: u64,
    base_ms: i64,
) -> anyhow::Result<Tally> {
    let data = dir.join("data").display().to_string();
    let (code, dump) = server::run(&["samples", "dump", "--data", &data, "--match", "oracle"])?;
    anyhow::ensure!(code == Some(0), "samples dump failed");
    let mut tally = Tally { issued, acked: acked.len() as u64, ..Tally::default() };
    let mut found: std::collections::BTreeMap<u64, u64> = std::collections::BTreeMap::new();
    for line in dump.lines() {
        let (labels, rest) = line.rsplit_once("} ").context("a line without labels")?;
        let (text, at) = rest.split_once(' ').context("a line without a time")?;
        let id = (at.parse::<i64>()? - base_ms) as u64;
        let index = labels.split("i=\"").nth(1).and_then(|tail| tail.split('"').next()).context("no label i")?;
        if id >= issued {
            tally.spurious += 1;
        } else if text.parse::<f64>()?.to_bits() != value(id, index.parse()?, seed).to_bits() {
            tally.corrupted += 1;
        } else {
            *found.entry(id).or_default() += 1;
        }
    }
    tally.missing = acked.iter().filter(|id| found.get(id) != Some(&SERIES)).count() as u64;
    Ok(tally)
}
