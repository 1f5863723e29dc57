//! Bar 1b: acknowledged data survives kills of the server at random moments.
//!
//! Writers post samples, log records and deployments. After the kills everything acknowledged must be read back bit for
//! bit, from the bus and from the lake, and nothing that was never sent.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::Server;

use crate::bar::{BarOptions, BarResult};
use crate::oracle::event_load::EventLoad;
use crate::oracle::lake_contents::{LakeContents, wait_for_lake};
use crate::oracle::sample_load::{SERIES, SampleLoad, SampleOracle, Timestamps};
use crate::progress::print_progress;

/// Many small requests rather than a few large ones: the more acknowledgements are in flight at the moment of a kill,
/// the likelier a lost one is noticed.
const WRITERS: u64 = 16;
/// Limits the load to 60 000 samples/s, above what the bar requires.
const WRITE_INTERVAL: Duration = Duration::from_millis(1000 * SERIES * WRITERS / 60_000);
/// Minimum average load for a valid result.
const MIN_SAMPLES_PER_S: f64 = 20_000.0;
/// Maximum time from a restart until the server is ready.
const MAX_RESTART_DURATION: Duration = Duration::from_secs(5);
/// Timeout of a run.
const RESTART_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("1b")?;
    // Short flushes, so that kills hit the lake's writes as well.
    let environment = [("WARDROOM_MUTANT", options.mutant_name()), ("WARDROOM_LAKE__FLUSH_SECONDS", "2")];
    let mut server = Server::start(&dir, "", &environment)?;
    let started = Instant::now();
    let mut samples = SampleLoad::start(&server, WRITERS, WRITE_INTERVAL, options.seed, Timestamps::LAST_HOUR);
    let mut events = EventLoad::start(&server, options.seed);
    let Kills { kills, comparison_time, slowest_restart } =
        kill_and_restart(&mut server, options, &dir, &samples.oracle)?;
    std::thread::sleep(Duration::from_millis(500));
    samples.stop()?;
    events.stop()?;
    let seconds = (started.elapsed() - comparison_time).as_secs_f64();
    let mut faults = Vec::new();
    if !samples.oracle.send() {
        faults.push("a request after the kills was not acknowledged".to_owned());
    }
    if slowest_restart > MAX_RESTART_DURATION {
        faults.push(format!("a restart took {slowest_restart:?}"));
    }
    wait_for_lake(&server)?;
    server.kill();
    let acked = samples.oracle.acked();
    let samples_per_s = (acked.len() as u64 * SERIES) as f64 / seconds;
    print_progress(format!("{samples_per_s:.0} samples/s acknowledged over {seconds:.0} s, including restarts"));
    anyhow::ensure!(samples_per_s >= MIN_SAMPLES_PER_S, "the load was below {MIN_SAMPLES_PER_S} samples/s");
    let mut result = samples.oracle.compare_data(&dir, &acked, None)?;
    let bus_events = events.compare_bus(&dir)?;
    print_progress(format!(
        "{} requests with log records and deployments, {} acknowledged, {} missing; slowest restart {slowest_restart:?}",
        bus_events.issued, bus_events.acked, bus_events.missing
    ));
    result.add(bus_events);
    let lake = LakeContents::read(&dir, false)?;
    let compared = [samples.oracle.compare_lake(&lake, &acked), events.compare_lake(&lake)];
    for (kind, found) in ["samples", "events"].into_iter().zip(compared) {
        let BarResult { missing, spurious, corrupted, duplicate, .. } = found;
        print_progress(format!(
            "{kind} in the lake: {missing} missing, {spurious} spurious, {corrupted} corrupted, {duplicate} duplicate"
        ));
        // The same requests, already counted.
        result.add(BarResult { issued: 0, acked: 0, ..found });
    }
    result.kills = kills;
    result.samples_per_s = samples_per_s;
    result.faults = faults;
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// What [`kill_and_restart`] did.
struct Kills {
    kills: u64,
    /// Time spent on comparisons between kills.
    comparison_time: Duration,
    /// Longest time from a restart until the server was ready.
    slowest_restart: Duration,
}

/// Kills and restarts the server. With a mutant, compares the data every ten kills while the server is down, and stops
/// once the mutant is caught.
fn kill_and_restart(
    server: &mut Server,
    options: &BarOptions,
    dir: &Path,
    oracle: &SampleOracle,
) -> anyhow::Result<Kills> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let (mut comparison_time, mut slowest_restart) = (Duration::ZERO, Duration::ZERO);
    for kills in 1..=options.kills {
        std::thread::sleep(Duration::from_millis(random.random_range(200..1500)));
        server.kill();
        let mut caught = false;
        if kills % 10 == 0 {
            print_progress(format!("{kills} kills"));
            if options.mutant.is_some() {
                let started = Instant::now();
                caught = !oracle.compare_data(dir, &oracle.acked(), None)?.is_clean();
                comparison_time += started.elapsed();
            }
        }
        let started = Instant::now();
        server.restart()?;
        while server.get("/readyz", &server.sender_token)?.0 != 200 {
            anyhow::ensure!(started.elapsed() < RESTART_TIMEOUT, "not ready {RESTART_TIMEOUT:?} after a restart");
            std::thread::sleep(Duration::from_millis(10));
        }
        slowest_restart = slowest_restart.max(started.elapsed());
        if caught {
            print_progress("caught");
            return Ok(Kills { kills, comparison_time, slowest_restart });
        }
    }
    Ok(Kills { kills: options.kills, comparison_time, slowest_restart })
}
