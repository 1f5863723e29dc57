//! The context of the span that the calling thread is in.

use tracing::Span;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan;

use crate::context::TraceContext;
use crate::layer::OpenSpan;

/// Returns the context of the current span, for the header `traceparent` of what it calls.
pub fn current() -> Option<TraceContext> {
    let found = Span::current().with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.scope().find_map(|span| span.extensions().get::<OpenSpan>().map(|open| open.context))
    });
    found.flatten()
}
