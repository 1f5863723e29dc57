//! Encodes samples, events and gold rows as files, and commits them to the tables.

pub(crate) mod audit_heads;
pub(crate) mod detected_events;
pub(crate) mod event_batch;
mod event_row;
pub(crate) mod event_tables;
pub(crate) mod flush;
pub(crate) mod gold_tables;
pub(crate) mod pending_rows;
pub(crate) mod series_ids;
