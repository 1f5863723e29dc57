//! What the API asks for, wired to the roles that know.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use wardroom_api::{Answer, Backend};
use wardroom_bus::{Bus, DeadLetters};
use wardroom_edge::{InflateBudget, Problem};
use wardroom_lake::Queries;
use wardroom_sources::Intake;

use crate::metrics as names;
use crate::{backups, clock, views};
use wardroom_executor::ExecutorClient;
use wardroom_pipeline::keep::{Kept, Progress};
use wardroom_pipeline::{metrics as pipeline, samples::Samples};
use wardroom_process::isolation::Isolation;

/// What readiness depends on.
pub(super) struct Readiness {
    pub(super) data: PathBuf,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) next: Arc<AtomicU64>,
    pub(super) executor: ExecutorClient,
    pub(super) executor_up: Arc<AtomicBool>,
    pub(super) isolation: Isolation,
    pub(super) letters: Arc<DeadLetters>,
    /// What becomes of what is taken in.
    pub(super) kept: Kept,
    /// Whoever answers questions about the tables, if they are open.
    pub(super) queries: Option<Arc<Queries>>,
    /// Where OTLP over gRPC is taken, once it is known.
    pub(super) otlp_grpc: Arc<OnceLock<String>>,
}

impl Readiness {
    /// Whether it can do its work, and what is degraded.
    fn document(&self) -> (bool, Value) {
        let executor = match (self.executor.configured(), self.executor_up.load(Ordering::Acquire)) {
            (false, _) => "not configured",
            (true, true) => "up",
            (true, false) => "down",
        };
        let trouble = self.bus.trouble();
        let ready = executor != "down" && trouble.is_none();
        let lag = lag(self.bus.as_ref(), &self.next);
        let lake = if matches!(self.kept, Kept::Off) { "off" } else { "ok" };
        let lake = self.progress().find_map(|lake| lake.trouble()).unwrap_or_else(|| lake.to_owned());
        let document = json!({ "status": if ready { "ready" } else { "degraded" },
            "durability": self.bus.durability(), "bus": trouble.unwrap_or_else(|| "ok".to_owned()),
            "isolation": self.isolation.as_str(), "executor": executor, "detect_lag_records": lag,
            "lake": lake, "lake_lag_records": self.lake_lag(),
            "otlp_grpc": self.otlp_grpc.get() });
        (ready, document)
    }

    /// Sets the gauges that are asked for rather than told.
    fn measure(&self) {
        metrics::gauge!(pipeline::DETECT_LAG_RECORDS).set(lag(self.bus.as_ref(), &self.next) as f64);
        if let Some(lag) = self.lake_lag() {
            metrics::gauge!(pipeline::LAKE_LAG_RECORDS).set(lag as f64);
        }
        if let Some(queries) = &self.queries {
            metrics::gauge!(names::QUERIES_RUNNING).set(queries.running() as f64);
        }
        backups::show(&self.data);
    }

    /// Records that are not in the tables.
    fn lake_lag(&self) -> Option<u64> {
        self.progress().map(|lake| self.bus.end().saturating_sub(lake.reached())).max()
    }

    /// How the tables stand.
    fn progress(&self) -> impl Iterator<Item = &Progress> {
        let (first, second) = match &self.kept {
            Kept::Off => (None, None),
            Kept::Away(progress) => (Some(progress.as_ref()), None),
            Kept::Open(tables) => (Some(tables.progress.as_ref()), Some(tables.events.as_ref())),
        };
        first.into_iter().chain(second)
    }
}

/// Records that detection has not seen. Asked when somebody wants to know: detection that stands still tells nobody.
fn lag(bus: &dyn Bus, next: &AtomicU64) -> u64 {
    bus.end().saturating_sub(next.load(Ordering::Acquire))
}

