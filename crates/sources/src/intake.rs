//! From an HTTP request to a durable record, the same for every source.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use metrics::{Counter, Histogram};
use tokio::sync::Semaphore;
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, Envelope, Identity, Labels, SeriesId, TenantId, Timestamp};
use wardroom_edge::{Access, Config as EdgeConfig, InflateBudget, Problem, Routes, read_body};

use crate::admit::{admit, check_series, refuse};
use crate::grpc;
use crate::source::{Outcome, RequestHead, Source};
use crate::{ByteQuota, Config, Decoded, Denial, SOURCES, metrics as names};

/// A request that was let in: what goes to the bus, and the same decoded once.
#[derive(Debug)]
pub struct Accepted {
    /// The header for the bus.
    pub envelope: Envelope,
    /// The body, as received.
    pub body: Bytes,
    /// Its records, without the refused ones.
    pub batch: Batch,
}

/// Finds the ids of a request's series by their keys; asks for the labels of those it does not know, and
/// lists by position who may not come in. As [`wardroom_domain::SeriesId`]s there stands anything for those.
pub type ResolveHook = Arc<dyn Fn(&TenantId, &[u128], &ReadLabels<'_>) -> Resolved + Send + Sync>;
/// The labels of the series at a position of the request, if they may come in.
pub type ReadLabels<'a> = dyn Fn(usize) -> Result<Labels, Denial> + 'a;
/// What was found of a request's series.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Their ids, in order.
    pub ids: Vec<SeriesId>,
    /// In which numbering.
    pub generation: u64,
    /// Who was denied one, by position.
    pub denied: Vec<(usize, Denial)>,
}
/// Makes a request durable and hands its records on; the answer waits for the disk only.
pub type AppendHook = Arc<dyn Fn(Accepted) -> Pin<Box<dyn Future<Output = Result<u64, Failure>> + Send>> + Send + Sync>;

/// What intake needs of the rest, as closures that the composition root builds.
#[derive(Clone)]
pub struct Intake {
    /// Limits of a request's records.
    pub config: Config,
    /// Limits of a request's body.
    pub edge: EdgeConfig,
    /// The global decompression budget.
    pub budget: InflateBudget,
    /// What each tenant may append.
    pub quota: Arc<ByteQuota>,
    /// The live series, and their limit.
    pub resolve: ResolveHook,
    /// The bus.
    pub append: AppendHook,
    /// The clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

/// One source's way in, with what is counted there: a request looks nothing up by name and copies no settings.
pub(crate) struct Gate {
    pub(crate) intake: Intake,
    pub(crate) source: &'static dyn Source,
    requests: Counter,
    bytes: Counter,
    accepted: Counter,
    latency: Histogram,
}

impl Gate {
    fn new(intake: &Intake, source: &'static dyn Source) -> Self {
        let protocol = source.name();
        Self {
            intake: intake.clone(),
            source,
            requests: metrics::counter!(names::REQUESTS_TOTAL, "protocol" => protocol),
            bytes: metrics::counter!(names::BYTES_TOTAL, "protocol" => protocol),
            accepted: metrics::counter!(names::ACCEPTED_TOTAL, "protocol" => protocol),
            latency: metrics::histogram!(names::LATENCY_SECONDS, "protocol" => protocol),
        }
    }
}

/// The routes of every source in the registry. What they count shows if the metrics are installed by now.
pub fn routes(intake: &Intake) -> Routes {
    SOURCES.iter().fold(Routes::new(), |mut routes, source| {
        let gate = Arc::new(Gate::new(intake, *source));
        if let Some(path) = source.grpc_path() {
            let gate = Arc::clone(&gate);
            routes = routes.post(path, Access::Send, move |request: Request| grpc::receive(Arc::clone(&gate), request));
        }
        routes.post(source.path(), Access::Send, move |request: Request| receive(Arc::clone(&gate), request))
    })
}

async fn receive(gate: Arc<Gate>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let source = gate.source;
    let head = RequestHead {
        content_type: media_type(&parts.headers),
        content_encoding: header_text(&parts.headers, &header::CONTENT_ENCODING),
        received_at: (gate.intake.now)(),
    };
    let body = async {
        let unsupported = |detail| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", detail);
        source.check(&head).map_err(unsupported)?;
        read_body(body, &gate.intake.edge).await
    };
    match accept(&gate, parts.extensions.get::<Identity>(), &head, body).await {
        Ok(outcome) => source.answer(&head, &outcome),
        Err(problem) => source.refuse(&head, problem),
    }
}

/// One request from its body to a durable record, counted and timed, whatever carried it.
pub(crate) async fn accept(
    gate: &Arc<Gate>,
    identity: Option<&Identity>,
    head: &RequestHead,
    body: impl Future<Output = Result<Bytes, Problem>>,
) -> Result<Outcome, Problem> {
    let started = std::time::Instant::now();
    gate.requests.increment(1);
    let taken = async {
        let identity = identity.ok_or_else(|| Problem::unavailable("no_identity", "the port has no guard"))?;
        take(gate, identity, head, body.await?).await
    };
    let outcome = taken.await;
    if let Err(problem) = &outcome {
        let reason = problem.code();
        metrics::counter!(names::REJECTED_TOTAL, "protocol" => gate.source.name(), "reason" => reason).increment(1);
    }
    gate.latency.record(started.elapsed().as_secs_f64());
    outcome
}

async fn take(gate: &Arc<Gate>, identity: &Identity, head: &RequestHead, body: Bytes) -> Result<Outcome, Problem> {
    let Gate { intake, source, .. } = &**gate;
    gate.bytes.increment(body.len() as u64);
    intake.quota.take(&identity.tenant, body.len(), head.received_at).map_err(|seconds| {
        let detail = "the tenant sends more bytes than it may; see sources.tenant-bytes-per-second";
        Problem::unavailable("byte_quota", detail).retry_after(seconds)
    })?;
    let mut decoded = if body.len() < HEAVY {
        prepare(gate, &identity.tenant, head, &body)?
    } else {
        // Beside the threads that answer: whoever sends little does not wait for who sends much.
        let broken = || Problem::unavailable("intake_failed", "the request could not be read; send it again");
        let _turn = HEAVY_TURNS.acquire().await.map_err(|_| broken())?;
        let (gate, tenant, head, body) = (Arc::clone(gate), identity.tenant.clone(), head.clone(), body.clone());
        let work = tokio::task::spawn_blocking(move || prepare(&gate, &tenant, &head, &body));
        work.await.map_err(|_| broken())??
    };
    let outcome = Outcome {
        refused: std::mem::take(&mut decoded.refused),
        kept: decoded.len(),
        samples: decoded.metrics.samples().len(),
        histograms: decoded.metrics.histograms().len(),
        exemplars: decoded.metrics.exemplars().len(),
    };
    for refusal in &outcome.refused {
        let count = u64::from(refusal.last - refusal.first) + 1;
        let labels = [("protocol", source.name()), ("reason", refusal.reason.as_str())];
        metrics::counter!(names::REJECTED_TOTAL, &labels).increment(count);
    }
    if outcome.kept + outcome.exemplars > 0 || outcome.refused.is_empty() {
        let envelope = Envelope {
            tenant: identity.tenant.clone(),
            principal: identity.principal.clone(),
            protocol: source.name().to_owned(),
            content_type: head.content_type.clone(),
            content_encoding: head.content_encoding.clone(),
            received_at: head.received_at,
            refused: outcome.refused.clone(),
            events: decoded.has_events(),
        };
        let batch = decoded.resolve(&body, head.received_at);
        // A sender that hangs up may leave a record behind that nobody was told of; detection finds it on the bus.
        (intake.append)(Accepted { envelope, body, batch }).await.map_err(problem_of)?;
        gate.accepted.increment(outcome.kept as u64);
    }
    Ok(outcome)
}

/// Bodies from this size on take long to read, in bytes.
const HEAVY: usize = 128 << 10;
/// How many of them are read at one moment: half of the processors are left to the others.
static HEAVY_TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    Semaphore::new((processors / 2).max(1))
});

