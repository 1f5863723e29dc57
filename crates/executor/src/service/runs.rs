//! The actions that are running: one for each plan and each target, any number beside each other.
//!
//! Problem: a rollout takes minutes, and a target may hang. No caller may wait for it, and nothing else may act on the
//! same target meanwhile. Model: each run is a thread with an entry here; the entry holds the target until the run has
//! ended, also by a panic. Guarantee: what is begun twice is joined, and never runs twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wardroom_domain::TenantId;
use wardroom_domain::executor::{Progress, RefusalCode, RefusedRun};
use wardroom_process::clock;

use crate::refusal::Refusal;

/// Maximum number of actions at the same time.
const MAX_RUNS: usize = 64;
/// Maximum number of refused runs that are remembered until they are asked for.
const MAX_REMEMBERED: usize = 1024;
/// Maximum length of a progress text, in characters.
const MAX_PROGRESS_CHARS: usize = 200;

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The action of the plan.
    Action,
    /// Its undo.
    Undo,
}

/// A target: tenant, tool and name.
pub(super) type Resource = (TenantId, String, String);

#[derive(Debug)]
struct Running {
    work: Work,
    /// The step of the plan, counted from 0.
    step: u32,
    resource: Resource,
    progress: Option<Progress>,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<String, Running>,
    /// By plan and step.
    refused: BTreeMap<(String, u32), RefusedRun>,
}

/// The runs of a process.
#[derive(Debug, Default)]
pub(super) struct Runs {
    state: Mutex<State>,
    ended: Condvar,
}

