//! Checks of what Wardroom stored and detected during `bench intake`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::ensure;
use serde_json::Value;
use wardroom_domain::Timestamp;
use wardroom_testing::Server;

use super::remote_write_bodies::{Bodies, STEP_MS, series_id};

/// A shift must be reported within this many samples.
const MAX_DETECTION_STEPS: i64 = 10;

/// Samples of the verified series.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadBack {
    pub(super) sent: u64,
    /// Samples read with the same bits.
    pub(super) read: u64,
    /// Average time of a query, in ms.
    pub(super) query_ms: f64,
}

/// Reads the samples of the verified series of the last hour and compares them bit for bit.
pub(super) fn read_back_samples(server: &Server, bodies: &Bodies) -> anyhow::Result<ReadBack> {
    let start_ms = bodies.end_ms - 3_600_000;
    let (mut sent, mut read) = (0_u64, 0_u64);
    let started = Instant::now();
    for (number, samples) in &bodies.verified {
        let selector = format!("%7Bid%3D%22{}%22%7D", series_id(*number));
        let start = start_ms as f64 / 1000.0;
        let (mut cursor, mut found) = ("0".to_owned(), BTreeSet::new());
        loop {
            let path = format!("/api/v1/samples?match[]={selector}&start={start}&cursor={cursor}");
            let (status, text) = server.get(&path, &server.responder_token)?;
            ensure!(status == 200, "{text}");
            let page: Value = serde_json::from_str(&text)?;
            for sample in
                page["series"].as_array().into_iter().flatten().flat_map(|s| s["samples"].as_array()).flatten()
            {
                let bits = u64::from_str_radix(sample[2].as_str().unwrap_or_default(), 16)?;
                found.insert((sample[0].as_i64().unwrap_or_default(), bits));
            }
            match &page["next"] {
                Value::String(next) => cursor.clone_from(next),
                _ => break,
            }
        }
        let expected: BTreeSet<_> = samples.iter().copied().filter(|(ts_ms, _)| *ts_ms >= start_ms).collect();
        sent += expected.len() as u64;
        read += expected.intersection(&found).count() as u64;
        ensure!(found.is_subset(&expected), "{} was read with samples that were not sent", series_id(*number));
    }
    let query_ms = started.elapsed().as_secs_f64() * 1000.0 / bodies.verified.len() as f64;
    Ok(ReadBack { sent, read, query_ms })
}

/// Counts the injected shifts that are listed as anomalies.
pub(super) fn count_found_shifts(server: &Server, bodies: &Bodies) -> anyhow::Result<Value> {
    let mut anomalies: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let (mut cursor, mut total) = (String::new(), 0_u64);
    loop {
        let (status, text) = server.get(&format!("/api/v1/anomalies?since=0{cursor}"), &server.responder_token)?;
        ensure!(status == 200, "{text}");
        let page: Value = serde_json::from_str(&text)?;
        for anomaly in page["anomalies"].as_array().into_iter().flatten() {
            total += 1;
            let at = Timestamp::parse(anomaly["at"].as_str().unwrap_or_default()).map_err(anyhow::Error::msg)?;
            let id = anomaly["series"]["id"].as_str().unwrap_or_default();
            anomalies.entry(id.to_owned()).or_default().push(at.millis());
        }
        match &page["next"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => break,
        }
    }
    let found = bodies.shifts.iter().filter(|(number, shift_ms)| {
        let in_time = |ts_ms: &i64| (*shift_ms..=shift_ms + MAX_DETECTION_STEPS * STEP_MS).contains(ts_ms);
        anomalies.get(&series_id(*number)).is_some_and(|times| times.iter().any(in_time))
    });
    Ok(serde_json::json!({ "injected": bodies.shifts.len(), "found": found.count(), "anomalies": total }))
}
