//! `GET /api/v1/stream`: server-sent events of what changes.
//!
//! ```text
//! store changes ─► one task: reads what changed, once for all clients ─► channel ─► each client: its tenant's events
//! ```
//!
//! Each client has a bounded buffer: one that falls behind gets `reset`, and reads the lists again, instead of holding
//! memory. The task runs while there are clients. The credential is checked again while the stream is open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout};
use wardroom_domain::{TenantId, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::problem_responses::{GuardErrors, ProblemDocument};
use crate::query_parameters::QueryParameters;
use crate::request::Caller;
use crate::resource_views::EventView;
use crate::resources_backend::ResourcesBackend;
use crate::stream_places::{StreamPlace, StreamPlaces};
use crate::views::IncidentSummary;

/// Events that a client may be behind.
const BUFFERED_EVENTS: usize = 256;
/// Interval of reads of what other processes changed, and of checks of credentials.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Incidents that change in this time are read at once.
const GATHER_INTERVAL: Duration = Duration::from_millis(100);
/// A client that got nothing for this long gets a comment, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A comment is as long as a response, see `edge::serve`.
const KEEP_ALIVE_TEXT: &str = ": nothing has changed since the last event; this line keeps the connection open\n\n";
/// Events older than this are not looked for, in ms: what is reported late is not live.
const MAX_EVENT_AGE_MS: i64 = 3_600_000;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let hub = Arc::new(Hub::new(backend.resources.clone()));
    Routes::new().get(
        "/api/v1/stream",
        Access::Read,
        move |caller: Caller, headers: HeaderMap, parameters: QueryParameters<StreamParameters>| {
            stream(Arc::clone(&hub), caller, headers, parameters)
        },
    )
}

/// What all streams share.
pub(crate) struct Hub {
    resources: ResourcesBackend,
    events: broadcast::Sender<Arc<LiveEvent>>,
    /// Whether the task runs.
    is_running: AtomicBool,
    places: StreamPlaces,
}

/// One event, written once for all clients.
struct LiveEvent {
    tenant: TenantId,
    text: Bytes,
}