impl Runs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves plan and target for a run. `None` if the same work is already running.
    pub(super) fn begin(
        self: &Arc<Self>,
        plan_sha256: &str,
        (work, step): (Work, u32),
        resource: Resource,
    ) -> Result<Option<RunGuard>, Refusal> {
        let mut state = self.state();
        if let Some(running) = state.running.get(plan_sha256) {
            let busy = || (RefusalCode::Busy, "of one plan only one step, or its undo, runs at a time".to_owned());
            return if (running.work, running.step) == (work, step) { Ok(None) } else { Err(busy()) };
        }
        if let Some((other, _)) = state.running.iter().find(|(_, running)| running.resource == resource) {
            let detail = format!("plan {} runs on {}; one action at a time", short(other), resource.2);
            return Err((RefusalCode::Busy, detail));
        }
        if state.running.len() >= MAX_RUNS {
            return Err((RefusalCode::Busy, format!("{MAX_RUNS} actions are running; the plan waits")));
        }
        state.refused.remove(&(plan_sha256.to_owned(), step));
        state.running.insert(plan_sha256.to_owned(), Running { work, step, resource, progress: None });
        let result = Err((RefusalCode::Unavailable, "the run ended without a result; see the log".to_owned()));
        Ok(Some(RunGuard { runs: Arc::clone(self), plan_sha256: plan_sha256.to_owned(), step, result }))
    }

    /// Notes what a run is doing.
    pub(super) fn progress(&self, plan_sha256: &str, text: &str) {
        let text = text.chars().take(MAX_PROGRESS_CHARS).collect();
        if let Some(running) = self.state().running.get_mut(plan_sha256) {
            running.progress = Some(Progress { text, at: clock::now() });
        }
    }

    /// Returns what runs for a step of a plan, with its progress.
    pub(super) fn running(&self, plan_sha256: &str, step: u32) -> Option<(Work, Option<Progress>)> {
        let state = self.state();
        let running = state.running.get(plan_sha256).filter(|running| running.step == step);
        running.map(|running| (running.work, running.progress.clone()))
    }

    /// Returns why the last run of a step ended without an effect.
    pub(super) fn refused(&self, plan_sha256: &str, step: u32) -> Option<RefusedRun> {
        self.state().refused.get(&(plan_sha256.to_owned(), step)).cloned()
    }

    /// Waits until nothing runs for a plan, or the time is over.
    pub(super) fn wait(&self, plan_sha256: &str, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        while state.running.contains_key(plan_sha256) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A run that has not ended; dropping it ends it.
#[derive(Debug)]
pub(super) struct RunGuard {
    runs: Arc<Runs>,
    plan_sha256: String,
    step: u32,
    result: Result<(), Refusal>,
}

impl RunGuard {
    /// Ends the run with its result.
    pub(super) fn end(mut self, result: Result<(), Refusal>) {
        self.result = result;
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        let mut state = self.runs.state();
        state.running.remove(&self.plan_sha256);
        if let Err((code, detail)) = std::mem::replace(&mut self.result, Ok(())) {
            if state.refused.len() >= MAX_REMEMBERED {
                state.refused.pop_first();
            }
            state.refused.insert((self.plan_sha256.clone(), self.step), RefusedRun { code, detail });
        }
        drop(state);
        self.runs.ended.notify_all();
    }
}

/// The beginning of a hash, for people.
fn short(plan_sha256: &str) -> &str {
    plan_sha256.get(..12).unwrap_or(plan_sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str) -> Resource {
        (TenantId::main(), "process".into(), name.into())
    }

    #[test]
    fn one_run_for_each_plan_and_each_target() {
        let runs = Arc::new(Runs::default());
        let first = runs.begin("a", (Work::Action, 0), resource("cart")).unwrap().unwrap();
        assert!(runs.begin("a", (Work::Action, 0), resource("cart")).unwrap().is_none(), "joined");
        assert_eq!(runs.begin("a", (Work::Undo, 0), resource("cart")).unwrap_err().0, RefusalCode::Busy);
        assert_eq!(runs.begin("b", (Work::Action, 0), resource("cart")).unwrap_err().0, RefusalCode::Busy);
        assert_eq!(runs.begin("a", (Work::Action, 1), resource("other")).unwrap_err().0, RefusalCode::Busy);
        assert!(runs.running("a", 1).is_none(), "another step");
        let other = runs.begin("c", (Work::Action, 0), resource("mail")).unwrap().unwrap();
        runs.progress("a", &"step ".repeat(100));
        let (work, progress) = runs.running("a", 0).unwrap();
        assert_eq!((work, progress.unwrap().text.len()), (Work::Action, MAX_PROGRESS_CHARS));
        first.end(Ok(()));
        assert!(runs.running("a", 0).is_none() && runs.refused("a", 0).is_none());
        assert!(runs.begin("b", (Work::Action, 0), resource("cart")).unwrap().is_some());
        drop(other);
        assert_eq!(runs.refused("c", 0).unwrap().code, RefusalCode::Unavailable, "a panic ends a run, too");
    }

    #[test]
    fn a_wait_ends_with_the_run_or_its_time() {
        let runs = Arc::new(Runs::default());
        let guard = runs.begin("a", (Work::Action, 0), resource("cart")).unwrap().unwrap();
        runs.wait("a", Duration::from_millis(20));
        assert!(runs.running("a", 0).is_some());
        let ending = std::thread::spawn(move || guard.end(Err((RefusalCode::Stale, "changed".into()))));
        runs.wait("a", Duration::from_secs(60));
        assert!(runs.running("a", 0).is_none());
        ending.join().unwrap();
        assert_eq!(runs.refused("a", 0).unwrap().code, RefusalCode::Stale);
        drop(runs.begin("a", (Work::Action, 0), resource("cart")).unwrap());
    }

    #[test]
    fn the_number_of_runs_is_limited() {
        let runs = Arc::new(Runs::default());
        let begin =
            |index: usize| runs.begin(&format!("plan {index}"), (Work::Action, 0), resource(&format!("{index}")));
        let guards: Vec<_> = (0..MAX_RUNS).map(|index| begin(index).unwrap().unwrap()).collect();
        assert_eq!(begin(MAX_RUNS).unwrap_err().0, RefusalCode::Busy);
        drop(guards);
        assert!(begin(MAX_RUNS).is_ok());
    }
}
