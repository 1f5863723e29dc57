//! Runs reads of samples, series and exemplars: a few at once, fairly by tenant, on threads of low priority.
//!
//! These reads take no text to plan and are bounded page by page, so they stay in the server's process; but a page can
//! take seconds of a processor, which acknowledgements need.

use std::time::Duration;

use wardroom_domain::TenantId;
use wardroom_edge::Problem;
use wardroom_process::worker_limits::lower_priority;
use wardroom_query::FairPermits;

use super::serve_error::{ServeError, io_error};
use crate::views::lake_queries::lake_query_problem;

/// Smallest and largest number of reads at once; between them, half the processors and one. One is left to other
/// tenants.
const MAX_READS: (usize, usize) = (2, 4);
/// Reads of a tenant that wait: a dashboard asks for all its panels at once.
const MAX_WAITING_READS: usize = 256;
/// Niceness of the threads: queries of tables go first. Not more: a read holds a lock of the live series for moments.
const NICENESS: i32 = 15;
/// Maximum wait.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs reads on threads of their own.
pub(super) struct SeriesReads {
    permits: FairPermits,
    /// `Some` until dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

impl SeriesReads {
    /// Creates the threads.
    ///
    /// # Errors
    /// Returns an error if a thread cannot be created.
    pub(super) fn new() -> Result<Self, ServeError> {
        let lower_priority = || {
            if let Err(error) = lower_priority(NICENESS) {
                tracing::warn!(%error, "lowering the priority of a thread failed");
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            // The permits bound the reads. Blocking threads are not bounded: a read waits for others that read files.
            .thread_name("read")
            .on_thread_start(lower_priority)
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| io_error("start threads", error))?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let reads = (processors / 2 + 1).clamp(MAX_READS.0, MAX_READS.1);
        Ok(Self { permits: FairPermits::new(reads, MAX_WAITING_READS, READ_TIMEOUT), runtime: Some(runtime) })
    }

    /// Runs blocking work of a tenant's request.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: &TenantId,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let stopped = || Problem::unavailable("unreadable", "the server is shutting down");
        let permit = self.permits.acquire(tenant).await.map_err(lake_query_problem)?;
        let runtime = self.runtime.as_ref().ok_or_else(stopped)?;
        // The permit ends with the work, not with a caller that leaves.
        let done = runtime.spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| Problem::unavailable("unreadable", error.to_string()))
    }
}

impl Drop for SeriesReads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// All reads at once wait for blocking work of the same runtime, as reads of files do.
    #[tokio::test]
    async fn reads_may_wait_for_blocking_work() {
        let reads = Arc::new(SeriesReads::new().unwrap());
        let all: Vec<_> = (0..2 * MAX_READS.1)
            .map(|number| {
                let reads = Arc::clone(&reads);
                tokio::spawn(async move {
                    let work = move || {
                        let runtime = tokio::runtime::Handle::current();
                        std::thread::sleep(Duration::from_millis(50));
                        runtime.block_on(runtime.spawn_blocking(move || number)).unwrap()
                    };
                    reads.run(&TenantId::main(), work).await.map_err(|problem| problem.detail().to_owned())
                })
            })
            .collect();
        for (number, task) in all.into_iter().enumerate() {
            let found = tokio::time::timeout(Duration::from_secs(20), task).await.expect("a read hangs");
            assert_eq!(found.unwrap(), Ok(number));
        }
    }
}
