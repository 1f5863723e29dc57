//! Consumer groups on the bus.
//!
//! A group commits the offset below which it needs no record any more; the bus retains what any group still needs.
//! The names are persisted and must not change.

/// Detection: records before its committed offset are covered by a checkpoint.
pub const DETECT: &str = "detect";
/// Lake writer: samples of records before its committed offset are in the tables.
pub const LAKE_SAMPLES: &str = "lake";
/// Event writer: rows of records before its committed offset are in the tables.
pub const LAKE_EVENTS: &str = "lake-events";

/// Returns the name of the mark of an event table: the offset up to which rows were written to it. A table that ends
/// before its mark has lost rows.
pub fn event_table_mark(table: &str) -> String {
    format!("{LAKE_EVENTS}.{table}")
}
