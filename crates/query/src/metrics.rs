//! Names of the metrics of queries.

/// Gauge: query workers that are connected, with or without a query.
pub const QUERY_WORKERS: &str = "wardroom_query_workers";
/// Counter: query workers that were replaced, by reason: `deadline`, `cancelled`, `crashed` during a query, `exited`
/// without one.
pub const QUERY_WORKER_RESTARTS_TOTAL: &str = "wardroom_query_worker_restarts_total";
/// Gauge: running queries over the tables.
pub const QUERIES_RUNNING: &str = "wardroom_queries_running";
/// Gauge: queries that wait for a worker.
pub const QUERIES_WAITING: &str = "wardroom_queries_waiting";
/// Histogram: duration of a query over the tables, in seconds, with its wait for a worker, by outcome: `ok`, `failed`,
/// `refused`, `timeout`, `stopped` for another tenant, `crashed` or `cancelled`.
pub const QUERY_SECONDS: &str = "wardroom_query_seconds";
