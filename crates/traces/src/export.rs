//! Sends spans that have ended to a collector, from a thread of its own.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::config::ExportSettings;
use crate::context::TraceContext;
use crate::finished_span::FinishedSpan;
use crate::metrics as names;
use crate::otlp_json;

/// Spans that wait for the thread, at most; about 1 MB, and 2 MB if all have long attributes.
const QUEUE_LENGTH: usize = 2048;
/// Spans of one request, at most.
const BATCH_LENGTH: usize = 512;
/// How long spans wait for others.
const BATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits before a batch is sent again that the collector could not take; then it is dropped.
const RETRY_WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

enum Message {
    Span(FinishedSpan),
    /// Asks for an answer once everything before it was sent.
    Flush(SyncSender<()>),
}

/// The spans that wait for export; cheap to clone. The thread begins with the first span: a sandbox restricts only
/// threads that begin later than it.
#[derive(Clone)]
pub struct SpanQueue(Arc<Shared>);

struct Shared {
    sender: SyncSender<Message>,
    settings: ExportSettings,
    receiver: Mutex<Option<Receiver<Message>>>,
    begun: Once,
}

impl std::fmt::Debug for SpanQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpanQueue").finish_non_exhaustive()
    }
}

impl SpanQueue {
    /// Creates the queue of an exporter.
    pub fn new(settings: ExportSettings) -> Self {
        let (sender, receiver) = sync_channel(QUEUE_LENGTH);
        Self(Arc::new(Shared { sender, settings, receiver: Mutex::new(Some(receiver)), begun: Once::new() }))
    }

    pub(crate) fn sample_ratio(&self) -> f64 {
        self.0.settings.sample_ratio
    }

    /// Adds a span; drops it if the queue is full.
    pub(crate) fn push(&self, span: FinishedSpan) {
        self.0.begun.call_once(|| self.begin());
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.0.sender.try_send(Message::Span(span))
        {
            count_dropped("queue_full", 1);
        }
    }

    /// Waits until the spans that have ended are sent, at most for a time.
    pub fn flush(&self, timeout: Duration) {
        let (done, flushed) = sync_channel(1);
        if self.0.begun.is_completed() && self.0.sender.try_send(Message::Flush(done)).is_ok() {
            // An error says that the time is over; what is left is lost with the process.
            let _timed_out = flushed.recv_timeout(timeout);
        }
    }

    fn begin(&self) {
        let receiver = self.0.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(receiver) = receiver else { return };
        let settings = self.0.settings.clone();
        let exporter = move || Exporter::new(settings).run(&receiver);
        if let Err(error) = std::thread::Builder::new().name("traces".into()).spawn(exporter) {
            tracing::error!(%error, "starting the thread of the traces failed; no spans are exported");
        }
    }
}

struct Exporter {
    settings: ExportSettings,
    url: String,
    agent: ureq::Agent,
    /// Whether the last batch was dropped: only the first one is logged.
    is_failing: bool,
}

impl Exporter {
    fn new(settings: ExportSettings) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT)).http_status_as_error(false);
        let url = format!("{}/v1/traces", settings.endpoint.trim_end_matches('/'));
        Self { settings, url, agent: config.build().new_agent(), is_failing: false }
    }

    /// Sends spans until the process ends.
    fn run(mut self, receiver: &Receiver<Message>) {
        let mut batch = Vec::new();
        loop {
            let mut flushed = match receiver.recv() {
                Ok(Message::Span(span)) => {
                    batch.push(span);
                    None
                }
                Ok(Message::Flush(done)) => Some(done),
                Err(_) => return,
            };
            let deadline = Instant::now() + BATCH_INTERVAL;
            while flushed.is_none() && batch.len() < BATCH_LENGTH {
                match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(Message::Span(span)) => batch.push(span),
                    Ok(Message::Flush(done)) => flushed = Some(done),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.export(&batch);
            batch.clear();
            if let Some(done) = flushed {
                // The receiver is dropped if the flush has timed out.
                let _timed_out = done.send(());
            }
        }
    }

    fn export(&mut self, batch: &[FinishedSpan]) {
        if batch.is_empty() {
            return;
        }
        let body = otlp_json::request(self.settings.service, batch).to_string();
        let mut waits = RETRY_WAITS.into_iter();
        let error = loop {
            match self.send(&body) {
                Ok(()) => {
                    metrics::counter!(names::SPANS_EXPORTED_TOTAL).increment(batch.len() as u64);
                    self.is_failing = false;
                    return;
                }
                Err((error, true)) => match waits.next().filter(|_| !self.is_failing) {
                    Some(wait) => std::thread::sleep(wait),
                    None => break error,
                },
                Err((error, false)) => break error,
            }
        };
        count_dropped("not_taken", batch.len() as u64);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(error, "exporting traces failed; spans are dropped until the collector takes them");
        }
    }

    /// Sends a request; returns what is wrong, and whether it may help to repeat it.
    fn send(&self, body: &str) -> Result<(), (String, bool)> {
        let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
        // Not sampled: if the collector is Wardroom, or traces itself, this request makes no further span.
        request = request.header("traceparent", TraceContext { is_sampled: false, ..TraceContext::begin() }.header());
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        let response = request.send(body).map_err(|error| (error.to_string(), true))?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            status => Err((format!("status {status}"), matches!(status, 429 | 502..=504))),
        }
    }
}

fn count_dropped(reason: &'static str, spans: u64) {
    metrics::counter!(names::SPANS_DROPPED_TOTAL, "reason" => reason).increment(spans);
}

#[cfg(test)]
mod tests;
