//! Bar 1f: a full disk. Nothing is acknowledged that is not on disk, `/readyz` reports the state, and service recovers
//! without a restart.
//!
//! The bus lies on a small tmpfs in the server's own mount namespace (needs no root), which is filled to the last byte.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use wardroom_testing::Server;

use super::sequential_oracle::SequentialOracle;
use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;
use crate::torture::strace::server_pid;

/// Time for which requests are sent while the disk is full.
const FULL_DISK_DURATION: Duration = Duration::from_secs(4);

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("1f")?;
    std::fs::create_dir_all(dir.join("data/bus"))?;
    let mount = format!("mount -t tmpfs -o size=16m none '{}' && exec \"$@\"", dir.join("data/bus").display());
    let wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
    let mut server = Server::start_wrapped(&dir, "", &[("WARDROOM_MUTANT", options.mutant_name())], &wrapper)?;
    let pid = server_pid(&server)?;
    // The bus folder as the server's mount namespace shows it.
    let bus = Path::new("/proc").join(pid.to_string()).join("root").join(dir.strip_prefix("/")?).join("data/bus");
    let mut oracle = SequentialOracle::new();
    oracle.send_batch(&server);
    let mut result = BarResult::default();
    let filler = bus.join("filler");
    let mut file = std::fs::File::create(&filler)?;
    while std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
    let (mut first_refusal, mut acked_after) = (None, 0);
    let end = Instant::now() + FULL_DISK_DURATION;
    while Instant::now() < end {
        match (oracle.send(&server), first_refusal) {
            (false, None) => first_refusal = Some(Instant::now()),
            (true, Some(_)) => acked_after += 1,
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if first_refusal.is_none() || acked_after > 0 {
        result.faults.push(format!(
            "full disk: {acked_after} acknowledged after the first refusal, refused at all: {}",
            first_refusal.is_some()
        ));
    }
    let (_, text) = server.get("/readyz", &server.sender_token)?;
    print_progress(format!("full disk: /readyz returns {text}"));
    drop(file);
    std::fs::remove_file(&filler)?;
    oracle.check_recovery(&server, "full disk", &mut result)?;
    let copy = dir.join("copy");
    std::fs::create_dir_all(copy.join("data/bus"))?;
    for entry in std::fs::read_dir(&bus)? {
        let path = entry?.path();
        if path.is_file() {
            std::fs::copy(&path, copy.join("data/bus").join(path.file_name().context("no name")?))?;
        }
    }
    server.kill();
    result.add(oracle.compare_data(&copy)?);
    result.kills = 1;
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}
