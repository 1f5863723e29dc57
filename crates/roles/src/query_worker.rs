//! The query worker: a process that runs queries for the server, limited and sandboxed by the kernel.

use std::path::Path;

use wardroom_process::heap::trim_heap;
use wardroom_process::sandbox::Sandbox;
use wardroom_process::worker_limits::{limit_processor_time, limit_query_worker};
use wardroom_process::worker_sockets::worker_socket;
use wardroom_query::{WorkerHooks, run_queries};

use crate::config::Config;

/// Processors that a query uses at most.
const QUERY_PROCESSORS: u64 = 2;

/// Why a query worker ended.
#[derive(Debug, thiserror::Error)]
pub enum QueryWorkerError {
    /// The location of the tables is invalid.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    /// A limit could not be set, or the server's socket failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Runs queries over the tables of a data folder, for the server at the other end of standard input, until it closes
/// the socket.
///
/// # Errors
/// Returns an error if a limit cannot be set, or if the socket fails.
pub fn run_query_worker(config: &Config, data: &Path) -> Result<(), QueryWorkerError> {
    let query = &config.lake.query;
    limit_query_worker(query.memory_bytes as u64)?;
    let folder = config.lake.folder(data)?;
    // The sandbox has no rule for a folder that does not exist, and at the first start the server creates it later.
    if let Some(folder) = &folder {
        std::fs::create_dir_all(folder)?;
    }
    Sandbox::query_worker(folder).enter();
    let socket = worker_socket()?;
    // More than a query can use before its timeout: the limit is for a query that does not stop then.
    let seconds = query.seconds.saturating_add(1).saturating_mul(QUERY_PROCESSORS);
    let limit_processor_time = move || {
        if let Err(error) = limit_processor_time(seconds) {
            tracing::warn!(%error, "limiting the processor time of a query failed");
        }
    };
    // For opening the tables; each query sets it again.
    limit_processor_time();
    let hooks = WorkerHooks { before_query: Box::new(limit_processor_time), after_query: Box::new(trim_heap) };
    // Not of one thread: there, the table library runs each of its steps on a runtime that ends with the step, and with
    // it the connections to the object store, which the next step would use.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    Ok(runtime.block_on(run_queries(socket, &config.lake, data, &hooks))?)
}
