//! Samples over remote_write whose content is a function of the request's number, so that every stored sample can be
//! checked bit for bit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use wardroom_testing::{Server, now_ms, remote_write, server};

use super::lake_contents::{LakeContents, row_checksum};
use crate::bar::BarResult;

/// Series of a request, one sample each.
pub(crate) const SERIES: u64 = 100;
/// Pause after a request that was not acknowledged.
const RETRY_DELAY: Duration = Duration::from_millis(20);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Timestamps of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timestamps {
    /// Distance of the first request's timestamp from now.
    pub(crate) start_ago_ms: i64,
    /// Step from one request to the next.
    pub(crate) step_ms: i64,
}

impl Timestamps {
    /// Within the last hour.
    pub(crate) const LAST_HOUR: Self = Self { start_ago_ms: 3_600_000, step_ms: 1 };
}

/// Writers that post requests until they are stopped.
pub(crate) struct SampleLoad {
    pub(crate) oracle: Arc<SampleOracle>,
    stop: Arc<AtomicBool>,
    writers: Vec<std::thread::JoinHandle<()>>,
}

impl SampleLoad {
    /// Starts `writers` threads that each send at most one request per `interval`.
    pub(crate) fn start(server: &Server, writers: u64, interval: Duration, seed: u64, timestamps: Timestamps) -> Self {
        let oracle = Arc::new(SampleOracle {
            url: server.url.clone(),
            token: server.sender_token.clone(),
            seed,
            base_ms: now_ms() - timestamps.start_ago_ms,
            step_ms: timestamps.step_ms,
            next: AtomicU64::new(0),
            acked: Mutex::default(),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let spawn_writer = |_| {
            let (stop, oracle) = (Arc::clone(&stop), Arc::clone(&oracle));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    let sent = Instant::now();
                    if oracle.send() {
                        std::thread::sleep(interval.saturating_sub(sent.elapsed()));
                    } else {
                        std::thread::sleep(RETRY_DELAY);
                    }
                }
            })
        };
        Self { writers: (0..writers).map(spawn_writer).collect(), stop, oracle }
    }

    /// Stops the writers and waits for them.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.writers.drain(..).try_for_each(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked")))
    }
}

/// Sends numbered requests and records which were acknowledged.
pub(crate) struct SampleOracle {
    url: String,
    token: String,
    seed: u64,
    base_ms: i64,
    step_ms: i64,
    next: AtomicU64,
    acked: Mutex<BTreeSet<u64>>,
}

impl SampleOracle {
    /// Posts the next request; returns whether it was acknowledged.
    pub(crate) fn send(&self) -> bool {
        thread_local! {
            static AGENT: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(REQUEST_TIMEOUT))
                .build()
                .new_agent();
        }
        let id = self.next.fetch_add(1, Ordering::AcqRel);
        let acked = AGENT.with(|agent| {
            let request = agent
                .post(format!("{}/api/v1/write", self.url))
                .header("Authorization", format!("Bearer {}", self.token))
                .header("Content-Type", "application/x-protobuf")
                .header("Content-Encoding", "snappy");
            request.send(&self.body(id)[..]).is_ok_and(|response| response.status().is_success())
        });
        if acked {
            self.acked.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        acked
    }

    /// Numbers of the requests acknowledged so far.
    pub(crate) fn acked(&self) -> BTreeSet<u64> {
        self.acked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn body(&self, id: u64) -> Vec<u8> {
        let series = (0..SERIES).map(|index| {
            let name = index.to_string();
            let labels = [("__name__", "oracle"), ("i", name.as_str())];
            remote_write::series(&labels, self.value(id, index), self.base_ms + id as i64 * self.step_ms)
        });
        remote_write::body(series.collect())
    }

    fn value(&self, id: u64, index: u64) -> f64 {
        let mixed = (id ^ self.seed.rotate_left(32))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(index)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 11) as f64
    }

    /// Returns the number of the request whose samples have this timestamp.
    fn request_id(&self, at_ms: i64) -> Option<u64> {
        let since = at_ms - self.base_ms;
        u64::try_from(since / self.step_ms).ok().filter(|_| since % self.step_ms == 0)
    }

    /// Dumps a data folder and compares it with `acked`: all series, or only the series with index `only`.
    pub(crate) fn compare_data(
        &self,
        dir: &Path,
        acked: &BTreeSet<u64>,
        only: Option<u64>,
    ) -> anyhow::Result<BarResult> {
        let data = dir.join("data").display().to_string();
        let selector = only.map_or("oracle".to_owned(), |index| format!("oracle{{i=\"{index}\"}}"));
        let (code, dump) = server::run(&["samples", "dump", "--data", &data, "--match", &selector])?;
        anyhow::ensure!(code == Some(0), "samples dump failed");
        let samples = dump.lines().map(|line| {
            let (labels, rest) = line.rsplit_once("} ").context("a line without labels")?;
            let (value, ts_ms) = rest.split_once(' ').context("a line without a timestamp")?;
            let index = labels.split("i=\"").nth(1).and_then(|tail| tail.split('"').next()).context("no label i")?;
            Ok((index.parse()?, ts_ms.parse()?, value.parse::<f64>()?))
        });
        self.compare_samples(samples, acked, if only.is_some() { 1 } else { SERIES })
    }

    /// Compares the lake with `acked`: every request must be there as a whole, and once.
    pub(crate) fn compare_lake(&self, lake: &LakeContents, acked: &BTreeSet<u64>) -> BarResult {
        let issued = self.next.load(Ordering::Acquire);
        let mut result = BarResult { issued, acked: acked.len() as u64, ..BarResult::default() };
        let mut found = BTreeSet::new();
        for (at_ms, rows) in &lake.requests {
            let Some(id) = self.request_id(*at_ms).filter(|id| *id < issued) else {
                result.spurious += 1;
                continue;
            };
            let sum = (0..SERIES).map(|index| row_checksum(self.value(id, index), index)).sum::<u128>();
            match rows.count {
                SERIES if rows.sum == sum => drop(found.insert(id)),
                SERIES => result.corrupted += 1,
                count if count > SERIES => result.duplicate += 1,
                // A part of a request counts as missing.
                _ => {}
            }
        }
        result.missing = acked.difference(&found).count() as u64;
        result
    }

    /// Compares samples (series index, timestamp in ms, value) with `acked`; each request must have `series` of them.
    pub(crate) fn compare_samples(
        &self,
        samples: impl Iterator<Item = anyhow::Result<(u64, i64, f64)>>,
        acked: &BTreeSet<u64>,
        series: u64,
    ) -> anyhow::Result<BarResult> {
        let issued = self.next.load(Ordering::Acquire);
        let mut result = BarResult { issued, acked: acked.len() as u64, ..BarResult::default() };
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        for sample in samples {
            let (index, at_ms, value) = sample?;
            let Some(id) = self.request_id(at_ms).filter(|id| *id < issued) else {
                result.spurious += 1;
                continue;
            };
            if value.to_bits() != self.value(id, index).to_bits() {
                result.corrupted += 1;
            } else {
                *found.entry(id).or_default() += 1;
            }
        }
        result.missing = acked.iter().filter(|id| found.get(id) != Some(&series)).count() as u64;
        Ok(result)
    }
}
