//! Runs queries over the tables in worker processes, so that the worst query costs only itself.
//!
//! ```text
//! server process                                            worker process (limited, read-only)
//! query ─► pool ─► schedule: whose query gets a free worker ─► socket ─► worker ─► the lake's query engine
//!            ▲                                                              │
//!            └── result, or why there is none ◄──────────── socket ◄────────┘
//! ```
//!
//! Problem: a query is any text. Planning it may overflow the stack or take all memory, and it may run on after its
//! timeout; in the process that takes telemetry in, this would end or slow down everything. Model: the supervisor keeps
//! a few worker processes running, each with limits that the kernel enforces. A worker runs one query at a time; rows
//! that are not in the tables yet are sent to it with the query. Guarantees: a query that ends its worker, or does not
//! stop in time, gets an error, and no other query does; a tenant that sends many queries waits behind its own; the
//! memory that the server needs for a query is bounded by its result.
//!
//! - `pool`: the server's side: takes queries, gives each a worker, and has workers killed.
//! - `exchange`: one query on one worker.
//! - `results`: the memory of results that clients have not read yet.
//! - `schedule`: which tenant's query is next (no I/O).
//! - `permits`: the same for reads in the server's own process.
//! - `protocol`: the messages between both.
//! - `worker`: the worker's side.

#![forbid(unsafe_code)]

mod error;
mod exchange;
pub mod metrics;
mod permits;
mod pool;
mod protocol;
mod results;
mod schedule;
mod worker;

pub use error::{FailureKind, PoolError};
pub use permits::{FairPermits, Permit};
pub use pool::{PoolStatus, QueryPool, WorkerControl};
pub use protocol::{Query, QueryParameters};
pub use worker::{WorkerHooks, run_queries};
