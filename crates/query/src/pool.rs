//! The server's side: takes queries, gives each a worker, and has workers killed that do not stop.
//!
//! ```text
//! query ─► wait for a worker ─► unflushed rows ─► send ─► receive ─► result
//!            │ too many, too long    worker ended │ deadline passed │ caller left, or another tenant waits
//!            ▼                                    ▼                 ▼
//!          refused                             crashed            killed, or stopped by the worker
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;
use wardroom_domain::TenantId;
use wardroom_lake::{Lake, OutputFormat, QueryConfig, UnflushedRows};
use wardroom_traces::TraceContext;

use crate::error::{FailureKind, PoolError};
use crate::exchange::{Exchange, exchange};
use crate::metrics as names;
use crate::protocol::{Query, Request};
use crate::results::ResultBudget;
use crate::schedule::Schedule;

/// Time beyond `lake.query.seconds` after which a worker is killed that has not reported the timeout itself.
const KILL_DELAY: Duration = Duration::from_secs(1);
/// A query fails after this time without any worker.
const NO_WORKER_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which a waiting query looks for a worker.
const DISPATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time in which the rows that are not flushed are read: a commit may be in progress.
const UNFLUSHED_TIMEOUT: Duration = Duration::from_secs(10);

/// Where workers come from, and how they are killed.
pub struct WorkerControl {
    /// New workers: number and socket. Closed if none will come.
    pub workers: mpsc::Receiver<(u32, std::os::unix::net::UnixStream)>,
    /// Has the workers started.
    pub start: Box<dyn Fn() + Send + Sync>,
    /// Kills a worker by its number.
    pub kill: Box<dyn Fn(u32) + Send + Sync>,
}

impl std::fmt::Debug for WorkerControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerControl").finish_non_exhaustive()
    }
}

/// State of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Workers that are connected, with or without a query.
    pub workers: usize,
    /// Whether queries have come and there is no worker now.
    pub is_missing: bool,
    /// Whether this has been so for several seconds.
    pub is_down: bool,
}

/// Runs queries in worker processes.
#[derive(Debug)]
pub struct QueryPool(Arc<Shared>);

impl QueryPool {
    /// Creates a pool that runs its tasks on the current runtime. `lake` has the rows that are not flushed yet.
    pub fn new(lake: Arc<Lake>, config: QueryConfig, control: WorkerControl) -> Self {
        let WorkerControl { mut workers, start, kill } = control;
        let state = State {
            schedule: Schedule::new(config.max_waiting.max(1)),
            stops: BTreeMap::new(),
            has_source: true,
            is_started: false,
            without_worker_since: None,
        };
        let results = ResultBudget::new(config.max_bytes as u64);
        let shared =
            Shared { lake, config, start, kill, results, runtime: Handle::current(), state: Mutex::new(state) };
        let shared = Arc::new(shared);
        let receiver = Arc::clone(&shared);
        shared.runtime.spawn(async move {
            while let Some((id, socket)) = workers.recv().await {
                let stream = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
                match stream {
                    Ok(stream) => receiver.state().schedule.add_worker(Worker { id, stream }),
                    Err(error) => tracing::error!(%error, "connecting a query worker failed"),
                }
                receiver.dispatch();
            }
            receiver.state().has_source = false;
        });
        Self(shared)
    }

    /// Runs a query over one tenant's rows. It is cancelled when the future is dropped.
    ///
    /// # Errors
    /// See [`PoolError`].
    pub async fn run(&self, tenant: &TenantId, query: Query, format: OutputFormat) -> Result<Bytes, PoolError> {
        let (shared, started) = (Arc::clone(&self.0), Instant::now());
        let caller = wardroom_traces::current();
        let span = if caller.is_some() { tracing::info_span!("query") } else { tracing::Span::none() };
        let traceparent = caller.and_then(|_| span.in_scope(wardroom_traces::current)).map(TraceContext::header);
        let request = Request { tenant: tenant.clone(), query, format, traceparent, unflushed: Vec::new() };
        // Dropped with this future, which the task notices.
        let (stay, left) = oneshot::channel();
        // A task of its own: it returns the worker or has it killed when the caller leaves.
        let task = self.0.runtime.spawn(async move {
            let result = Box::pin(shared.execute(request, left)).instrument(span).await;
            metrics::histogram!(names::QUERY_SECONDS, "outcome" => outcome(&result)).record(started.elapsed());
            result
        });
        // The task ends early only when the runtime shuts down.
        let result = task.await.unwrap_or(Err(PoolError::Cancelled));
        let _kept_until_here: oneshot::Sender<()> = stay;
        result
    }

    /// Returns the state of the workers.
    pub fn status(&self) -> PoolStatus {
        self.0.remove_lost_workers();
        let mut state = self.0.state();
        let (workers, is_down) = (state.workers(), state.is_down());
        PoolStatus { workers, is_missing: workers == 0 && state.is_started, is_down }
    }

