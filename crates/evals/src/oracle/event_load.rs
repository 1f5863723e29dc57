//! Log records over OTLP and deployments over JSON, read back from the bodies on the bus with another decoder than the
//! receiver's, and from the lake.

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

use super::lake_contents::LakeContents;
use crate::bar::BarResult;

/// One request of each kind per interval: 500 log records and 50 deployments per second.
const WRITE_INTERVAL: Duration = Duration::from_millis(20);
/// Log records of a request.
const RECORDS: u64 = 10;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventKind {
    Logs,
    Deployments,
}

/// Requests of one kind that were issued and acknowledged.
#[derive(Debug)]
struct IssuedEvents {
    kind: EventKind,
    next: AtomicU64,
    acked: Mutex<BTreeSet<u64>>,
}

/// One writer of each kind that posts until it is stopped.
pub(crate) struct EventLoad {
    seed: u64,
    stop: Arc<AtomicBool>,
    issued: Vec<Arc<IssuedEvents>>,
    writers: Vec<std::thread::JoinHandle<()>>,
}

impl EventLoad {
    /// Starts the writers.
    pub(crate) fn start(server: &Server, seed: u64) -> Self {
        let (stop, mut issued, mut writers) = (Arc::new(AtomicBool::new(false)), Vec::new(), Vec::new());
        for kind in [EventKind::Logs, EventKind::Deployments] {
            let requests = Arc::new(IssuedEvents { kind, next: AtomicU64::new(0), acked: Mutex::default() });
            issued.push(Arc::clone(&requests));
            let (stop, url, token) = (Arc::clone(&stop), server.url.clone(), server.sender_token.clone());
            writers.push(std::thread::spawn(move || requests.write(&url, &token, seed, &stop)));
        }
        Self { seed, stop, issued, writers }
    }

    /// Stops the writers and waits for them.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.writers.drain(..).try_for_each(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked")))
    }

    /// Compares the lake with what was acknowledged: every log record and deployment must be there once.
    pub(crate) fn compare_lake(&self, lake: &LakeContents) -> BarResult {
        let mut result = BarResult::default();
        for issued in &self.issued {
            let found = if issued.kind == EventKind::Logs { &lake.logs } else { &lake.deployments };
            let next = issued.next.load(Ordering::Acquire);
            let acked = issued.acked.lock().unwrap_or_else(PoisonError::into_inner);
            let texts: BTreeMap<String, u64> = (0..next)
                .flat_map(|id| issued.kind.request_texts(id, self.seed).into_iter().map(move |text| (text, id)))
                .collect();
            for (text, count) in found {
                match texts.get(text) {
                    None => result.spurious += 1,
                    Some(_) if *count > 1 => result.duplicate += 1,
                    Some(_) => {}
                }
            }
            let is_complete =
                |id: &u64| issued.kind.request_texts(*id, self.seed).iter().all(|text| found.contains_key(text));
            result.missing += acked.iter().filter(|id| !is_complete(id)).count() as u64;
        }
        result
    }

    /// Compares the bodies on the bus with what was acknowledged.
    pub(crate) fn compare_bus(&self, dir: &Path) -> anyhow::Result<BarResult> {
        let mut result = BarResult::default();
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
                    let texts = issued.kind.decode_texts(&record.body);
                    let id = texts.first().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
                    match id {
                        Some(id) if id >= issued.next.load(Ordering::Acquire) => result.spurious += 1,
                        Some(id) if texts == issued.kind.request_texts(id, self.seed) => drop(found.insert(id)),
                        _ => result.corrupted += 1,
                    }
                }
            }
        }
        for (issued, found) in self.issued.iter().zip(&found) {
            let acked = issued.acked.lock().unwrap_or_else(PoisonError::into_inner);
            result.issued += issued.next.load(Ordering::Acquire);
            result.acked += acked.len() as u64;
            result.missing += acked.difference(found).count() as u64;
        }
        Ok(result)
    }
}

impl IssuedEvents {
    fn write(&self, url: &str, token: &str, seed: u64, stop: &AtomicBool) {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .build()
            .new_agent();
        while !stop.load(Ordering::Acquire) {
            let sent = Instant::now();
            let id = self.next.fetch_add(1, Ordering::AcqRel);
            let (path, content_type, body) = self.kind.request(id, seed);
            let request = agent.post(format!("{url}{path}")).header("Authorization", format!("Bearer {token}"));
            let response = request.header("Content-Type", content_type).send(&body[..]);
            if response.is_ok_and(|response| response.status().is_success()) {
                self.acked.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            }
            std::thread::sleep(WRITE_INTERVAL.saturating_sub(sent.elapsed()));
        }
    }
}

impl EventKind {
    const fn protocol(self) -> &'static str {
        match self {
            Self::Logs => "otlp_logs",
            Self::Deployments => "json_deployment",
        }
    }

    /// Returns the texts of a request as a function of its number.
    fn request_texts(self, id: u64, seed: u64) -> Vec<String> {
        let records = if self == Self::Logs { RECORDS } else { 1 };
        let mixed = |record: u64| (id ^ seed.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(record);
        (0..records).map(|record| format!("{id} {record} {:016x}", mixed(record))).collect()
    }

    fn request(self, id: u64, seed: u64) -> (&'static str, &'static str, Vec<u8>) {
        let texts = self.request_texts(id, seed);
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

    /// Returns the texts of a body; none if it cannot be decoded.
    fn decode_texts(self, body: &[u8]) -> Vec<String> {
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
