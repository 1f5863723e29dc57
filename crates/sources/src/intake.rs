//! From an HTTP request to a durable record, the same for every source.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, Envelope, Identity, Labels, Refusal, SeriesId, TenantId, Timestamp};
use wardroom_edge::{Access, Config as EdgeConfig, InflateBudget, Problem, Routes, read_body};

use crate::admit::{admit, check_series, refuse};
use crate::source::{RequestHead, Source};
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
/// The ids in order, and who was denied one.
pub type Resolved = (Vec<SeriesId>, Vec<(usize, Denial)>);
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

/// The routes of every source in the registry.
pub fn routes(intake: &Intake) -> Routes {
    SOURCES.iter().fold(Routes::new(), |routes, source| {
        let intake = intake.clone();
        routes.post(source.path(), Access::Send, move |request: Request| receive(intake.clone(), *source, request))
    })
}

async fn receive(intake: Intake, source: &'static dyn Source, request: Request) -> Response {
    let started = std::time::Instant::now();
    metrics::counter!(names::REQUESTS_TOTAL, "protocol" => source.name()).increment(1);
    let response = match accept(&intake, source, request).await {
        Ok(response) => response,
        Err(problem) => {
            let reason = problem.code();
            metrics::counter!(names::REJECTED_TOTAL, "protocol" => source.name(), "reason" => reason).increment(1);
            problem.into_response()
        }
    };
    metrics::histogram!(names::LATENCY_SECONDS, "protocol" => source.name()).record(started.elapsed().as_secs_f64());
    response
}

async fn accept(intake: &Intake, source: &'static dyn Source, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let identity = parts.extensions.get::<Identity>().cloned();
    let identity = identity.ok_or_else(|| Problem::unavailable("no_identity", "the port has no guard"))?;
    let received_at = (intake.now)();
    let head = RequestHead {
        content_type: media_type(&parts.headers),
        content_encoding: header_text(&parts.headers, &header::CONTENT_ENCODING),
        received_at,
    };
    source
        .check(&head)
        .map_err(|detail| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", detail))?;
    let body = read_body(body, &intake.edge).await?;
    metrics::counter!(names::BYTES_TOTAL, "protocol" => source.name()).increment(body.len() as u64);

    intake.quota.take(&identity.tenant, body.len(), received_at).map_err(|seconds| {
        let detail = "the tenant sends more bytes than it may; see sources.tenant-bytes-per-second";
        Problem::unavailable("byte_quota", detail).retry_after(seconds)
    })?;
    let mut decoded = source.decode(&head, &body, &intake.budget).map_err(problem_of)?;
    admit(&mut decoded, &intake.config, received_at);
    let ids = resolve(&mut decoded, &identity.tenant, intake);

    let refused = std::mem::take(&mut decoded.refused);
    let kept = decoded.len();
    let written = source.tells_written(&head).then(|| {
        let counts = [kept, decoded.histograms as usize, decoded.exemplars as usize];
        WRITTEN.into_iter().zip(counts.map(HeaderValue::from)).collect::<HeaderMap>()
    });
    for refusal in &refused {
        let count = u64::from(refusal.last - refusal.first) + 1;
        let labels = [("protocol", source.name()), ("reason", refusal.reason.as_str())];
        metrics::counter!(names::REJECTED_TOTAL, &labels).increment(count);
    }
    if kept > 0 || refused.is_empty() || decoded.histograms + decoded.exemplars > 0 {
        let envelope = Envelope {
            tenant: identity.tenant,
            principal: identity.principal,
            protocol: source.name().to_owned(),
            content_type: head.content_type,
            content_encoding: head.content_encoding,
            received_at,
            refused: refused.clone(),
        };
        // In a task of its own: a sender that hangs up must not stop what it already started.
        let appending = tokio::spawn((intake.append)(Accepted { envelope, body, batch: decoded.resolve(&ids) }));
        appending
            .await
            .map_err(|_| Problem::unavailable("intake_failed", "the request could not be stored; send it again"))?
            .map_err(problem_of)?;
        metrics::counter!(names::ACCEPTED_TOTAL, "protocol" => source.name()).increment(kept as u64);
    }
    let mut response = match refused.first() {
        None => source.success().into_response(),
        // Counted record by record above, not once more as a request.
        Some(first) => partial(first, &refused, kept).into_response(),
    };
    response.headers_mut().extend(written.unwrap_or_default());
    Ok(response)
}

/// How much of a request was written, as remote_write 2.0 tells it.
const WRITTEN: [header::HeaderName; 3] = [
    header::HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    header::HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    header::HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

/// Looks the series up; takes those out that may not come in.
fn resolve(decoded: &mut Decoded, tenant: &TenantId, intake: &Intake) -> Vec<SeriesId> {
    let metrics = &decoded.metrics;
    let read = |at: usize| metrics.labels(at).and_then(|labels| check_series(labels, &intake.config));
    let (ids, denied) = (intake.resolve)(tenant, metrics.keys(), &read);
    if denied.is_empty() {
        return ids;
    }
    let mut denied = denied.into_iter().peekable();
    let (mut kept, mut refused, mut place) = (Vec::with_capacity(ids.len()), Vec::new(), 0);
    for ((at, samples), id) in metrics.iter().zip(ids) {
        match denied.next_if(|(denied, _)| *denied == at) {
            None => kept.push(id),
            Some((_, (reason, detail))) => {
                for place in place..place + samples.len() {
                    refuse(&mut refused, decoded.position(place), reason, detail.clone());
                }
            }
        }
        place += samples.len();
    }
    decoded.leave_out(&refused);
    decoded.refused.extend(refused);
    kept
}

fn partial(first: &Refusal, refused: &[Refusal], kept: usize) -> Problem {
    let count: u64 = refused.iter().map(|refusal| u64::from(refusal.last - refusal.first) + 1).sum();
    let detail = format!("record {}: {}", first.first, first.detail);
    Problem::bad_request(first.reason.as_str(), detail).with("accepted", kept).with("rejected", count)
}

fn problem_of(failure: Failure) -> Problem {
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

fn media_type(headers: &HeaderMap) -> String {
    let text = header_text(headers, &header::CONTENT_TYPE);
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let proto = parts.find(|part| part.starts_with("proto=")).map(|part| part.replace('"', ""));
    proto.map_or_else(|| kind.to_owned(), |proto| format!("{kind};{proto}"))
}

fn header_text(headers: &HeaderMap, name: &header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim().to_ascii_lowercase()
}
