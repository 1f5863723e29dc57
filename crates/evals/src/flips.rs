//! Bar 4c: a damaged log delivers nothing that was not sent, tells every damage, and loses no more than it.
//!
//! A log is filled by a real server and then damaged in a copy, once for each try: a bit somewhere is turned, or
//! the end of a segment is cut off. What the binary reads back is held against what was sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::{Server, now_ms, server, wire};

use crate::{Options, Tally, tell};

const REQUESTS: u64 = 120;
const SERIES: u64 = 10;

pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-4c-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let base_ms = now_ms() - 600_000;
    // Small segments, so that damage falls into sealed ones and the open one.
    let mut server = Server::start(&dir, "", &[("WARDROOM_BUS__SEGMENT_BYTES", "20000")])?;
    for id in 0..REQUESTS {
        anyhow::ensure!(server.write(&request(id, base_ms))? == 204, "request {id} was not taken");
    }
    server.stop()?;
    let whole = read(&dir.join("data"), options, base_ms)?;
    anyhow::ensure!(whole.0.len() as u64 == REQUESTS && whole.1 == 0, "the undamaged log does not read back whole");
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut tally = Tally::default();
    for attempt in 0..options.kills {
        let copy = dir.join("copy");
        std::fs::create_dir_all(copy.join("bus"))?;
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(dir.join("data/bus"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "seg") {
                let target = copy.join("bus").join(path.file_name().context("no name")?);
                std::fs::copy(&path, &target)?;
                segments.push(target);
            }
        }
        segments.sort();
        let struck = &segments[random.random_range(0..segments.len())];
        let mut bytes = std::fs::read(struck)?;
        anyhow::ensure!(!bytes.is_empty(), "an empty segment");
        let at = random.random_range(0..bytes.len());
        let cut = random.random_bool(0.2);
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << random.random_range(0..8_u32);
        }
        std::fs::write(struck, &bytes)?;
        let (found, told, wrong) = {
            let (found, told) = read(&copy, options, base_ms)?;
            let wrong = found.values().filter(|count| **count != SERIES).count() as u64;
            (found, told, wrong)
        };
        tally.issued += REQUESTS;
        tally.acked += REQUESTS;
        tally.spurious += found.keys().filter(|id| **id >= REQUESTS).count() as u64;
        tally.corrupted += wrong;
        let lost = REQUESTS.saturating_sub(found.len() as u64);
        // A bit costs the record it lies in and is told; a cut costs what lay behind it in that segment.
        if !cut && (lost > 1 || told == 0) {
            tally.missing += lost.saturating_sub(1);
            tally.faults.push(format!("bit at {at} of {}: {lost} records lost, {told} damages told", struck.display()));
        }
        std::fs::remove_dir_all(&copy)?;
        if attempt % 200 == 199 {
            tell(format!("{} damages", attempt + 1));
        }
        if options.mutant.is_some() && !tally.clean() {
            tell("caught");
            break;
        }
    }
    tally.kills = options.kills;
    std::fs::remove_dir_all(&dir)?;
    Ok(tally)
}

/// Samples of each request that reads back right, and how many damages were told. One that reads back wrong
/// is kept under a number that nobody sent.
fn read(data: &Path, options: &Options, base_ms: i64) -> anyhow::Result<(BTreeMap<u64, u64>, usize)> {
    let mut dump = command(&server::program("WARDROOM_BIN"));
    dump.args(["samples", "dump", "--format", "json", "--data"]).arg(data);
    dump.env("WARDROOM_MUTANT", options.mutant.as_deref().unwrap_or_default());
    let output = dump.output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("damaged")).count();
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let sample: serde_json::Value = serde_json::from_str(line)?;
        let index = sample["labels"]["i"].as_str().and_then(|index| index.parse::<u64>().ok());
        let id = sample["ts_ms"].as_i64().and_then(|at| u64::try_from(at - base_ms).ok()).unwrap_or(u64::MAX);
        let right = index.is_some_and(|index| sample["bits"] == format!("{:016x}", value(id, index).to_bits()));
        *found.entry(if right { id } else { u64::MAX }).or_default() += 1;
    }
    Ok((found, told))
}

#[expect(clippy::disallowed_methods, reason = "the oracle runs the program under test")]
fn command(program: &Path) -> Command {
    Command::new(program)
}

fn request(id: u64, base_ms: i64) -> Vec<u8> {
    let series = (0..SERIES).map(|index| {
        let name = index.to_string();
        wire::series(&[("__name__", "oracle"), ("i", &name)], value(id, index), base_ms + id as i64)
    });
    wire::body(series.collect())
}

fn value(id: u64, index: u64) -> f64 {
    (id.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64
}
