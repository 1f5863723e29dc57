//! Implements the closures of the API on the roles.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use wardroom_access::AccessService;
use wardroom_api::{AnomaliesFn, Backend, BackendFuture, ExemplarsView, SamplesPage};
use wardroom_bus::DeadLetters;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Labels, MetricMetadata, TenantId};
use wardroom_edge::{InflateBudget, Problem};
use wardroom_pipeline::query::sample_reader::SampleReader;
use wardroom_sources::Intake;
use wardroom_store::Store;

use super::readiness::Readiness;
use super::series_reads::SeriesReads;
use crate::clock;
use crate::views::dead_letters::DeadLetterBackend;
use crate::views::lake_queries::LakeQueries;
use crate::views::series::{exemplars_view, query_problem, series_view};
use wardroom_response::Responder;
use wardroom_response::problem_responses::store_problem;
use wardroom_response::{StreamControl, anomaly_view, requests, resources};

/// What the API is built from.
pub(super) struct ApiState {
    /// Whether callers are authenticated.
    pub(super) authenticated: bool,
    pub(super) access: AccessService,
    pub(super) responder: Arc<Responder>,
    pub(super) budget: InflateBudget,
    pub(super) recorder: PrometheusHandle,
    pub(super) readiness: Arc<Readiness>,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) intake: Intake,
    pub(super) reads: Arc<SeriesReads>,
    /// What open streams are checked with.
    pub(super) stream: StreamControl,
}

/// Builds the closures of the API.
pub(super) fn api_backend(state: ApiState) -> Backend {
    let ApiState { authenticated, access, responder, budget, recorder, readiness, dead_letters, intake, reads, stream } =
        state;
    let gauges = Arc::clone(&readiness);
    let is_https = responder.config.identity.is_https();
    let allowed_hosts = responder.config.edge.allowed_hosts.clone().into();
    let dead_letters = DeadLetterBackend {
        dead_letters,
        bus: Arc::clone(&readiness.bus),
        store: responder.store.clone(),
        intake,
        queries: readiness.queries.clone(),
    };
    let [listed, replayed] = std::array::from_fn(|_| dead_letters.clone());
    let samples = SampleReader {
        bus: Arc::clone(&readiness.bus),
        budget,
        tenants: Arc::clone(&responder.tenants),
        next: Arc::clone(&readiness.next),
        lake: readiness.lake.clone(),
        evicted_retention: Duration::from_secs(responder.config.bus.retention_hours * 3600),
    };
    Backend {
        incidents: ask_with_two(&responder, |it, tenant, query| async move { it.list(tenant, query).await }),
        incident: ask_with_two(&responder, |it, tenant, number| async move { it.detail(tenant, number).await }),
        decide: ask_with_two(&responder, |it, caller, request| async move { it.decide(caller, request).await }),
        kill_switch: ask_with_two(&responder, |it, caller, decision| async move { it.switch(caller, decision).await }),
        review: ask_with_three(&responder, |responder, caller, number, proof| async move {
            responder.review(caller, number, proof).await
        }),
        autonomy: {
            let ask = ask_with_two(&responder, |it, tenant, ()| async move { it.list_autonomy(tenant).await });
            Arc::new(move |tenant| ask(tenant, ()))
        },
        set_autonomy: ask_with_two(
            &responder,
            |it, caller, change| async move { it.set_autonomy(caller, change).await },
        ),
        postmortem: ask_with_two(&responder, |it, tenant, number| async move { it.postmortem(tenant, number).await }),
        anomalies: anomalies_closure(responder.store.clone()),
        deployments: {
            let tenants = Arc::clone(&responder.tenants);
            Arc::new(move |tenant, since| tenants.view(&tenant).engine.deployments(since, clock::now()))
        },
        samples: samples_closure(samples.clone(), Arc::clone(&reads)),
        series: series_closure(samples.clone(), Arc::clone(&reads)),
        exemplars: exemplars_closure(samples, reads),
        metadata: metadata_closure(&responder),
        tables: LakeQueries {
            pool: readiness.queries.clone(),
            lake: readiness.lake.clone(),
            bus: Arc::clone(&readiness.bus),
        }
        .backend(),
        resources: resources(&responder, stream),
        requests: requests(&responder),
        dead_letters: Arc::new(move |tenant| {
            let dead_letters = listed.clone();
            Box::pin(async move { dead_letters.list(tenant).await })
        }),
        replay_dead_letter: Arc::new(move |caller, id| {
            let dead_letters = replayed.clone();
            Box::pin(async move { dead_letters.replay(caller, id).await })
        }),
        redrive: Arc::new(move |caller, offset| {
            let dead_letters = dead_letters.clone();
            Box::pin(async move { dead_letters.redrive(caller, offset).await })
        }),
        readiness: Arc::new(move || readiness.document()),
        metrics: Arc::new(move || {
            gauges.update_gauges();
            recorder.render()
        }),
        access: Arc::new(access),
        is_https,
        authenticated,
        allowed_hosts,
        form_secret: wardroom_edge::generate_token().1.into(),
    }
}

