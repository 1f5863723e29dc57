//! The lake role: writes samples and events to the tables, and maintains them.

pub mod event_writer;
pub mod health_writer;
pub mod inferred_events;
pub mod lake_state;
pub mod lake_writer;
pub mod maintenance;
pub mod rebuild_batch;
