//! Bar 1b beside the samples: log lines over OTLP and deployments, read back from the bodies on the bus, which another
//! decoder than the receiver's opens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use serde_json::{Value, json};
use wardroom_bus::ReadOnlyBus;
use wardroom_domain::Timestamp;
use wardroom_testing::{Server, now_ms};

use crate::Tally;
use crate::silver::Silver;

/// Requests a second of each kind: 500 log lines and 50 deployments.
const PACE: Duration = Duration::from_millis(20);
/// Lines of a request.
const LINES: u64 = 10;

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Logs,
    Deployments,
}

/// What was issued of a kind, and what was acknowledged.
#[derive(Debug)]
struct Issued {
    kind: Kind,
    next: AtomicU64,
    acked: Mutex<BTreeSet<u64>>,
}

/// Two writers that post until they are stopped.
pub(crate) struct Events {
    seed: u64,
    stop: Arc<AtomicBool>,
    issued: Vec<Arc<Issued>>,
    writers: Vec<std::thread::JoinHandle<()>>,
}

impl Events {
    /// Starts them.
    pub(crate) fn start(server: &Server, seed: u64) -> Self {
        let (stop, mut issued, mut writers) = (Arc::new(AtomicBool::new(false)), Vec::new(), Vec::new());
        for kind in [Kind::Logs, Kind::Deployments] {
            let own = Arc::new(Issued { kind, next: AtomicU64::new(0), acked: Mutex::default() });
            issued.push(Arc::clone(&own));
            let (stop, url, token) = (Arc::clone(&stop), server.url.clone(), server.sender.clone());
            writers.push(std::thread::spawn(move || own.write(&url, &token, seed, &stop)));
        }
        Self { seed, stop, issued, writers }
    }

    /// Ends them.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.writers.drain(..).try_for_each(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked")))
    }

    /// Compares what the tables hold: every line and deployment that was acknowledged, once.
    pub(crate) fn judge_silver(&self, silver: &Silver) -> Tally {
        let mut tally = Tally::default();
        for issued in &self.issued {
            let found = if issued.kind == Kind::Logs { &silver.logs } else { &silver.deployments };
            let next = issued.next.load(Ordering::Acquire);
            let acked = issued.acked.lock().unwrap_or_else(PoisonError::into_inner);
            let written: BTreeMap<String, u64> = (0..next)
                .flat_map(|id| issued.kind.written(id, self.seed).into_iter().map(move |text| (text, id)))
                .collect();
            for (text, count) in found {
                match written.get(text) {
                    None => tally.spurious += 1,
                    Some(_) if *count > 1 => tally.duplicate += 1,
                    Some(_) => {}
                }
            }
            let there = |id: &u64| issued.kind.written(*id, self.seed).iter().all(|text| found.contains_key(text));
            tally.missing += acked.iter().filter(|id| !there(id)).count() as u64;
        }
        tally
    }

    /// Reads the bus back and compares.
    pub(crate) fn compare(&self, dir: &Path) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        let mut found: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); self.issued.len()];
        let bus = ReadOnlyBus::open(&dir.join("data/bus"))?;
        let mut next = 0;
        loop {
            let records = bus.read(next, 1000)?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            for record in records {
                for (issued, found) in self.issued.iter().zip(&mut found) {
                    if issued.kind.protocol() != record.envelope.protocol {
                        continue;
                    }
                    let texts = issued.kind.texts(&record.body);
                    let id = texts.first().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
                    match id {
                        Some(id) if id >= issued.next.load(Ordering::Acquire) => tally.spurious += 1,
                        Some(id) if texts == issued.kind.written(id, self.seed) => drop(found.insert(id)),
                        _ => tally.corrupted += 1,
                    }
                }
            }
        }
        for (issued, found) in self.issued.iter().zip(&found) {
            let acked = issued.acked.lock().unwrap_or_else(PoisonError::into_inner);
            tally.issued += issued.next.load(Ordering::Acquire);
            tally.acked += acked.len() as u64;
            tally.missing += acked.difference(found).count() as u64;
        }
        Ok(tally)
    }
}

impl Issued {
    fn write(&self, url: &str, token: &str, seed: u64, stop: &AtomicBool) {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .new_agent();
        while !stop.load(Ordering::Acquire) {
            let sent = Instant::now();
            let id = self.next.fetch_add(1, Ordering::AcqRel);
            let (path, content_type, body) = self.kind.request(id, seed);
            let request = agent.post(format!("{url}{path}")).header("Authorization", format!("Bearer {token}"));
            let answer = request.header("Content-Type", content_type).send(&body[..]);
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                self.acked.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            }
            std::thread::sleep(PACE.saturating_sub(sent.elapsed()));
        }
    }
}

impl Kind {
    const fn protocol(self) -> &'static str {
        match self {
            Self::Logs => "otlp_logs",
            Self::Deployments => "json_deployment",
        }
    }

    /// What a request says, as a function of its number.
    fn written(self, id: u64, seed: u64) -> Vec<String> {
        let lines = if self == Self::Logs { LINES } else { 1 };
        let mixed = |line: u64| (id ^ seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(line);
        (0..lines).map(|line| format!("{id} {line} {:016x}", mixed(line))).collect()
    }

    fn request(self, id: u64, seed: u64) -> (&'static str, &'static str, Vec<u8>) {
        let texts = self.written(id, seed);
        match self {
            Self::Logs => {
                let at = now_ms() as u64 * 1_000_000;
                let record = |text: String| LogRecord {
                    time_unix_nano: at,
                    body: Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }),
                    ..LogRecord::default()
                };
                let log_records = texts.into_iter().map(record).collect();
                let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
                let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
                ("/v1/logs", "application/x-protobuf", ExportLogsServiceRequest { resource_logs }.encode_to_vec())
            }
            Self::Deployments => {
                let at = Timestamp::from_millis(now_ms()).to_string();
                let body = json!({ "timestamp": at, "service": "oracle", "version": texts[0], "status": "success" });
                ("/ingest/deployment", "application/json", body.to_string().into_bytes())
            }
        }
    }

    /// What a body says; nothing if it cannot be read.
    fn texts(self, body: &[u8]) -> Vec<String> {
        match self {
            Self::Logs => {
                let request = ExportLogsServiceRequest::decode(body).unwrap_or_default();
                let records = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
                let records = records.flat_map(|scope| scope.log_records);
                records
                    .filter_map(|record| match record.body?.value? {
                        any_value::Value::StringValue(text) => Some(text),
                        _ => None,
                    })
                    .collect()
            }
            Self::Deployments => {
                let object: Value = serde_json::from_slice(body).unwrap_or_default();
                object["version"].as_str().map(str::to_owned).into_iter().collect()
            }
        }
    }
}