/// A closure with two arguments.
type ClosureOfTwo<A, B, T> = Arc<dyn Fn(A, B) -> BackendFuture<T> + Send + Sync>;
/// A closure with three arguments.
type ClosureOfThree<A, B, C, T> = Arc<dyn Fn(A, B, C) -> BackendFuture<T> + Send + Sync>;

/// Returns a closure that asks the responder.
fn ask_with_two<A, B, T, F>(
    responder: &Arc<Responder>,
    ask: impl Fn(Arc<Responder>, A, B) -> F + Send + Sync + 'static,
) -> ClosureOfTwo<A, B, T>
where
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    let responder = Arc::clone(responder);
    Arc::new(move |first, second| Box::pin(ask(Arc::clone(&responder), first, second)))
}

/// Returns a closure that asks the responder.
fn ask_with_three<A, B, C, T, F>(
    responder: &Arc<Responder>,
    ask: impl Fn(Arc<Responder>, A, B, C) -> F + Send + Sync + 'static,
) -> ClosureOfThree<A, B, C, T>
where
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    let responder = Arc::clone(responder);
    Arc::new(move |first, second, third| Box::pin(ask(Arc::clone(&responder), first, second, third)))
}

fn metadata_closure(responder: &Responder) -> Arc<dyn Fn(TenantId) -> BTreeMap<String, MetricMetadata> + Send + Sync> {
    let tenants = Arc::clone(&responder.tenants);
    Arc::new(move |tenant| {
        let metadata = tenants.with(&tenant, |live| Arc::clone(&live.metadata));
        (*metadata).clone()
    })
}

fn anomalies_closure(store: Store) -> Arc<AnomaliesFn> {
    Arc::new(move |tenant, since, service, after, limit| {
        let store = store.clone();
        Box::pin(async move {
            let found = store.anomalies(&tenant, since, service.as_deref(), after, limit).await;
            Ok(found.map_err(store_problem)?.into_iter().map(anomaly_view).collect())
        })
    })
}

/// A closure that runs a query for series.
type SeriesClosure<T> = Arc<dyn Fn(TenantId, SeriesQuery) -> BackendFuture<T> + Send + Sync>;

fn samples_closure(
    reader: SampleReader,
    reads: Arc<SeriesReads>,
) -> Arc<dyn Fn(TenantId, SeriesQuery, u64) -> BackendFuture<SamplesPage> + Send + Sync> {
    Arc::new(move |tenant, query, cursor| {
        let (reader, reads) = (reader.clone(), Arc::clone(&reads));
        Box::pin(async move {
            let owner = tenant.clone();
            // The numbers are formatted on the same thread.
            let page = reads.run(&owner, move || {
                let page = reader.read_page(&tenant, &query, cursor);
                page.map(|(found, next)| (found.into_iter().map(series_view).collect(), next))
            });
            page.await?.map_err(query_problem)
        })
    })
}

fn series_closure(reader: SampleReader, reads: Arc<SeriesReads>) -> SeriesClosure<Vec<Labels>> {
    Arc::new(move |tenant, query| {
        let (reader, reads) = (reader.clone(), Arc::clone(&reads));
        Box::pin(async move {
            let owner = tenant.clone();
            reads.run(&owner, move || reader.series(&tenant, &query)).await?.map_err(query_problem)
        })
    })
}

fn exemplars_closure(reader: SampleReader, reads: Arc<SeriesReads>) -> SeriesClosure<Vec<ExemplarsView>> {
    Arc::new(move |tenant, query| {
        let (reader, reads) = (reader.clone(), Arc::clone(&reads));
        Box::pin(async move {
            let owner = tenant.clone();
            let found = reads.run(&owner, move || {
                let found = reader.exemplars(&tenant, &query);
                found.map(|found| found.into_iter().map(exemplars_view).collect())
            });
            found.await?.map_err(query_problem)
        })
    })
}
