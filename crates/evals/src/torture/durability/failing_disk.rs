//! Bar 4b: a disk that fails or stalls. Nothing is acknowledged that is not on disk, `/readyz` reports the state, and
//! service recovers without a restart.
//!
//! strace injects the faults into system calls of the running server. Each fault has its own server; they run at the
//! same time, since most of the time is spent waiting.

use std::time::{Duration, Instant};

use serde_json::Value;
use wardroom_testing::Server;

use super::sequential_oracle::{BATCH_REQUESTS, SequentialOracle};
use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;
use crate::torture::strace::Strace;

/// A fault of the disk.
struct DiskFault {
    name: &'static str,
    /// Arguments for strace's `-e`.
    inject: &'static [&'static str],
    /// Whether requests must be refused while the fault lasts.
    refuses: bool,
    /// Duration of the fault.
    duration: Duration,
}

const FAULTS: [DiskFault; 5] = [
    DiskFault {
        name: "fdatasync always fails",
        inject: &["inject=fdatasync:error=EIO:when=3+"],
        refuses: true,
        duration: Duration::from_secs(4),
    },
    DiskFault {
        name: "fdatasync fails once",
        inject: &["inject=fdatasync:error=EIO:when=3"],
        refuses: false,
        duration: Duration::from_secs(4),
    },
    DiskFault {
        name: "no space left",
        inject: &["inject=write:error=ENOSPC:when=5+"],
        refuses: true,
        duration: Duration::from_secs(4),
    },
    DiskFault {
        name: "read-only",
        inject: &["inject=write,openat:error=EROFS:when=5+"],
        refuses: true,
        duration: Duration::from_secs(4),
    },
    DiskFault {
        name: "fdatasync takes 10 s",
        inject: &["inject=fdatasync:delay_enter=10000000:when=3"],
        refuses: false,
        duration: Duration::from_secs(13),
    },
];

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let results = std::thread::scope(|scope| {
        let runs: Vec<_> = FAULTS.iter().map(|fault| scope.spawn(|| run_fault(fault, options))).collect();
        runs.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut total = BarResult::default();
    for result in results {
        total.add(result.map_err(|_| anyhow::anyhow!("a fault's thread panicked"))??);
    }
    Ok(total)
}

fn run_fault(fault: &DiskFault, options: &BarOptions) -> anyhow::Result<BarResult> {
    let DiskFault { name, inject, refuses, duration } = *fault;
    let dir = options.create_dir(&format!("4b-{}", name.replace(' ', "-")))?;
    let mut result = BarResult { kills: 1, ..BarResult::default() };
    let mut server = Server::start(&dir, "", &[("WARDROOM_MUTANT", options.mutant_name())])?;
    let mut oracle = SequentialOracle::new();
    oracle.send_batch(&server);
    anyhow::ensure!(oracle.acked() == BATCH_REQUESTS, "a request was refused before the fault");
    let strace = Strace::attach(&server, inject)?;
    let (mut refused, mut reported) = (0, String::new());
    let end = Instant::now() + duration;
    while Instant::now() < end {
        if !oracle.send(&server) {
            refused += 1;
            let (_, text) = server.get("/readyz", &server.sender_token)?;
            let ready: Value = serde_json::from_str(&text)?;
            reported = ready["bus"].as_str().unwrap_or_default().to_owned();
        } else if refuses && refused > 1 {
            result.faults.push(format!("{name}: acknowledged after the first refusals"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(strace);
    if refuses && (refused == 0 || reported == "ok" || reported.is_empty()) {
        result.faults.push(format!("{name}: {refused} refused, /readyz reports {reported:?}"));
    }
    oracle.check_recovery(&server, name, &mut result)?;
    server.kill();
    let found = oracle.compare_data(&dir)?;
    print_progress(format!(
        "{name}: {refused} refused ({reported}), {} acknowledged, {} missing",
        found.acked, found.missing
    ));
    result.add(found);
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}
