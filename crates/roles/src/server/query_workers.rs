//! Connects the query workers that the supervisor starts.

use std::io::Result;
use std::sync::Arc;

use tokio::sync::mpsc;
use wardroom_lake::QueryConfig;
use wardroom_pipeline::lake::lake_state::LakeTables;
use wardroom_process::worker_sockets::ControlSocket;
use wardroom_query::{QueryPool, WorkerControl};

use super::serve_error::{ServeError, io_error};

/// Capacity of the channel of new workers.
const NEW_WORKERS_CAPACITY: usize = 16;

/// Starts the pool of queries over the tables. Without a supervisor (`has_workers`) it refuses all queries.
///
/// # Errors
/// Returns an error if the supervisor's socket cannot be used.
pub(super) fn start_query_pool(
    tables: &LakeTables,
    config: &QueryConfig,
    has_workers: bool,
) -> std::result::Result<QueryPool, ServeError> {
    let control = if has_workers { receive_workers() } else { Ok(no_workers()) };
    let control = control.map_err(|error| io_error("connect query workers", error))?;
    Ok(QueryPool::new(Arc::clone(&tables.lake), config.clone(), control))
}

fn receive_workers() -> Result<WorkerControl> {
    let socket = Arc::new(ControlSocket::from_stdin()?);
    let (sender, workers) = mpsc::channel(NEW_WORKERS_CAPACITY);
    let (starter, killer) = (Arc::clone(&socket), Arc::clone(&socket));
    let receive = move || {
        loop {
            match socket.next_worker() {
                Ok(Some(worker)) => {
                    if sender.blocking_send(worker).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::error!(%error, "receiving query workers failed"),
            }
        }
    };
    std::thread::Builder::new().name("query-workers".into()).spawn(receive)?;
    let start = move || {
        if let Err(error) = starter.start() {
            tracing::error!(%error, "starting query workers failed");
        }
    };
    let kill = move |id| {
        if let Err(error) = killer.kill(id) {
            tracing::error!(worker = id, %error, "killing a query worker failed");
        }
    };
    Ok(WorkerControl { workers, start: Box::new(start), kill: Box::new(kill) })
}

fn no_workers() -> WorkerControl {
    WorkerControl { workers: mpsc::channel(1).1, start: Box::new(|| {}), kill: Box::new(|_| {}) }
}
