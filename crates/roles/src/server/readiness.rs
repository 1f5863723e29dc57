//! Readiness of the server, and gauges that are measured on demand.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use wardroom_bus::Bus;
use wardroom_domain::executor::{Confinement, Stopped};
use wardroom_edge::Certificates;
use wardroom_executor::ExecutorClient;
use wardroom_pipeline::lake::lake_state::{LakeState, WriteProgress};
use wardroom_pipeline::metrics as pipeline_metrics;
use wardroom_process::log_output;
use wardroom_query::{PoolStatus, QueryPool};
use wardroom_store::Store;

use super::audit_signer::SigningStatus;
use crate::metrics as names;
use crate::{backup, clock};

/// What an executor that works says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct ExecutorState {
    /// What the kernel enforces on it.
    pub(super) confinement: Confinement,
    /// What proves approvals.
    pub(super) approval_proof: String,
    /// The stop of all actions that is in force.
    pub(super) stopped: Option<Stopped>,
    /// Why a head of the audit log is not published where it should be.
    pub(super) unpublished: Option<String>,
}

/// Whether the executor works.
#[derive(Debug)]
pub(super) struct ExecutorHealth(Mutex<Result<ExecutorState, String>>);

impl Default for ExecutorHealth {
    fn default() -> Self {
        Self(Mutex::new(Err("it has not responded yet".to_owned())))
    }
}

impl ExecutorHealth {
    /// Records the state of an executor that works, or why it does not work.
    pub(super) fn set(&self, found: Result<ExecutorState, String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    fn get(&self) -> Result<ExecutorState, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Everything that readiness depends on.
pub(super) struct Readiness {
    pub(super) data: PathBuf,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) store: Store,
    /// The next offset of detection.
    pub(super) next: Arc<AtomicU64>,
    pub(super) executor: ExecutorClient,
    pub(super) executor_health: Arc<ExecutorHealth>,
    pub(super) signing: Arc<SigningStatus>,
    /// What the kernel enforces on this process.
    pub(super) confinement: Confinement,
    pub(super) lake: LakeState,
    /// SQL over the tables, if they are open.
    pub(super) queries: Option<Arc<QueryPool>>,
    /// Address for OTLP over gRPC, or why there is none.
    pub(super) otlp_grpc: String,
    /// The certificates of the listeners.
    pub(super) certificates: Certificates,
}

impl Readiness {
    /// Returns whether the server is ready, and the readiness document. Its status is `degraded` while any part fails,
    /// also one without which the server is ready.
    pub(super) fn document(&self) -> (bool, Value) {
        let found = self.executor_health.get();
        let (executor, state, executor_error) = match (self.executor.configured(), found) {
            (false, _) => ("not configured", None, None),
            (true, Ok(state)) => ("up", Some(state), None),
            (true, Err(reason)) => ("down", None, Some(reason)),
        };
        let isolation = if self.confinement.landlock_abi > 0 { "landlock" } else { "none" };
        let bus_error = self.bus.append_error();
        let store_error = self.store.error();
        let query_status = self.queries.as_ref().map(|queries| queries.status());
        let queries = match query_status {
            None => "off",
            Some(PoolStatus { is_missing: true, .. }) => {
                "no query worker runs; the log says why, and new ones are started"
            }
            Some(_) => "ok",
        };
        let has_workers = !query_status.is_some_and(|status| status.is_down);
        let is_ready = executor != "down" && bus_error.is_none() && store_error.is_none() && has_workers;
        let lake = if matches!(self.lake, LakeState::Disabled) { "off" } else { "ok" };
        let lake_error = self.lake_progress().find_map(WriteProgress::last_error).or_else(|| self.damaged_files());
        let bus_error = bus_error.or_else(|| self.damaged_records());
        // Telemetry is accepted, so the server is ready; but a part needs the operator.
        let (tls, has_bad_certificate) = self.certificates.describe(clock::now());
        let has_failed = bus_error.is_some() || has_bad_certificate || self.signing.has_failed(&self.executor);
        let needs_operator = lake_error.is_some() || has_failed;
        let status = if is_ready && !needs_operator { "ready" } else { "degraded" };
        let lake = lake_error.unwrap_or_else(|| lake.to_owned());
        let document = json!({ "status": status,
            "durability": self.bus.durability(), "bus": bus_error.unwrap_or_else(|| "ok".to_owned()),
            "store": store_error.unwrap_or_else(|| "ok".to_owned()),
            "audit": self.signing.describe(&self.executor),
            "isolation": isolation, "sandbox": { "server": self.confinement, "executor": state.as_ref().map(|state| &state.confinement) },
            "executor": executor, "executor_error": executor_error,
            "approval_proof": state.as_ref().map(|state| &state.approval_proof),
            "audit_heads": state.as_ref().map(|state| state.unpublished.as_deref().unwrap_or("ok")),
            "actions": state.as_ref().map(|state| if state.stopped.is_some() { "stopped" } else { "possible" }), "detect_lag_records": self.detect_lag(),
            "lake": lake, "lake_lag_records": self.lake_lag(), "queries": queries,
            "otlp_grpc": self.otlp_grpc, "tls": tls });
        (is_ready, document)
    }

