//! Queries: samples and histograms of series, SQL, named queries, log search, and the replay of a time range.

pub(crate) mod histogram_queries;
pub(crate) mod log_search;
pub(crate) mod named_queries;
pub(crate) mod replay_window;
pub(crate) mod sample_queries;
pub(crate) mod sql_engine;
pub(crate) mod unflushed_rows;
