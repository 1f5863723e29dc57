//! Sends one-sample requests one after the other, and checks service and data after a disk fault.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use wardroom_testing::{Server, now_ms, remote_write, server};

use crate::bar::BarResult;

/// Requests that [`SequentialOracle::send_batch`] sends.
pub(super) const BATCH_REQUESTS: u64 = 20;
/// Service must be restored within this time after the disk works again.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends numbered requests and records which were acknowledged.
pub(super) struct SequentialOracle {
    base_ms: i64,
    next: u64,
    acked: BTreeSet<u64>,
}

impl SequentialOracle {
    pub(super) fn new() -> Self {
        Self { base_ms: now_ms() - 1_800_000, next: 0, acked: BTreeSet::new() }
    }

    /// Number of acknowledged requests.
    pub(super) fn acked(&self) -> u64 {
        self.acked.len() as u64
    }

    pub(super) fn send_batch(&mut self, server: &Server) {
        for _ in 0..BATCH_REQUESTS {
            self.send(server);
        }
    }

    /// Sends the next request; returns whether it was acknowledged.
    pub(super) fn send(&mut self, server: &Server) -> bool {
        let id = self.next;
        self.next += 1;
        let series = remote_write::series(&[("__name__", "oracle")], id as f64 + 0.5, self.base_ms + id as i64);
        let acked = server.write(&remote_write::body(vec![series])).is_ok_and(|status| status == 204);
        if acked {
            self.acked.insert(id);
        }
        acked
    }

    /// Checks that the server accepts requests again, without a restart, and reports its bus as `ok`.
    pub(super) fn check_recovery(
        &mut self,
        server: &Server,
        fault: &str,
        result: &mut BarResult,
    ) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.send(server) {
            if started.elapsed() > RECOVERY_TIMEOUT {
                result.faults.push(format!("{fault}: no service {RECOVERY_TIMEOUT:?} after the disk works again"));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.send_batch(server);
        let (status, text) = server.get("/readyz", &server.sender_token)?;
        let ready: Value = serde_json::from_str(&text)?;
        if ready["bus"] != "ok" {
            result.faults.push(format!("{fault}: /readyz still returns {status} {text}"));
        }
        Ok(())
    }

    /// Dumps the data of a stopped server and compares it with what was acknowledged.
    pub(super) fn compare_data(&self, dir: &Path) -> anyhow::Result<BarResult> {
        let data = dir.join("data").display().to_string();
        let (code, dump) = server::run(&["samples", "dump", "--data", &data, "--match", "oracle"])?;
        anyhow::ensure!(code == Some(0), "samples dump failed");
        let mut result = BarResult { issued: self.next, acked: self.acked(), ..BarResult::default() };
        let mut found = BTreeSet::new();
        for line in dump.lines() {
            let mut words = line.rsplit(' ');
            let at_ms: i64 = words.next().context("no timestamp")?.parse()?;
            let value: f64 = words.next().context("no value")?.parse()?;
            let id = (at_ms - self.base_ms) as u64;
            if id >= self.next {
                result.spurious += 1;
            } else if value.to_bits() != (id as f64 + 0.5).to_bits() {
                result.corrupted += 1;
            } else {
                found.insert(id);
            }
        }
        result.missing = self.acked.difference(&found).count() as u64;
        Ok(result)
    }
}