    /// Sets the gauges that are computed at the time of a scrape.
    pub fn update_gauges(&self) {
        self.0.remove_lost_workers();
        let state = self.0.state();
        metrics::gauge!(names::QUERY_WORKERS).set(state.workers() as f64);
        metrics::gauge!(names::QUERIES_RUNNING).set(state.schedule.running() as f64);
        metrics::gauge!(names::QUERIES_WAITING).set(state.schedule.waiting() as f64);
    }
}

const fn outcome(result: &Result<Bytes, PoolError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(PoolError::Query { kind: FailureKind::Timeout, .. } | PoolError::Killed(_) | PoolError::Busy(_)) => {
            "timeout"
        }
        Err(PoolError::Query { .. }) => "failed",
        Err(PoolError::Crashed) => "crashed",
        Err(PoolError::QueueFull(_) | PoolError::ResultsUnread | PoolError::NoWorker) => "refused",
        Err(PoolError::Stopped(_)) => "stopped",
        Err(PoolError::Cancelled) => "cancelled",
    }
}

/// A connected worker process.
#[derive(Debug)]
struct Worker {
    id: u32,
    stream: UnixStream,
}

impl Worker {
    /// Whether the process has ended, or sent something unasked.
    fn is_lost(&self) -> bool {
        !matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

struct Shared {
    lake: Arc<Lake>,
    config: QueryConfig,
    start: Box<dyn Fn() + Send + Sync>,
    kill: Box<dyn Fn(u32) + Send + Sync>,
    results: Arc<ResultBudget>,
    runtime: Handle,
    state: Mutex<State>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryPool").finish_non_exhaustive()
    }
}

struct State {
    schedule: Schedule<Worker, oneshot::Sender<Lease>>,
    /// Stop running queries, by their numbers in the schedule.
    stops: BTreeMap<u64, oneshot::Sender<()>>,
    /// Whether workers may still come.
    has_source: bool,
    /// Whether workers were asked for: the first query does.
    is_started: bool,
    without_worker_since: Option<Instant>,
}

impl State {
    /// Records that a query has ended.
    fn finish(&mut self, (tenant, number): (&TenantId, u64), ended_worker: bool) {
        self.stops.remove(&number);
        self.schedule.finish(tenant, number, ended_worker, Instant::now());
    }

    fn workers(&self) -> usize {
        self.schedule.idle() + self.schedule.running()
    }

    fn is_down(&mut self) -> bool {
        if self.workers() > 0 || !self.is_started {
            self.without_worker_since = None;
            return false;
        }
        let since = *self.without_worker_since.get_or_insert_with(Instant::now);
        !self.has_source || since.elapsed() >= NO_WORKER_TIMEOUT
    }
}

/// A worker for one query; returned unless it is taken.
struct Lease {
    worker: Option<Worker>,
    tenant: TenantId,
    /// Number in the schedule.
    number: u64,
    /// Says that the query is to be stopped, for another tenant.
    stopped: oneshot::Receiver<()>,
    shared: Arc<Shared>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            let mut state = self.shared.state();
            state.finish((&self.tenant, self.number), false);
            state.schedule.add_worker(worker);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_lost_workers(&self) {
        let lost = self.state().schedule.remove_lost(Worker::is_lost);
        if lost > 0 {
            metrics::counter!(names::QUERY_WORKER_RESTARTS_TOTAL, "reason" => "exited").increment(lost as u64);
            tracing::warn!(workers = lost, "query workers ended without a query; the supervisor starts new ones");
        }
    }

    /// Gives free workers to waiting queries, and stops a query that has had its time if a tenant waits nevertheless.
    fn dispatch(self: &Arc<Self>) {
        self.remove_lost_workers();
        while let Some((waiting, lease)) = self.next_lease() {
            // If the caller has left, the lease is returned when it is dropped here, and the next query gets it.
            drop(waiting.send(lease));
        }
        let mut state = self.state();
        let number = state.schedule.next_to_stop(oneshot::Sender::is_closed, Instant::now());
        if let Some(stop) = number.and_then(|number| state.stops.remove(&number)) {
            // An error says that the query has just ended.
            let _ended = stop.send(());
        }
    }

    /// Takes the next waiting query, with a worker.
    fn next_lease(self: &Arc<Self>) -> Option<(oneshot::Sender<Lease>, Lease)> {
        let mut state = self.state();
        let (worker, tenant, number, waiting) = state.schedule.next(Instant::now())?;
        let (stop, stopped) = oneshot::channel();
        state.stops.insert(number, stop);
        Some((waiting, Lease { worker: Some(worker), tenant, number, stopped, shared: Arc::clone(self) }))
    }

