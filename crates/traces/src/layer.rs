//! Gives every span a trace context, and exports those that have ended.

use std::fmt::Debug;
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;
use wardroom_domain::Timestamp;

use crate::context::{ContinuedTrace, TraceContext};
use crate::export::SpanQueue;
use crate::finished_span::FinishedSpan;

/// Target of an event that sets the HTTP status (field `status`) of the span that it is in. Log filters leave it out.
pub const STATUS_TARGET: &str = "wardroom_span_status";
/// Beginning of the targets of Wardroom's own spans.
const OWN_TARGETS: &str = "wardroom";
/// Length at which an attribute is cut, in characters: any caller can send a long path.
const MAX_ATTRIBUTE_CHARS: usize = 256;
/// Fields of spans that the exported ones have as ids.
const ID_FIELD: &str = "trace_id";

/// A span that has not ended.
#[derive(Debug)]
pub(crate) struct OpenSpan {
    pub(crate) context: TraceContext,
    parent: Option<u64>,
    started_at: Timestamp,
    started: Instant,
    attributes: Vec<(&'static str, String)>,
    status: Option<u64>,
}

/// The layer of the subscriber; without a queue spans have a context and are not exported.
pub struct TraceLayer {
    queue: Option<SpanQueue>,
    now: fn() -> Timestamp,
}

impl Debug for TraceLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceLayer").finish_non_exhaustive()
    }
}

impl TraceLayer {
    /// Creates the layer; `now` is the wall clock.
    pub const fn new(queue: Option<SpanQueue>, now: fn() -> Timestamp) -> Self {
        Self { queue, now }
    }

    /// Returns the filter that the layer needs: spans of Wardroom's own crates from level info on.
    pub fn filter<S>(&self) -> impl Filter<S> + Send + Sync + 'static + use<S> {
        let exports = self.queue.is_some();
        let is_traced = move |metadata: &Metadata<'_>| match metadata.target() {
            STATUS_TARGET => exports,
            target => metadata.is_span() && target.starts_with(OWN_TARGETS),
        };
        filter_fn(is_traced).with_max_level_hint(LevelFilter::INFO)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TraceLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let (place, parent) = match ContinuedTrace::of_created() {
            Some((place, parent)) => (self.sampled(place, parent.is_some()), parent.map(|parent| parent.span_id)),
            None => {
                let of_parent = |parent: &tracing_subscriber::registry::SpanRef<'_, S>| {
                    parent.extensions().get::<OpenSpan>().map(|open| open.context)
                };
                match span.parent().as_ref().and_then(of_parent) {
                    Some(parent) => (parent.child(), Some(parent.span_id)),
                    None => (self.sampled(TraceContext::begin(), false), None),
                }
            }
        };
        let mut fields = Fields::default();
        if self.queue.is_some() && place.is_sampled {
            attributes.record(&mut fields);
        }
        let (started_at, started) = ((self.now)(), Instant::now());
        let open = OpenSpan { context: place, parent, started_at, started, attributes: fields.0, status: None };
        span.extensions_mut().insert(open);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != STATUS_TARGET {
            return;
        }
        let mut status = Status(None);
        event.record(&mut status);
        let Some(span) = context.event_span(event) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<OpenSpan>() {
            open.status = status.0;
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let (Some(queue), Some(span)) = (&self.queue, context.span(&id)) else { return };
        let open = span.extensions_mut().remove::<OpenSpan>();
        let Some(open) = open.filter(|open| open.context.is_sampled) else { return };
        queue.push(FinishedSpan {
            name: span.name(),
            context: open.context,
            parent: open.parent,
            started_at: open.started_at,
            duration: open.started.elapsed(),
            attributes: open.attributes,
            status: open.status,
        });
    }
}

impl TraceLayer {
    /// Decides whether a trace that begins here is exported, by its id: so every process decides the same.
    fn sampled(&self, place: TraceContext, has_parent: bool) -> TraceContext {
        let share = self.queue.as_ref().map_or(1.0, SpanQueue::sample_ratio);
        let position = (place.trace_id as u64) as f64 / u64::MAX as f64;
        let is_sampled = place.is_sampled && (has_parent || share >= 1.0 || position < share);
        TraceContext { is_sampled, ..place }
    }
}

/// The fields of a span as text.
#[derive(Default)]
struct Fields(Vec<(&'static str, String)>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != ID_FIELD {
            self.0.push((field.name(), value.chars().take(MAX_ATTRIBUTE_CHARS).collect()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

struct Status(Option<u64>);

impl Visit for Status {
    fn record_u64(&mut self, _: &Field, value: u64) {
        self.0 = Some(value);
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}
