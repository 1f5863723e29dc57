//! Names of the metrics of this crate.

/// Counter: spans that a collector has taken.
pub const SPANS_EXPORTED_TOTAL: &str = "wardroom_trace_spans_exported_total";
/// Counter by `reason` (`queue_full`, `not_taken`): spans that were dropped.
pub const SPANS_DROPPED_TOTAL: &str = "wardroom_trace_spans_dropped_total";
