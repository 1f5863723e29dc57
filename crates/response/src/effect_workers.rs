//! The workers that perform effects: each leased row is a task of its own.
//!
//! Problem: a target may take minutes, or never answer. Model: the loop here only leases what is due and starts tasks;
//! a task waits for its target, keeps its lease while it does, and finishes the row together with the change of the
//! incident. Rows of one target are leased one at a time, so a target that hangs holds one task and nothing else.

#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;
use wardroom_pipeline::poison_records::panic_message;
use wardroom_store::{EffectRow, Worker};

use super::effect_outcome::{Performed, crash_name};
use super::respond_error::RespondError;
use super::responder::{ReplayProgress, Responder};
use crate::metrics as names;
use crate::{clock, crash};

/// Effects that are performed at the same time, at most.
const MAX_RUNNING: usize = 64;
/// A lease lasts this long unless it is extended.
const LEASE: Duration = Duration::from_secs(30);
/// Interval between extensions.
const EXTEND_INTERVAL: Duration = Duration::from_secs(10);
/// Longest pause between looks for due effects: other processes may write some, too.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Shortest pause: what is due may wait for its resource, and its end is noticed without a pause.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Pause before the second attempt; it doubles with each further one …
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// … up to this.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Interval between checks whether detection has caught up after a start.
const REPLAY_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Performs effects until it is cancelled. Waits for the replay, as the response does.
pub async fn run_effect_workers(responder: Responder, replay: ReplayProgress) {
    while !replay.is_complete() {
        tokio::time::sleep(REPLAY_POLL_INTERVAL).await;
    }
    let store = responder.store.clone();
    // The process that had them no longer runs: only one runs on a data folder.
    while let Err(error) = store.release_effects(&format!("{}:", responder.queue), &responder.worker).await {
        tracing::error!(%error, "releasing the leases of an earlier process failed; retrying");
        tokio::time::sleep(MAX_PAUSE).await;
    }
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let pause = match start_due(&responder, &mut running).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::error!(%error, "leasing effects failed; retrying");
                MAX_PAUSE
            }
        };
        tokio::select! {
            () = store.wait_for_effects() => {}
            Some(_) = running.join_next() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Leases what is due and starts it. Returns the time until more may be due.
async fn start_due(responder: &Responder, running: &mut JoinSet<()>) -> Result<Duration, RespondError> {
    let store = &responder.store;
    let worker = Worker { name: &responder.worker, queue: &responder.queue };
    let free = MAX_RUNNING.saturating_sub(running.len());
    for effect in store.lease_effects(worker, free, clock::now(), LEASE).await? {
        crash::maybe_crash(&format!("effect:{}-lease", crash_name(&effect)), "after");
        running.spawn(perform(responder.clone(), effect));
    }
    let Some(next) = store.next_effect_at(&responder.queue).await? else { return Ok(MAX_PAUSE) };
    let nanos = next.nanos().saturating_sub(clock::now().nanos());
    Ok(Duration::from_nanos(nanos.max(0).unsigned_abs()).clamp(MIN_PAUSE, MAX_PAUSE))
}

/// Performs one effect while it has the lease.
async fn perform(responder: Responder, effect: EffectRow) {
    let started = std::time::Instant::now();
    // A panic must not leave the row leased, nor end the others.
    let work = AssertUnwindSafe(responder.perform(&effect)).catch_unwind();
    let performed = tokio::select! {
        performed = work => performed.unwrap_or_else(|panic| Err(RespondError::Panic(panic_message(&*panic)))),
        () = lose_lease(&responder, &effect) => {
            tracing::warn!(effect = %effect.id, "the lease of an effect is over; another worker performs it");
            return;
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let (outcome, retry) = match performed {
        Ok(Performed::Finished(outcome)) => (outcome, None),
        Ok(Performed::Retry(reason, after)) => ("retried", Some((reason, after))),
        Err(error) => {
            metrics::counter!(names::RESPOND_FAILURES_TOTAL).increment(1);
            tracing::error!(effect = %effect.id, %error, "performing an effect failed; retrying");
            ("retried", Some((error.to_string(), None)))
        }
    };
    metrics::counter!(names::EFFECTS_TOTAL, "kind" => effect.kind.clone(), "outcome" => outcome).increment(1);
    metrics::histogram!(names::EFFECT_SECONDS, "kind" => effect.kind.clone()).record(seconds);
    let Some((reason, after)) = retry else { return };
    let not_before = clock::now().plus(after.unwrap_or_else(|| backoff(effect.attempts)));
    if let Err(error) = responder.store.retry_effect(&effect.id, effect.fencing, not_before, &reason).await {
        // It is leased again when its lease is over.
        tracing::error!(effect = %effect.id, %error, "giving an effect back failed");
    }
}

/// Extends the lease until that fails for good.
async fn lose_lease(responder: &Responder, effect: &EffectRow) {
    loop {
        tokio::time::sleep(EXTEND_INTERVAL).await;
        match responder.store.extend_effect(&effect.id, effect.fencing, clock::now().plus(LEASE)).await {
            Ok(true) => {}
            Ok(false) => return,
            // The lease lasts for two more intervals, and fencing decides then.
            Err(error) => tracing::warn!(effect = %effect.id, %error, "extending a lease failed"),
        }
    }
}

/// The pause before the next attempt.
fn backoff(attempts: i64) -> Duration {
    let doublings = u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or(0);
    FIRST_BACKOFF.saturating_mul(1 << doublings).min(MAX_BACKOFF)
}
