//! The endpoint of one source: decodes a request, applies limits and appends it to the bus.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use metrics::{Counter, Histogram};
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, Deployment, Envelope, Identity, Labels, LogEntry, SeriesId, Span, TenantId, Timestamp};
use wardroom_edge::{BodyBudget, Config as EdgeConfig, InflateBudget, Problem, ReceivedBody};

use crate::config::Config;
use crate::decode::decoded::Decoded;
use crate::decode::refusals::{RefusalCause, push_refusal};
use crate::intake::byte_rate_limiter::ByteRateLimiter;
use crate::intake::large_bodies::{LARGE_INFLATED_BYTES, acquire_slot, is_large};
use crate::intake::limits::{apply_limits, check_series};
use crate::metrics as names;
use crate::source::{RequestHead, RequestOutcome, Source};

/// A request that passed all checks: what is appended to the bus, and the decoded records.
#[derive(Debug)]
pub struct AcceptedRequest {
    /// The header for the bus.
    pub envelope: Envelope,
    /// The body, as received.
    pub body: Bytes,
    /// The accepted records.
    pub batch: Batch,
}

/// Looks up the ids of a request's series by their keys. Calls the label reader for series it does not know and lists
/// the refused ones by index; their ids are placeholders.
pub type ResolveHook = Arc<dyn Fn(&TenantId, &[u128], &ReadLabels<'_>) -> ResolvedSeries + Send + Sync>;
/// Returns the labels of the series at an index of the request, or why it is refused.
pub type ReadLabels<'a> = dyn Fn(usize) -> Result<Labels, RefusalCause> + 'a;
/// The ids of a request's series.
#[derive(Debug, Default)]
pub struct ResolvedSeries {
    /// The ids, in order.
    pub ids: Vec<SeriesId>,
    /// The registry generation of the ids.
    pub generation: u64,
    /// Refused series, by index.
    pub refused: Vec<(usize, RefusalCause)>,
}
/// The records of a request other than metrics.
#[derive(Clone, Copy, Debug)]
pub struct EventRecords<'a> {
    /// Log lines.
    pub logs: &'a [LogEntry],
    /// Deployments.
    pub deployments: &'a [Deployment],
    /// Spans.
    pub spans: &'a [Span],
    /// Time of arrival.
    pub received_at: Timestamp,
}
/// Checks the services, called services and deployments of a request against the tenant's limits. Returns the refused
/// records by their index among log lines, deployments and spans, in this order.
pub type AdmitHook = Arc<dyn Fn(&TenantId, EventRecords<'_>) -> Vec<(usize, RefusalCause)> + Send + Sync>;
/// Appends a request to the bus and hands its records to detection; completes when the request is durable.
pub type AppendHook =
    Arc<dyn Fn(AcceptedRequest) -> Pin<Box<dyn Future<Output = Result<u64, Failure>> + Send>> + Send + Sync>;

/// What intake needs from other crates, as closures built by the composition root.
#[derive(Clone)]
pub struct Intake {
    /// Limits of records.
    pub config: Config,
    /// Limits of request bodies.
    pub edge: EdgeConfig,
    /// The global decompression budget, which senders share fairly.
    pub budget: InflateBudget,
    /// The global budget of bodies being received, which senders share fairly.
    pub bodies: BodyBudget,
    /// The rate limit of each tenant.
    pub rate_limiter: Arc<ByteRateLimiter>,
    /// Looks up series ids and enforces the series limit.
    pub resolve: ResolveHook,
    /// Enforces the limits of records other than metrics.
    pub admit: AdmitHook,
    /// Appends to the bus.
    pub append: AppendHook,
    /// The clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

/// One source with its metrics.
pub(crate) struct Endpoint {
    pub(crate) intake: Intake,
    pub(crate) source: &'static dyn Source,
    requests: Counter,
    bytes: Counter,
    accepted: Counter,
    latency: Histogram,
}

impl Endpoint {
    pub(crate) fn new(intake: &Intake, source: &'static dyn Source) -> Self {
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

/// Returns the sender that the access check of the route found.
pub(crate) fn sender(identity: Option<&Identity>) -> Result<&Identity, Problem> {
    identity.ok_or_else(|| Problem::unavailable("no_identity", "the route has no access check"))
}

/// Processes one request, whatever the transport: reads the body, decodes, appends, counts and times it.
pub(crate) async fn process(
    endpoint: &Arc<Endpoint>,
    identity: Option<&Identity>,
    head: &RequestHead,
    body: impl Future<Output = Result<ReceivedBody, Problem>>,
) -> Result<RequestOutcome, Problem> {
    let started = std::time::Instant::now();
    endpoint.requests.increment(1);
    let processed = async {
        let ReceivedBody { bytes, permit } = body.await?;
        let outcome = append(endpoint, sender(identity)?, head, bytes).await;
        drop(permit);
        outcome
    };
    let outcome = processed.await;
    if let Err(problem) = &outcome {
        let labels = [("protocol", endpoint.source.name()), ("reason", problem.code())];
        metrics::counter!(names::REJECTED_TOTAL, &labels).increment(1);
    }
    endpoint.latency.record(started.elapsed().as_secs_f64());
    outcome
}

async fn append(
    endpoint: &Arc<Endpoint>,
    identity: &Identity,
    head: &RequestHead,
    body: Bytes,
) -> Result<RequestOutcome, Problem> {
    let Endpoint { intake, source, .. } = &**endpoint;
    endpoint.bytes.increment(body.len() as u64);
    intake.rate_limiter.take(&identity.tenant, body.len(), head.received_at).map_err(|seconds| {
        let detail = "the tenant exceeds its byte rate limit; see sources.tenant-bytes-per-second";
        Problem::unavailable("byte_quota", detail).retry_after(seconds)
    })?;
    let mut decoded = decode_fairly(endpoint, identity, head, &body).await?;
    let outcome = RequestOutcome {
        refused: std::mem::take(&mut decoded.refused),
        accepted: decoded.len(),
        samples: decoded.metrics.samples().len(),
        histograms: decoded.metrics.histograms().len(),
        exemplars: decoded.metrics.exemplars().len(),
        ignored_fields: std::mem::take(&mut decoded.ignored_fields),
    };
    for refusal in &outcome.refused {
        let count = u64::from(refusal.last - refusal.first) + 1;
        let labels = [("protocol", source.name()), ("reason", refusal.reason.as_str())];
        metrics::counter!(names::REJECTED_TOTAL, &labels).increment(count);
    }
    if outcome.accepted + outcome.exemplars > 0 || outcome.refused.is_empty() {
        let envelope = Envelope {
            tenant: identity.tenant.clone(),
            principal: identity.principal.clone(),
            protocol: source.name().to_owned(),
            content_type: head.content_type.clone(),
            content_encoding: head.content_encoding.clone(),
            received_at: head.received_at,
            refused: outcome.refused.clone(),
            has_events: decoded.has_events(),
        };
        let batch = decoded.into_batch(&body, head.received_at);
        // If the sender disconnects here, the record may be appended unacknowledged; detection reads it from the bus.
        (intake.append)(AcceptedRequest { envelope, body, batch }).await.map_err(problem_of)?;
        endpoint.accepted.increment(outcome.accepted as u64);
    }
    Ok(outcome)
}

/// Decodes a small body here and a large one on a blocking thread, in the sender's turn.
async fn decode_fairly(
    endpoint: &Arc<Endpoint>,
    identity: &Identity,
    head: &RequestHead,
    body: &Bytes,
) -> Result<Decoded, Problem> {
    let budget = endpoint.intake.budget.of_sender(identity);
    if !is_large(body.len(), endpoint.source.inflated_bytes(head, body)) {
        let small = budget.with_body_limit(LARGE_INFLATED_BYTES);
        match prepare(endpoint, &identity.tenant, head, body, &small) {
            // It holds more than it claims, or too many records; decoded in its turn.
            Err(Failure::Rejected { reason: "too_large", .. }) => {}
            decoded => return decoded.map_err(problem_of),
        }
    }
    let failed = || Problem::unavailable("intake_failed", "decoding the request failed; retry");
    let _slot = acquire_slot(identity).await.map_err(|_| failed())?;
    let (endpoint, tenant) = (Arc::clone(endpoint), identity.tenant.clone());
    let (head, body) = (head.clone(), body.clone());
    let work = tokio::task::spawn_blocking(move || prepare(&endpoint, &tenant, &head, &body, &budget));
    work.await.map_err(|_| failed())?.map_err(problem_of)
}

/// Everything before the append: decodes, applies limits and resolves series.
fn prepare(
    endpoint: &Endpoint,
    tenant: &TenantId,
    head: &RequestHead,
    body: &[u8],
    budget: &InflateBudget,
) -> Result<Decoded, Failure> {
    let Endpoint { intake, source, .. } = endpoint;
    let mut decoded = source.decode(head, body, budget)?;
    apply_limits(&mut decoded, &intake.config, head.received_at);
    resolve_series(&mut decoded, tenant, intake);
    admit_events(&mut decoded, tenant, intake, head.received_at);
    Ok(decoded)
}

/// Sets the series ids and removes the records of refused series.
pub(crate) fn resolve_series(decoded: &mut Decoded, tenant: &TenantId, intake: &Intake) {
    let metrics = &decoded.metrics;
    let read = |index: usize| metrics.labels(index).and_then(|labels| check_series(labels, &intake.config));
    let ResolvedSeries { ids, generation, refused } = (intake.resolve)(tenant, metrics.keys(), &read);
    decoded.metrics.set_series_ids(ids, generation);
    if refused.is_empty() {
        return;
    }
    let causes: BTreeMap<usize, RefusalCause> = refused.into_iter().collect();
    let (mut refused, mut next) = (Vec::new(), 0);
    let mut refuse_records = |series: usize, count: usize| {
        if let Some((reason, detail)) = causes.get(&series) {
            for index in next..next + count {
                push_refusal(&mut refused, decoded.position(index), *reason, detail.clone());
            }
        }
        next += count;
    };
    decoded.metrics.iter().for_each(|(series, samples)| refuse_records(series, samples.len()));
    decoded.metrics.histograms().iter().for_each(|(series, _)| refuse_records(*series as usize, 1));
    // Exemplars first: removing records changes the indexes of the series.
    decoded.metrics.retain_exemplars(|series, _| !causes.contains_key(&(series as usize)));
    decoded.remove_refused(&refused);
    decoded.refused.extend(refused);
}

/// Removes the log lines, deployments and spans beyond the tenant's limits.
pub(crate) fn admit_events(decoded: &mut Decoded, tenant: &TenantId, intake: &Intake, received_at: Timestamp) {
    let Decoded { logs, deployments, spans, .. } = decoded;
    if logs.is_empty() && deployments.is_empty() && spans.is_empty() {
        return;
    }
    let causes = (intake.admit)(tenant, EventRecords { logs, deployments, spans, received_at });
    let first = decoded.metrics.samples().len() + decoded.metrics.histograms().len();
    let mut refused = Vec::new();
    for (index, (reason, detail)) in causes {
        push_refusal(&mut refused, decoded.position(first + index), reason, detail);
    }
    decoded.remove_refused(&refused);
    decoded.refused.extend(refused);
}

/// Returns the problem of a failed request.
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