    /// Waits for a worker.
    async fn acquire(self: &Arc<Self>, tenant: &TenantId) -> Result<Lease, PoolError> {
        let (sender, mut receiver) = oneshot::channel();
        let max_waiting = self.config.max_waiting.max(1);
        let enqueued = self.state().schedule.enqueue(tenant, sender, oneshot::Sender::is_closed, Instant::now());
        enqueued.map_err(|_| PoolError::QueueFull(max_waiting))?;
        if !std::mem::replace(&mut self.state().is_started, true) {
            (self.start)();
        }
        let deadline = Instant::now() + Duration::from_secs(self.config.seconds);
        loop {
            self.dispatch();
            match tokio::time::timeout(DISPATCH_INTERVAL, &mut receiver).await {
                Ok(Ok(lease)) => return Ok(lease),
                Ok(Err(_)) => return Err(PoolError::NoWorker),
                Err(_) if self.state().is_down() => return Err(PoolError::NoWorker),
                Err(_) if Instant::now() >= deadline => return Err(PoolError::Busy(self.config.seconds)),
                Err(_) => {}
            }
        }
    }

    /// Runs a query, until `left` says that its caller has left.
    async fn execute(
        self: Arc<Self>,
        mut request: Request,
        mut left: oneshot::Receiver<()>,
    ) -> Result<Bytes, PoolError> {
        let tenant = request.tenant.clone();
        // A worker that ended while it was free is noticed late; another one then gets the query. Each of them may have
        // ended, so that only a new one answers.
        for attempt in 0..=self.config.workers {
            let mut lease = tokio::select! {
                lease = self.acquire(&tenant) => lease?,
                _ = &mut left => return Err(PoolError::Cancelled),
            };
            // Returns the worker if there is an error.
            request.unflushed = self.unflushed_rows(&request).await?;
            let Some(mut worker) = lease.worker.take() else { return Err(PoolError::NoWorker) };
            let deadline = Instant::now() + Duration::from_secs(self.config.seconds) + KILL_DELAY;
            let limits = (deadline.into(), &self.results, self.config.max_bytes as u64);
            let started = Instant::now();
            let stop = async {
                tokio::select! {
                    _ = &mut left => PoolError::Cancelled,
                    Ok(()) = &mut lease.stopped => PoolError::Stopped(started.elapsed().as_secs()),
                }
            };
            let exchanged = exchange(&mut worker.stream, &request, limits, std::pin::pin!(stop)).await;
            let query = (&tenant, lease.number);
            // Taken from memory while nothing else happens.
            request.unflushed = Vec::new();
            let lost = match exchanged {
                Exchange::Answered { result, is_reusable: true } => {
                    self.finish(query, worker);
                    return result;
                }
                Exchange::Answered { result, is_reusable: false } => (result, "deadline"),
                Exchange::Stopped { reason, is_reusable: true } => {
                    self.finish(query, worker);
                    return Err(reason);
                }
                Exchange::Stopped { reason, is_reusable: false } => (Err(reason), "cancelled"),
                Exchange::Deadline => (Err(PoolError::Killed(self.config.seconds)), "deadline"),
                Exchange::Ended { accepted: false } if attempt < self.config.workers => {
                    self.replace(query, worker, "exited");
                    continue;
                }
                Exchange::Ended { .. } => (Err(PoolError::Crashed), "crashed"),
            };
            self.replace(query, worker, lost.1);
            return lost.0;
        }
        Err(PoolError::Crashed)
    }

    /// Encodes the rows that the query needs and that are not in the tables yet.
    async fn unflushed_rows(&self, request: &Request) -> Result<Vec<UnflushedRows>, PoolError> {
        let unavailable = |detail: String| PoolError::Query { kind: FailureKind::Unavailable, detail };
        let rows = self.lake.unflushed_rows(&request.tenant, request.query.may_read());
        let rows = tokio::time::timeout(UNFLUSHED_TIMEOUT, rows).await;
        let rows = rows.map_err(|_| unavailable("the tables are being written; repeat the query later".into()))?;
        rows.map_err(|error| unavailable(error.to_string()))
    }

    /// Returns a worker that is idle.
    fn finish(self: &Arc<Self>, query: (&TenantId, u64), worker: Worker) {
        let mut state = self.state();
        state.finish(query, false);
        state.schedule.add_worker(worker);
        drop(state);
        self.dispatch();
    }

    /// Kills a worker, if it has not ended; the supervisor starts another one.
    fn replace(self: &Arc<Self>, (tenant, number): (&TenantId, u64), worker: Worker, reason: &'static str) {
        (self.kill)(worker.id);
        metrics::counter!(names::QUERY_WORKER_RESTARTS_TOTAL, "reason" => reason).increment(1);
        tracing::warn!(%tenant, reason, "a query worker is replaced");
        self.state().finish((tenant, number), reason != "exited");
        self.dispatch();
    }
}

#[cfg(test)]
mod tests;
