//! Why a query has no result.

use serde::{Deserialize, Serialize};

/// Kind of a failure that a worker reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The text is not a query, or names something unknown.
    Invalid,
    /// The statement is not read-only.
    Refused,
    /// The statement is too large or too deep, or calls a function in a way that is not allowed.
    LimitExceeded,
    /// The query failed while running.
    Failed,
    /// The query took longer than allowed.
    Timeout,
    /// The query needs more memory, or returns more, than allowed.
    TooLarge,
    /// A file of the tables does not match its checksum.
    Damaged,
    /// The tables cannot be read now.
    Unavailable,
}

/// Why a query has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The query was run, or was not worth running.
    #[error("{detail}")]
    Query {
        /// What kind of failure.
        kind: FailureKind,
        /// What is wrong, and the remedy.
        detail: String,
    },
    /// The process that ran the query ended.
    #[error(
        "the process that ran the query ended: the query needs more memory (lake.query.memory-bytes) or nests deeper \
         than allowed, or the process was killed from outside; repeat the query once, and if it fails again narrow it \
         by `day` or `ts`, or split it"
    )]
    Crashed,
    /// The query did not stop at its timeout, in seconds, and its process was killed.
    #[error("the query was killed after {0} s (lake.query.seconds); narrow it by `day`, `ts` or `series_id`")]
    Killed(u64),
    /// The query was stopped after this time, in seconds, for another tenant.
    #[error(
        "the query was stopped after {0} s because other tenants wait and all query workers run long queries; repeat it \
         later, narrow it by `day` or `ts`, or raise lake.query.workers"
    )]
    Stopped(u64),
    /// Too many queries of the tenant wait.
    #[error(
        "{0} queries of this tenant wait already (lake.query.max-waiting); send fewer at once, or repeat this one later"
    )]
    QueueFull(usize),
    /// Results of earlier queries fill the memory for results.
    #[error(
        "results of earlier queries are not read yet and fill the memory for results (a few times \
         lake.query.max-bytes); read or cancel those first"
    )]
    ResultsUnread,
    /// No worker became free in time, in seconds.
    #[error("no query worker became free within {0} s; the queries before this one take long: repeat it later")]
    Busy(u64),
    /// No worker runs.
    #[error("no query worker runs; the server's log says why they end, and new ones are started")]
    NoWorker,
    /// The caller has left.
    #[error("the query was cancelled")]
    Cancelled,
}