impl LiveEvent {
    fn new(tenant: TenantId, id: Option<i64>, name: &str, data: &impl Serialize) -> Self {
        let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
        // JSON has no line feeds.
        let data = serde_json::to_string(data).unwrap_or_default();
        Self { tenant, text: format!("{id}event: {name}\ndata: {data}\n\n").into() }
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParameters {
    /// The id of the last event that the client has, for clients that cannot send `Last-Event-ID`.
    last_event_id: Option<i64>,
}

/// Server-sent events of what changes.
///
/// `incident` is an entry of the list of incidents, when it opens or changes; `change` is one of the list of events.
/// `reset` says that events were left out: read the lists again. A client that reconnects with `Last-Event-ID` gets the
/// incidents that changed meanwhile.
#[utoipa::path(
    get, path = "/api/v1/stream", operation_id = "streamChanges", tag = "stream",
    params(StreamParameters,
        ("Last-Event-ID" = Option<i64>, Header, description = "The id of the last event that the client has")),
    responses((status = 200, description = "Events until the client leaves", body = String,
            content_type = "text/event-stream"),
        (status = 429, description = "`too_many_streams`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn stream(
    hub: Arc<Hub>,
    caller: Caller,
    headers: HeaderMap,
    QueryParameters(parameters): QueryParameters<StreamParameters>,
) -> Result<Response, Problem> {
    let place = hub.places.take(&caller)?;
    let events = hub.subscribe();
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let last = last.or(parameters.last_event_id);
    let mut waiting = VecDeque::from([Bytes::from_static(b"retry: 2000\n\n")]);
    if let Some(last) = last {
        let (_, changed) = (hub.resources.changed_incidents)(Some(last)).await?;
        let own = changed.into_iter().filter(|(tenant, _)| *tenant == caller.tenant);
        let event = |(tenant, incident): (TenantId, IncidentSummary)| {
            LiveEvent::new(tenant, Some(incident.updated_at.nanos()), "incident", &incident).text
        };
        waiting.extend(own.map(event));
    }
    let client =
        Client { hub, tenant: caller.tenant.clone(), headers, events, waiting, sent_at: Instant::now(), _place: place };
    let body = futures_util::stream::unfold(client, async |mut client: Client| {
        let text = client.next().await?;
        Some((Ok::<_, std::convert::Infallible>(text), client))
    });
    let mut response = (StatusCode::OK, Body::from_stream(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Asks nginx to pass each event on at once.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One client.
struct Client {
    hub: Arc<Hub>,
    tenant: TenantId,
    headers: HeaderMap,
    events: broadcast::Receiver<Arc<LiveEvent>>,
    waiting: VecDeque<Bytes>,
    sent_at: Instant,
    _place: StreamPlace,
}

impl Client {
    /// Returns the next text to send; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let text = self.wait().await?;
        self.sent_at = Instant::now();
        Some(text)
    }

    async fn wait(&mut self) -> Option<Bytes> {
        loop {
            if let Some(text) = self.waiting.pop_front() {
                return Some(text);
            }
            if *self.hub.resources.stopping.borrow() || !(self.hub.resources.is_valid)(&self.headers) {
                return None;
            }
            match timeout(POLL_INTERVAL, self.events.recv()).await {
                Ok(Ok(event)) if event.tenant == self.tenant => return Some(event.text.clone()),
                Ok(Ok(_)) => {}
                Ok(Err(RecvError::Lagged(_))) => return Some(Bytes::from_static(b"event: reset\ndata: {}\n\n")),
                // The hub holds a sender.
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) if self.sent_at.elapsed() >= KEEP_ALIVE => return Some(KEEP_ALIVE_TEXT.into()),
                Err(_) => {}
            }
        }
    }
}

impl Hub {
    fn new(resources: ResourcesBackend) -> Self {
        let (events, _) = broadcast::channel(BUFFERED_EVENTS);
        let places = StreamPlaces::new(resources.stream_limits);
        Self { resources, events, is_running: AtomicBool::new(false), places }
    }

    /// Adds a client, and starts the task if it does not run.
    fn subscribe(self: &Arc<Self>) -> broadcast::Receiver<Arc<LiveEvent>> {
        let receiver = self.events.subscribe();
        if !self.is_running.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).run());
        }
        receiver
    }

    /// Sends what changes, while there are clients.
    async fn run(self: Arc<Self>) {
        let mut changes = self.resources.incident_changes.clone();
        let (mut position, mut seen, mut sent) = (None, SeenEvents::default(), SentIncidents::default());
        loop {
            if self.events.receiver_count() == 0 {
                self.is_running.store(false, Ordering::Release);
                // A client may have come just before.
                if self.events.receiver_count() == 0 || self.is_running.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
            match (self.resources.changed_incidents)(position).await {
                Ok((next, changed)) => {
                    position = Some(next);
                    for (tenant, incident) in sent.new_ones(changed) {
                        let id = Some(incident.updated_at.nanos());
                        self.send(LiveEvent::new(tenant, id, "incident", &incident));
                    }
                }
                Err(problem) => tracing::warn!(detail = problem.detail(), "reading what changed failed; retrying"),
            }
            self.send_events(&mut seen).await;
            if matches!(timeout(POLL_INTERVAL, changes.changed()).await, Ok(Ok(()))) {
                tokio::time::sleep(GATHER_INTERVAL).await;
            }
        }
    }

    fn send(&self, event: LiveEvent) {
        // Fails without clients.
        drop(self.events.send(Arc::new(event)));
    }

    /// Sends the events that detection has seen since the last call.
    async fn send_events(&self, seen: &mut SeenEvents) {
        let Ok(tenants) = (self.resources.live_tenants)(()).await else { return };
        for (tenant, watermark_ms) in tenants {
            let since = Timestamp::from_millis(watermark_ms.saturating_sub(MAX_EVENT_AGE_MS).max(0));
            let until = Timestamp::from_nanos(i64::MAX);
            let Ok(events) = (self.resources.events)((tenant.clone(), since, until)).await else { continue };
            for event in seen.new_ones(&tenant, events) {
                self.send(LiveEvent::new(tenant.clone(), None, "change", &event));
            }
        }
    }
}

/// The revisions of incidents that were sent last: each answer has some of the one before, too.
#[derive(Default)]
struct SentIncidents(BTreeMap<(TenantId, i64), i64>);

impl SentIncidents {
    /// Returns the incidents whose revision was not sent before.
    fn new_ones(&mut self, changed: Vec<(TenantId, IncidentSummary)>) -> Vec<(TenantId, IncidentSummary)> {
        let id = |(tenant, incident): &(TenantId, IncidentSummary)| (tenant.clone(), incident.number);
        let now = changed.iter().map(|row| (id(row), row.1.revision)).collect();
        let before = std::mem::replace(&mut self.0, now);
        changed.into_iter().filter(|row| before.get(&id(row)) != Some(&row.1.revision)).collect()
    }
}

/// The events that were sent before.
#[derive(Default)]
struct SeenEvents(BTreeMap<TenantId, BTreeSet<String>>);

impl SeenEvents {
    /// Returns the events that were not seen before; none at the first call for a tenant: they are not new.
    fn new_ones(&mut self, tenant: &TenantId, events: Vec<EventView>) -> Vec<EventView> {
        let ids = events.iter().map(|event| event.id.clone()).collect();
        match self.0.insert(tenant.clone(), ids) {
            Some(known) => events.into_iter().filter(|event| !known.contains(&event.id)).collect(),
            None => Vec::new(),
        }
    }
}