    /// Sets the gauges that are computed at the time of a scrape.
    pub(super) fn update_gauges(&self) {
        metrics::gauge!(pipeline_metrics::DETECT_LAG_RECORDS).set(self.detect_lag() as f64);
        if let Some(lag) = self.lake_lag() {
            metrics::gauge!(pipeline_metrics::LAKE_LAG_RECORDS).set(lag as f64);
        }
        if let Some(tables) = self.lake.tables() {
            metrics::gauge!(names::LAKE_DAMAGED_FILES).set(tables.lake.damaged_files().len() as f64);
        }
        if let Some(queries) = &self.queries {
            queries.update_gauges();
        }
        metrics::counter!(names::LOG_LINES_LOST_TOTAL).absolute(log_output::lost_lines());
        metrics::gauge!(names::STORE_UP).set(if self.store.error().is_none() { 1.0 } else { 0.0 });
        if let Some(last) = backup::last_backup(&self.data) {
            metrics::gauge!(names::BACKUP_SECONDS).set(last.taken_at_s);
            metrics::gauge!(names::BACKUP_BYTES).set(last.bytes);
        }
    }

    /// Counts the damaged files of the tables, if reads have found any. Queries that need them fail; everything else
    /// works, so the server is ready.
    fn damaged_files(&self) -> Option<String> {
        let count = self.lake.tables()?.lake.damaged_files().len();
        // Without their names, which contain tenants.
        (count > 0).then(|| format!("damaged files: {count}; the log and `wardroom lake verify` name them"))
    }

    /// Counts the damaged records of the bus, if reads have found any. They are skipped and all others are delivered,
    /// so the server is ready.
    fn damaged_records(&self) -> Option<String> {
        let count = self.bus.lost_records();
        (count > 0).then(|| format!("damaged records: {count}; the log has their places"))
    }

    /// Records that detection has not processed. Computed here, since stalled detection would not report it.
    fn detect_lag(&self) -> u64 {
        self.bus.end_offset().saturating_sub(self.next.load(Ordering::Acquire))
    }

    /// Records that are not in the tables; of both writers the larger lag.
    fn lake_lag(&self) -> Option<u64> {
        self.lake_progress().map(|progress| self.bus.end_offset().saturating_sub(progress.committed_offset())).max()
    }

    fn lake_progress(&self) -> impl Iterator<Item = &WriteProgress> {
        let (samples, events) = match &self.lake {
            LakeState::Disabled => (None, None),
            LakeState::Unavailable(progress) => (Some(progress.as_ref()), None),
            LakeState::Ready(tables) => (Some(tables.samples_progress.as_ref()), Some(tables.events_progress.as_ref())),
        };
        samples.into_iter().chain(events)
    }
}
