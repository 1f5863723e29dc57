//! Readiness of the server, and gauges that are measured on demand.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use wardroom_bus::Bus;
use wardroom_executor::ExecutorClient;
use wardroom_lake::QueryEngine;
use wardroom_pipeline::lake::lake_state::{LakeState, WriteProgress};
use wardroom_pipeline::metrics as pipeline_metrics;
use wardroom_process::log_output;
use wardroom_process::sandbox::Isolation;
use wardroom_store::Store;

use crate::backup_status;
use crate::metrics as names;

/// Everything that readiness depends on.
pub(super) struct Readiness {
    pub(super) data: PathBuf,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) store: Store,
    /// The next offset of detection.
    pub(super) next: Arc<AtomicU64>,
    pub(super) executor: ExecutorClient,
    pub(super) executor_up: Arc<AtomicBool>,
    pub(super) isolation: Isolation,
    pub(super) lake: LakeState,
    /// SQL over the tables, if they are open.
    pub(super) queries: Option<Arc<QueryEngine>>,
    /// Address for OTLP over gRPC, once it is bound.
    pub(super) otlp_grpc: Arc<OnceLock<String>>,
}

impl Readiness {
    /// Returns whether the server is ready, and the readiness document.
    pub(super) fn document(&self) -> (bool, Value) {
        let executor = match (self.executor.configured(), self.executor_up.load(Ordering::Acquire)) {
            (false, _) => "not configured",
            (true, true) => "up",
            (true, false) => "down",
        };
        let bus_error = self.bus.append_error();
        let store_error = self.store.error();
        let is_ready = executor != "down" && bus_error.is_none() && store_error.is_none();
        let lake = if matches!(self.lake, LakeState::Disabled) { "off" } else { "ok" };
        let lake = self.lake_progress().find_map(WriteProgress::last_error).unwrap_or_else(|| lake.to_owned());
        let document = json!({ "status": if is_ready { "ready" } else { "degraded" },
            "durability": self.bus.durability(), "bus": bus_error.unwrap_or_else(|| "ok".to_owned()),
            "store": store_error.unwrap_or_else(|| "ok".to_owned()),
            "isolation": self.isolation.as_str(), "executor": executor, "detect_lag_records": self.detect_lag(),
            "lake": lake, "lake_lag_records": self.lake_lag(),
            "otlp_grpc": self.otlp_grpc.get() });
        (is_ready, document)
    }

    /// Sets the gauges that are computed at the time of a scrape.
    pub(super) fn update_gauges(&self) {
        metrics::gauge!(pipeline_metrics::DETECT_LAG_RECORDS).set(self.detect_lag() as f64);
        if let Some(lag) = self.lake_lag() {
            metrics::gauge!(pipeline_metrics::LAKE_LAG_RECORDS).set(lag as f64);
        }
        if let Some(queries) = &self.queries {
            metrics::gauge!(names::QUERIES_RUNNING).set(queries.running_queries() as f64);
        }
        metrics::counter!(names::LOG_LINES_LOST_TOTAL).absolute(log_output::lost_lines());
        metrics::gauge!(names::STORE_UP).set(if self.store.error().is_none() { 1.0 } else { 0.0 });
        backup_status::update_gauges(&self.data);
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
