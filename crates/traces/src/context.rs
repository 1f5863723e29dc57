//! The W3C trace context: which trace a span belongs to, in the header `traceparent`.

use std::cell::Cell;
use std::fmt;

use tracing::Span;

/// Length of `VERSION-TRACE-SPAN-FLAGS` with the ids in hexadecimal.
const HEADER_LENGTH: usize = 55;
/// Bit of the flags: the caller records this trace.
const SAMPLED: u8 = 1;

/// A span's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    pub(crate) is_sampled: bool,
}

impl TraceContext {
    /// Begins a trace.
    pub fn begin() -> Self {
        Self { trace_id: rand::random::<u128>().max(1), span_id: rand::random::<u64>().max(1), is_sampled: true }
    }

    /// Returns the context of a span whose parent this is.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: rand::random::<u64>().max(1), ..self }
    }

    /// Reads the header `traceparent`; `None` if it is not valid. Of later versions what is known is read.
    pub fn parse(header: &str) -> Option<Self> {
        let known = header.get(..HEADER_LENGTH)?;
        let mut parts = known.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next()?;
            let is_hex = part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            is_hex.then(|| u128::from_str_radix(part, 16).ok())?
        };
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let rest = header.get(HEADER_LENGTH..)?;
        let is_known = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
        let is_valid = version != 0xff && is_known && trace_id != 0 && span_id != 0;
        let is_sampled = flags & u128::from(SAMPLED) != 0;
        is_valid.then_some(Self { trace_id, span_id: span_id as u64, is_sampled })
    }

    /// Returns the trace's id as it is written: 32 hexadecimal digits.
    pub fn trace_id(self) -> impl fmt::Display {
        TraceId(self.trace_id)
    }

    /// Returns the header `traceparent`.
    pub fn header(self) -> String {
        let flags = if self.is_sampled { SAMPLED } else { 0 };
        format!("00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.span_id)
    }
}

struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The context of a span that a request begins: in the trace of its caller, or in a new one.
#[derive(Clone, Copy, Debug)]
pub struct ContinuedTrace {
    /// Of the span.
    pub context: TraceContext,
    parent: Option<TraceContext>,
}

thread_local! {
    /// The context of the span that is being created.
    static CREATED: Cell<Option<ContinuedTrace>> = const { Cell::new(None) };
}

impl ContinuedTrace {
    /// Continues the trace of a header `traceparent`, if there is a valid one.
    pub fn of(header: Option<&str>) -> Self {
        let parent = header.and_then(TraceContext::parse);
        Self { context: parent.map_or_else(TraceContext::begin, TraceContext::child), parent }
    }

    /// Creates the span with this context.
    pub fn span(self, create: impl FnOnce() -> Span) -> Span {
        CREATED.set(Some(self));
        let span = create();
        CREATED.set(None);
        span
    }

    /// Takes the context that a span is being created with, and the id of its parent.
    pub(crate) fn of_created() -> Option<(TraceContext, Option<TraceContext>)> {
        CREATED.take().map(|continued| (continued.context, continued.parent))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_of_the_recommendation_are_read_and_others_begin_a_trace() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = TraceContext::parse(header).unwrap();
        assert_eq!((parsed.header().as_str(), parsed.is_sampled), (header, true));
        assert_eq!(parsed.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(!TraceContext::parse(&header.replace("-01", "-00")).unwrap().is_sampled);
        let later = format!("{}-what-ever", header.replacen("00", "cc", 1));
        assert_eq!(TraceContext::parse(&later), Some(parsed));
        for invalid in [
            "",
            "00",
            &header.to_uppercase(),
            &format!("{header}-x"),
            &header.replacen("00", "ff", 1),
            &header.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &header.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &header.replace("-01", "-+1"),
            &header.replace('b', "ä"),
            &later.replace("-what", "what"),
        ] {
            assert_eq!(TraceContext::parse(invalid), None, "{invalid}");
            let begun = ContinuedTrace::of(Some(invalid));
            assert!(begun.parent.is_none() && begun.context.trace_id != parsed.trace_id);
        }
        let continued = ContinuedTrace::of(Some(header));
        assert_eq!((continued.context.trace_id, continued.parent), (parsed.trace_id, Some(parsed)));
        assert_ne!(continued.context.span_id, parsed.span_id);
    }

    proptest! {
        #[test]
        fn no_header_panics_and_what_is_read_is_written_the_same(text in ".{0,80}", known in "00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]") {
            for header in [text, known] {
                if let Some(context) = TraceContext::parse(&header) {
                    prop_assert!(context.header() == header || !header.starts_with("00"));
                }
            }
        }
    }
}