/// The closures of the API.
pub(super) fn backend(
    authenticated: bool,
    responder: views::Shared,
    budget: InflateBudget,
    recorder: PrometheusHandle,
    readiness: Readiness,
    intake: Intake,
) -> Backend {
    let readiness = Arc::new(readiness);
    let asked = Arc::clone(&readiness);
    let copy = || Arc::clone(&responder);
    let (r1, r2, r3, r4, r5, r6, r7) = (copy(), copy(), copy(), copy(), copy(), copy(), copy());
    let (bus, next) = (Arc::clone(&readiness.bus), Arc::clone(&readiness.next));
    let letters = views::Letters {
        letters: Arc::clone(&readiness.letters),
        bus: Arc::clone(&bus),
        store: responder.store.clone(),
        intake,
        queries: readiness.queries.clone(),
    };
    let (listed, refused) = (letters.clone(), letters.clone());
    let remembered = Duration::from_secs(responder.config.bus.retention_hours * 3600);
    let (tenants, kept) = (Arc::clone(&responder.tenants), readiness.kept.clone());
    let samples = Samples { bus, budget, tenants, next, kept, remembered };
    let (live, marked) = (samples.clone(), samples.clone());
    Backend {
        incidents: Arc::new(move |tenant, before, limit| {
            let responder = Arc::clone(&r1);
            Box::pin(async move { responder.list(tenant, before, limit).await })
        }),
        incident: Arc::new(move |tenant, number| {
            let responder = Arc::clone(&r2);
            Box::pin(async move { responder.show(tenant, number).await })
        }),
        decide: Arc::new(move |who, number, decision| {
            let responder = Arc::clone(&r3);
            Box::pin(async move { responder.decide(who, number, decision).await })
        }),
        postmortem: Arc::new(move |tenant, number| {
            let responder = Arc::clone(&r4);
            Box::pin(async move { responder.postmortem(tenant, number).await })
        }),
        anomalies: Arc::new(move |tenant, since, service, after, limit| {
            let responder = Arc::clone(&r5);
            Box::pin(async move {
                let found = responder.store.anomalies(&tenant, since, service.as_deref(), after, limit).await;
                let found =
                    found.map_err(|error| Problem::unavailable("state_store_unavailable", error.to_string()))?;
                Ok(found.into_iter().map(views::anomaly_view).collect())
            })
        }),
        deployments: Arc::new(move |tenant, since| {
            r6.tenants.with(&tenant, |state| state.engine.deployments(since, clock::now()))
        }),
        samples: Arc::new(move |tenant, query, from| {
            let samples = samples.clone();
            Box::pin(async move { reading(move || samples.page(&tenant, &query, from)).await? })
        }),
        series: Arc::new(move |tenant, query| {
            let samples = live.clone();
            Box::pin(async move { reading(move || samples.series(&tenant, &query)).await? })
        }),
        exemplars: Arc::new(move |tenant, query| {
            let samples = marked.clone();
            Box::pin(async move { reading(move || samples.exemplars(&tenant, &query)).await? })
        }),
        metadata: Arc::new(move |tenant| r7.tenants.with(&tenant, |live| live.metadata.clone())),
        tables: views::Tables { queries: readiness.queries.clone(), kept: readiness.kept.clone() }.backend(),
        dead_letters: Arc::new(move |tenant| {
            let letters = listed.clone();
            Box::pin(async move { letters.list(tenant).await })
        }),
        replay: Arc::new(move |who, id| {
            let letters = letters.clone();
            Box::pin(async move { letters.replay(who, id).await })
        }),
        redrive: Arc::new(move |who, offset| {
            let letters = refused.clone();
            Box::pin(async move { letters.redrive(who, offset).await })
        }),
        ready: Arc::new(move || readiness.document()),
        metrics: Arc::new(move || {
            asked.measure();
            recorder.render()
        }),
        authenticated,
        form_secret: wardroom_edge::mint_token().1.into(),
    }
}

/// An answer that reads from the disk.
fn reading<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
    Box::pin(async move {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| Problem::unavailable("unreadable", error.to_string()))
    })
}
