//! Bar 2d: detection stalls under full load. Memory does not grow with the backlog, nothing is lost, and the backlog
//! drains at least twice as fast as it grew.
//!
//! Only the detection thread is stopped, inside a system call; all others continue.

use std::time::{Duration, Instant};

use wardroom_testing::Server;

use crate::bar::{BarOptions, BarResult};
use crate::oracle::sample_load::{SERIES, SampleLoad, Timestamps};
use crate::progress::print_progress;
use crate::server_metrics::detector_lag_records;
use crate::torture::strace::{Strace, rss_kib};

/// Length of the stall per kill; the long form, 30 kills, stalls for ten minutes.
const STALL_DURATION_PER_KILL: Duration = Duration::from_secs(20);
/// Load before the stall.
const WARM_UP_DURATION: Duration = Duration::from_secs(3);
/// The queue of decoded batches is full this long after the start of the stall; memory is compared from then on.
const QUEUE_FILL_DURATION: Duration = Duration::from_secs(8);
/// Time to drain the backlog, beyond the length of the stall.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// Allowed growth of memory during the stall.
const MAX_RSS_RATIO: f64 = 1.1;
/// Minimum load for a valid result.
const MIN_SAMPLES_PER_S: f64 = 20_000.0;
const WRITERS: u64 = 16;
/// Limits the load to 50 000 samples/s.
const WRITE_INTERVAL: Duration = Duration::from_millis(1000 * SERIES * WRITERS / 50_000);

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("2d")?;
    let mut server = Server::start(&dir, "", &[("WARDROOM_MUTANT", options.mutant_name())])?;
    let mut load = SampleLoad::start(&server, WRITERS, WRITE_INTERVAL, options.seed, Timestamps::LAST_HOUR);
    std::thread::sleep(WARM_UP_DURATION);
    let mut result = BarResult::default();
    let stall = STALL_DURATION_PER_KILL * u32::try_from(options.kills)?;
    let acked_before = load.oracle.acked().len();
    // The next of these system calls outlasts the stall.
    let delay =
        format!("inject=futex,read,openat,sched_yield:delay_enter={}", (stall + STALL_DURATION_PER_KILL).as_micros());
    let strace = Strace::attach_thread(&server, "detect", &delay)?;
    let started = Instant::now();
    let (mut min_rss_mib, mut max_rss_mib) = (f64::MAX, 0_f64);
    while started.elapsed() < stall {
        std::thread::sleep(Duration::from_millis(500));
        if started.elapsed() > QUEUE_FILL_DURATION {
            let rss_mib = rss_kib(&server)? / 1024.0;
            (min_rss_mib, max_rss_mib) = (min_rss_mib.min(rss_mib), max_rss_mib.max(rss_mib));
        }
    }
    let backlog = detector_lag_records(&server)?;
    let intake_rate = (load.oracle.acked().len() - acked_before) as f64 / started.elapsed().as_secs_f64();
    drop(strace);
    let resumed = Instant::now();
    let acked_at_resume = load.oracle.acked().len();
    while detector_lag_records(&server)? > intake_rate * 0.5 {
        if resumed.elapsed() > stall + DRAIN_TIMEOUT {
            result.faults.push("the backlog does not drain".to_owned());
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let seconds = resumed.elapsed().as_secs_f64();
    let drain_rate = (backlog + (load.oracle.acked().len() - acked_at_resume) as f64) / seconds;
    load.stop()?;
    print_progress(format!(
        "stalled for {:.0} s at {:.0} samples/s: backlog {backlog:.0} records, RSS {min_rss_mib:.0} to {max_rss_mib:.0} \
         MiB; drained in {seconds:.1} s, {:.1} times the intake rate",
        stall.as_secs_f64(),
        intake_rate * SERIES as f64,
        drain_rate / intake_rate
    ));
    if backlog < intake_rate * stall.as_secs_f64() * 0.8 {
        result.faults.push(format!("detection was not stalled: backlog {backlog} records"));
    }
    if max_rss_mib > min_rss_mib * MAX_RSS_RATIO {
        result.faults.push(format!("memory grew from {min_rss_mib:.0} to {max_rss_mib:.0} MiB"));
    }
    if drain_rate < intake_rate * 2.0 {
        result.faults.push(format!("drained at {:.1} times the intake rate", drain_rate / intake_rate));
    }
    if intake_rate * (SERIES as f64) < MIN_SAMPLES_PER_S {
        result.faults.push(format!("the load was below {MIN_SAMPLES_PER_S} samples/s"));
    }
    server.kill();
    // A request is one record, so one of its series is enough.
    result.add(load.oracle.compare_data(&dir, &load.oracle.acked(), Some(7))?);
    result.kills = 1;
    result.samples_per_s = intake_rate * SERIES as f64;
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}