/// Everything that a request costs before the disk: read, let in, its series found.
fn prepare(gate: &Gate, tenant: &TenantId, head: &RequestHead, body: &[u8]) -> Result<Decoded, Problem> {
    let Gate { intake, source, .. } = gate;
    let mut decoded = source.decode(head, body, &intake.budget).map_err(problem_of)?;
    admit(&mut decoded, &intake.config, head.received_at);
    resolve(&mut decoded, tenant, intake);
    Ok(decoded)
}

/// Looks the series up; takes those out that may not come in.
pub(crate) fn resolve(decoded: &mut Decoded, tenant: &TenantId, intake: &Intake) {
    let metrics = &decoded.metrics;
    let read = |at: usize| metrics.labels(at).and_then(|labels| check_series(labels, &intake.config));
    let Resolved { ids, generation, denied } = (intake.resolve)(tenant, metrics.keys(), &read);
    decoded.metrics.identify(ids, generation);
    if denied.is_empty() {
        return;
    }
    let denied: BTreeMap<usize, Denial> = denied.into_iter().collect();
    let (mut refused, mut place) = (Vec::new(), 0);
    let mut note = |series: usize, count: usize| {
        if let Some((reason, detail)) = denied.get(&series) {
            (place..place + count).for_each(|at| refuse(&mut refused, decoded.position(at), *reason, detail.clone()));
        }
        place += count;
    };
    decoded.metrics.iter().for_each(|(series, samples)| note(series, samples.len()));
    decoded.metrics.histograms().iter().for_each(|(series, _)| note(*series as usize, 1));
    // Before the others: taking records out moves the series' positions.
    decoded.metrics.retain_exemplars(|series, _| !denied.contains_key(&(series as usize)));
    decoded.leave_out(&refused);
    decoded.refused.extend(refused);
}

pub(crate) fn problem_of(failure: Failure) -> Problem {
    match failure {
        Failure::Retryable(detail) => Problem::unavailable("overloaded", detail),
        Failure::Quota(detail) => Problem::unavailable("quota", detail),
        Failure::Fatal(detail) => Problem::unavailable("storage_unavailable", detail),
        Failure::Rejected { reason: "too_large", detail } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
        }
        Failure::Rejected { reason, detail } => Problem::bad_request(reason, detail),
    }
}

pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let text = header_text(headers, &header::CONTENT_TYPE);
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let proto = parts.find(|part| part.starts_with("proto=")).map(|part| part.replace('"', ""));
    proto.map_or_else(|| kind.to_owned(), |proto| format!("{kind};{proto}"))
}

pub(crate) fn header_text(headers: &HeaderMap, name: &header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim().to_ascii_lowercase()
}
