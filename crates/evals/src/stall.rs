//! Bar 2d: detection stands still under full load. Memory does not grow with what waits, nothing is lost, and the
//! backlog goes faster than it came.
//!
//! The thread of detection alone is held, in the middle of a system call, while all others go on.

use std::time::{Duration, Instant};

use anyhow::Context;
use wardroom_testing::Server;

use crate::ack::{Load, SERIES, Spread};
use crate::strace::{Strace, rss_kib};
use crate::{Options, Tally, tell};

/// What `--kills 1` holds it for; the long form is 20 of it.
const HELD: Duration = Duration::from_secs(30);
const WRITERS: u64 = 16;
/// 50 000 samples/s in all.
const PACE: Duration = Duration::from_millis(1000 * SERIES * WRITERS / 50_000);

/// Runs the bar.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-2d-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let mutant = options.mutant.as_deref().unwrap_or_default();
    let mut server = Server::start(&dir, "", &[("WARDROOM_MUTANT", mutant)])?;
    let mut load = Load::start(&server, WRITERS, PACE, options.seed, Spread::RECENT);
    std::thread::sleep(Duration::from_secs(5));
    let mut tally = Tally::default();
    let held = HELD * u32::try_from(options.kills)?;
    let before = load.oracle.acked().len();
    // A wait for the next batch that never ends.
    let delay = format!("inject=futex,read,openat,sched_yield:delay_enter={}", (held + HELD).as_micros());
    let strace = Strace::attach_thread(&server, "detect", &delay)?;
    let started = Instant::now();
    let (mut least, mut most) = (f64::MAX, 0_f64);
    while started.elapsed() < held {
        std::thread::sleep(Duration::from_millis(500));
        // What may wait decoded is full after a few seconds.
        if started.elapsed() > Duration::from_secs(10) {
            let rss = rss_kib(&server)? / 1024.0;
            (least, most) = (least.min(rss), most.max(rss));
        }
    }
    let waiting = lag(&server)?;
    let came = (load.oracle.acked().len() - before) as f64 / started.elapsed().as_secs_f64();
    drop(strace);
    let resumed = Instant::now();
    let arrived = load.oracle.acked().len();
    while lag(&server)? > came * 0.5 {
        if resumed.elapsed() > held + Duration::from_secs(60) {
            tally.faults.push("the backlog does not go".to_owned());
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let seconds = resumed.elapsed().as_secs_f64();
    let drained = (waiting + (load.oracle.acked().len() - arrived) as f64) / seconds;
    load.stop()?;
    tell(format!(
        "held {:.0} s at {:.0} samples/s: {waiting:.0} records waited, RSS {least:.0} to {most:.0} MiB; gone in {seconds:.1} s, {:.1} × as fast as they came",
        held.as_secs_f64(),
        came * SERIES as f64,
        drained / came
    ));
    if waiting < came * held.as_secs_f64() * 0.8 {
        tally.faults.push(format!("detection was not held: {waiting} records waited"));
    }
    if most > least * 1.1 {
        tally.faults.push(format!("memory went from {least:.0} to {most:.0} MiB"));
    }
    if drained < came * 2.0 {
        tally.faults.push(format!("drained at {:.1} × the rate of intake", drained / came));
    }
    if came * (SERIES as f64) < 20_000.0 {
        tally.faults.push("the load was too small for the bar to mean anything".to_owned());
    }
    server.kill();
    // One series of each request stands for all: a request is one record.
    tally.add(load.oracle.compare(&dir, &load.oracle.acked(), Some(7))?);
    tally.kills = 1;
    tally.samples_per_s = came * SERIES as f64;
    std::fs::remove_dir_all(&dir)?;
    Ok(tally)
}

/// Records that wait for detection, by the end of the bus and /metrics, which intake still answers.
fn lag(server: &Server) -> anyhow::Result<f64> {
    let (_, text) = server.get("/metrics", &server.responder)?;
    let figure = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.with_context(|| format!("/metrics does not name {name}"))?
            .trim()
            .parse::<f64>()
            .map_err(anyhow::Error::from)
    };
    figure("wardroom_detect_lag_records")
}
