//! The query workers: processes that run queries for the server.
//!
//! Problem: a query may end its process, and the next query should not wait for a new one. Model: the supervisor keeps
//! a number of workers running once the server has asked for them, starts a new one as soon as one ends, and passes its
//! socket to the server; the server says which one to kill. Guarantee: workers that cannot start are started again
//! after a delay that doubles; no worker outlives the server.

use std::collections::BTreeMap;
use std::io::Result;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::child_process::{kill_and_wait, set_allocator, wake, wake_after};
use crate::heap;
use crate::worker_sockets::{SupervisorEnd, WorkerId, WorkerRequest, control_socket};

/// A worker that ran this long had started.
const STABLE_RUN: Duration = Duration::from_secs(1);
/// First delay before a worker is started again that ended sooner; it doubles up to [`MAX_RESTART_DELAY`].
const MIN_RESTART_DELAY: Duration = Duration::from_millis(50);
/// Maximum delay before a worker is started again.
const MAX_RESTART_DELAY: Duration = Duration::from_secs(10);

/// How query workers are started.
#[derive(Clone, Debug)]
pub struct QueryWorkerOptions {
    /// Number of workers.
    pub count: usize,
    /// The arguments that make this binary a query worker.
    pub arguments: Vec<String>,
    /// The environment of a worker.
    pub environment: Vec<(String, String)>,
}

/// The workers of one server process.
pub(super) struct QueryWorkers {
    options: QueryWorkerOptions,
    slots: Vec<Slot>,
    control: Arc<SupervisorEnd>,
    /// The workers that have not been waited for, shared with the thread that kills them.
    running: Arc<Mutex<BTreeMap<WorkerId, Pid>>>,
    /// Whether the server has asked for workers: without queries they would only take memory.
    wanted: Arc<AtomicBool>,
    next_id: WorkerId,
}

/// A place for one worker.
struct Slot {
    state: SlotState,
    /// Delay before the next start, if the worker ends soon again.
    restart_delay: Duration,
}

enum SlotState {
    Running {
        id: WorkerId,
        child: Child,
        started: Instant,
    },
    /// It ended, or could not be started; a thread wakes the supervisor at this time.
    Waiting {
        until: Instant,
    },
}

impl QueryWorkers {
    /// Prepares the workers of a server; returns the server's standard input.
    pub(super) fn new(options: &QueryWorkerOptions) -> Result<(Self, OwnedFd)> {
        let (control, server_end) = control_socket()?;
        let (control, running) = (Arc::new(control), Arc::<Mutex<BTreeMap<WorkerId, Pid>>>::default());
        let wanted = Arc::<AtomicBool>::default();
        let (requests, workers, wanted_by_server) = (Arc::clone(&control), Arc::clone(&running), Arc::clone(&wanted));
        // The thread ends with the server, which has the other end of the socket.
        let serve_requests = move || serve_requests(&requests, &workers, &wanted_by_server);
        std::thread::Builder::new().name("query-workers".into()).spawn(serve_requests)?;
        let options = options.clone();
        Ok((Self { options, slots: Vec::new(), control, running, wanted, next_id: 0 }, server_end.into()))
    }

    /// Starts all workers.
    fn start(&mut self) {
        for _ in 0..self.options.count {
            let mut slot = Slot { state: waiting(Duration::ZERO), restart_delay: MIN_RESTART_DELAY };
            self.start_in(&mut slot);
            self.slots.push(slot);
        }
    }

    /// Notices workers that have ended, and starts those that are due. Called after each SIGCHLD.
    pub(super) fn poll(&mut self) {
        if self.slots.is_empty() && self.wanted.load(Ordering::Acquire) {
            self.start();
        }
        let mut slots = std::mem::take(&mut self.slots);
        for slot in &mut slots {
            if let SlotState::Running { id, child, started } = &mut slot.state {
                let (id, ran) = (*id, started.elapsed());
                // Under the lock: the thread that kills must not use the number of a process that was waited for.
                let mut running = lock(&self.running);
                let Ok(Some(status)) = child.try_wait() else { continue };
                running.remove(&id);
                drop(running);
                slot.after_exit(status, ran);
            }
            if matches!(slot.state, SlotState::Waiting { until } if until <= Instant::now()) {
                self.start_in(slot);
            }
        }
        self.slots = slots;
    }

    /// Kills all workers and waits for them.
    pub(super) fn kill(self) {
        for slot in self.slots {
            if let SlotState::Running { mut child, id, .. } = slot.state {
                lock(&self.running).remove(&id);
                kill_and_wait(&mut child);
            }
        }
    }

    fn start_in(&mut self, slot: &mut Slot) {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        slot.state = self.start_worker(id).unwrap_or_else(|error| {
            tracing::error!(%error, "starting a query worker failed; retrying");
            waiting(MAX_RESTART_DELAY)
        });
    }

