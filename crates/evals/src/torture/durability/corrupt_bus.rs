//! Bar 4c: a damaged bus delivers nothing that was not sent, reports the damage, and loses no more than the damaged
//! record.
//!
//! A server fills the bus. For each attempt a copy of it is damaged (one bit flipped, or the end of a segment cut off),
//! and what the binary reads back is compared with what was sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use wardroom_testing::{Server, now_ms, remote_write, server};

use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

/// Requests on the bus.
const REQUESTS: u64 = 120;
/// Series of a request, one sample each.
const SERIES: u64 = 10;

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("4c")?;
    let base_ms = now_ms() - 600_000;
    // Small segments, so that sealed segments and the open one are damaged.
    let mut server = Server::start(&dir, "", &[("WARDROOM_BUS__SEGMENT_BYTES", "20000")])?;
    for id in 0..REQUESTS {
        anyhow::ensure!(server.write(&request(id, base_ms))? == 204, "request {id} was refused");
    }
    server.stop()?;
    let undamaged = read_back(&dir.join("data"), options, base_ms)?;
    anyhow::ensure!(
        undamaged.requests.len() as u64 == REQUESTS && undamaged.damages == 0,
        "the undamaged bus is not read back"
    );
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut result = BarResult::default();
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
        let damaged = &segments[random.random_range(0..segments.len())];
        let mut bytes = std::fs::read(damaged)?;
        anyhow::ensure!(!bytes.is_empty(), "a segment is empty");
        let position = random.random_range(0..bytes.len());
        let truncate = random.random_bool(0.2);
        if truncate {
            bytes.truncate(position);
        } else {
            bytes[position] ^= 1 << random.random_range(0..8_u32);
        }
        std::fs::write(damaged, &bytes)?;
        let ReadBack { requests, damages } = read_back(&copy, options, base_ms)?;
        result.issued += REQUESTS;
        result.acked += REQUESTS;
        result.spurious += requests.keys().filter(|id| **id >= REQUESTS).count() as u64;
        result.corrupted += requests.values().filter(|count| **count != SERIES).count() as u64;
        let lost = REQUESTS.saturating_sub(requests.len() as u64);
        // A flipped bit may cost the record it lies in and must be reported; truncation costs the rest of the segment.
        if !truncate && (lost > 1 || damages == 0) {
            result.missing += lost.saturating_sub(1);
            result.faults.push(format!(
                "bit flipped at {position} of {}: {lost} records lost, {damages} damages reported",
                damaged.display()
            ));
        }
        std::fs::remove_dir_all(&copy)?;
        if attempt % 200 == 199 {
            print_progress(format!("{} attempts", attempt + 1));
        }
        if options.mutant.is_some() && !result.is_clean() {
            print_progress("caught");
            break;
        }
    }
    result.kills = options.kills;
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// What the binary reads from a data folder.
struct ReadBack {
    /// Number of correct samples of each request. Wrong samples count for the request `u64::MAX`, which was not sent.
    requests: BTreeMap<u64, u64>,
    /// Damages reported on standard error.
    damages: usize,
}

fn read_back(data: &Path, options: &BarOptions, base_ms: i64) -> anyhow::Result<ReadBack> {
    let mut dump = command(&server::program("WARDROOM_BIN"));
    dump.args(["samples", "dump", "--format", "json", "--data"]).arg(data);
    dump.env("WARDROOM_MUTANT", options.mutant_name());
    let output = dump.output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let damages = String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("damaged")).count();
    let mut requests = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let sample: serde_json::Value = serde_json::from_str(line)?;
        let index = sample["labels"]["i"].as_str().and_then(|index| index.parse::<u64>().ok());
        let id = sample["ts_ms"].as_i64().and_then(|ts_ms| u64::try_from(ts_ms - base_ms).ok()).unwrap_or(u64::MAX);
        let correct = index.is_some_and(|index| sample["bits"] == format!("{:016x}", value(id, index).to_bits()));
        *requests.entry(if correct { id } else { u64::MAX }).or_default() += 1;
    }
    Ok(ReadBack { requests, damages })
}

#[expect(clippy::disallowed_methods, reason = "the oracle runs the program under test")]
fn command(program: &Path) -> Command {
    Command::new(program)
}

fn request(id: u64, base_ms: i64) -> Vec<u8> {
    let series = (0..SERIES).map(|index| {
        let name = index.to_string();
        remote_write::series(&[("__name__", "oracle"), ("i", &name)], value(id, index), base_ms + id as i64)
    });
    remote_write::body(series.collect())
}

fn value(id: u64, index: u64) -> f64 {
    (id.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 11) as f64
}