    #[expect(clippy::disallowed_methods, reason = "the supervisor starts processes")]
    fn start_worker(&self, id: WorkerId) -> Result<SlotState> {
        let (ours, workers) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&self.options.arguments).env_clear();
        set_allocator(&mut command, heap::WORKER_ALLOCATOR_SETTINGS);
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(OwnedFd::from(workers)).stdout(Stdio::null());
        let child = command.spawn()?;
        lock(&self.running).insert(id, Pid::from_raw(child.id() as i32));
        if let Err(error) = self.control.pass_worker(id, &ours) {
            // Its socket closes here, so the worker ends, and is started again.
            tracing::warn!(%error, "passing a query worker to the server failed; retrying");
        }
        Ok(SlotState::Running { id, child, started: Instant::now() })
    }
}

impl Slot {
    /// Decides when a worker is started again.
    fn after_exit(&mut self, status: ExitStatus, ran: Duration) {
        // Killed on request, or ended by itself after a query.
        let has_worked = status.success() || status.signal() == Some(Signal::SIGKILL as i32);
        let (delay, next_delay) = match self.restart_delay {
            _ if ran >= STABLE_RUN => (Duration::ZERO, MIN_RESTART_DELAY),
            _ if has_worked => (MIN_RESTART_DELAY, MIN_RESTART_DELAY),
            delay => (delay, (delay * 2).min(MAX_RESTART_DELAY)),
        };
        self.restart_delay = next_delay;
        // The server knows what the worker did, and counts restarts by reason.
        tracing::debug!(%status, ?delay, "query worker exited; restarting");
        self.state = waiting(delay);
    }
}

/// The state of a slot whose worker is started after a delay.
fn waiting(delay: Duration) -> SlotState {
    // Before the thread starts: it must not wake the supervisor before this time.
    let until = Instant::now() + delay;
    if !delay.is_zero() {
        wake_after(move || std::thread::sleep(delay));
    }
    SlotState::Waiting { until }
}

/// Does what the server asks for, until it ends.
fn serve_requests(requests: &SupervisorEnd, running: &Mutex<BTreeMap<WorkerId, Pid>>, wanted: &AtomicBool) {
    loop {
        match requests.next_request() {
            Ok(Some(WorkerRequest::Start)) => {
                wanted.store(true, Ordering::Release);
                wake();
            }
            Ok(Some(WorkerRequest::Kill(id))) => {
                // The lock is held until the signal is sent: until then no thread waits for the process.
                let running = lock(running);
                if let Some(pid) = running.get(&id)
                    && let Err(error) = kill(*pid, Signal::SIGKILL)
                {
                    tracing::debug!(%error, "query worker has already exited");
                }
            }
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "reading requests of the server failed"),
        }
    }
}

fn lock(running: &Mutex<BTreeMap<WorkerId, Pid>>) -> MutexGuard<'_, BTreeMap<WorkerId, Pid>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_started_again_at_once_unless_it_does_not_start() {
        let mut slot = Slot { state: waiting(Duration::ZERO), restart_delay: MIN_RESTART_DELAY };
        let mut delay = |status: i32, ran: Duration| {
            slot.after_exit(ExitStatus::from_raw(status), ran);
            let SlotState::Waiting { until } = slot.state else { return u128::MAX };
            until.saturating_duration_since(Instant::now()).as_millis().div_ceil(10) * 10
        };
        let (soon, long) = (Duration::from_millis(5), STABLE_RUN);
        assert_eq!([1, 2, 3].map(|_| delay(1 << 8, soon)), [50, 100, 200]);
        assert_eq!((0..12).map(|_| delay(6, soon)).last(), Some(10_000), "the maximum");
        assert_eq!(delay(9, long), 0, "it had started");
        assert_eq!(delay(0, soon), 50, "it ended by itself");
        assert_eq!(delay(9, soon), 50, "it was killed on request");
        assert_eq!(delay(1 << 8, soon), 50, "the first failure after that");
    }

    #[test]
    fn workers_are_started_when_they_are_wanted_and_replaced() {
        let options = QueryWorkerOptions {
            count: 1,
            // The test binary lists its tests and then exits.
            arguments: vec!["--list".into()],
            environment: Vec::new(),
        };
        let (mut workers, server_end) = QueryWorkers::new(&options).unwrap();
        workers.poll();
        assert!(workers.slots.is_empty(), "no query has come");
        workers.wanted.store(true, Ordering::Release);
        workers.poll();
        assert_eq!((workers.slots.len(), workers.next_id), (1, 1), "it may have ended already");
        let deadline = Instant::now() + Duration::from_secs(10);
        while workers.next_id < 2 && Instant::now() < deadline {
            workers.poll();
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(workers.next_id >= 2, "it was replaced");
        let running = Arc::clone(&workers.running);
        workers.kill();
        assert!(lock(&running).is_empty());
        drop(server_end);
    }
}
