//! Periodic background work: lake maintenance, retention of bus and anomalies, and the health checks of the state
//! database and the executor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use wardroom_bus::{Bus, TrimPolicy};
use wardroom_domain::executor::{Request, Response, Stopped};
use wardroom_domain::{Envelope, TenantId};
use wardroom_executor::ExecutorClient;
use wardroom_pipeline::consumer_groups;
use wardroom_pipeline::lake::lake_state::LakeState;
use wardroom_pipeline::lake::maintenance::run_maintenance;
use wardroom_store::Store;

use super::approver_check::KnownConfiguration;
use super::readiness::{ExecutorHealth, ExecutorState};
use crate::clock;
use crate::config::Config;
use crate::metrics as names;
use wardroom_response::{OTHER_ANSWER, audit_entry};

/// Effects that ended longer ago than this are deleted; the audit log keeps what they were, in hours.
const EFFECT_RETENTION_HOURS: u64 = 30 * 24;
/// The answers to requests with an `Idempotency-Key` are kept for this long, in hours.
const REQUEST_RETENTION_HOURS: u64 = 24;
/// Interval between trims of the bus and the anomalies.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// Interval between probes of a state database that works.
const STORE_PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum interval between checks of all pages of the state database.
const STORE_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// A check of the state database reads the whole file: it takes at most this part of the time, as a divisor.
const STORE_CHECK_SHARE: u32 = 500;
/// Interval between two looks at whether a probe or a check is due.
const STORE_WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between health checks of an executor that responds.
const EXECUTOR_UP_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between health checks of an executor that does not respond.
const EXECUTOR_DOWN_INTERVAL: Duration = Duration::from_millis(100);

/// Runs lake maintenance and retention until it is cancelled.
pub(super) async fn run_housekeeping(
    store: Store,
    bus: Arc<dyn Bus>,
    next: Arc<AtomicU64>,
    lake: LakeState,
    config: Config,
) {
    let interval = Duration::from_secs(config.lake.maintain_seconds.max(1));
    let lake_enabled = !matches!(lake, LakeState::Disabled);
    tokio::join!(
        run_maintenance(lake.tables().cloned(), interval),
        run_retention(store, bus, next, lake_enabled, config.bus)
    );
}

/// Drops anomalies and bus records that are past their retention.
async fn run_retention(
    store: Store,
    bus: Arc<dyn Bus>,
    next: Arc<AtomicU64>,
    lake_enabled: bool,
    config: wardroom_bus::Config,
) {
    loop {
        tokio::time::sleep(TRIM_INTERVAL).await;
        let hours_ago = |hours: u64| clock::now().minus(Duration::from_secs(hours * 3600));
        let segments_before = hours_ago(config.retention_hours);
        let archive_before = hours_ago(config.archive_hours.max(config.retention_hours));
        if let Err(error) = store.delete_anomalies_before(segments_before).await {
            tracing::error!(%error, "deleting old anomalies failed; retrying");
        }
        if let Err(error) = store.delete_effects_before(hours_ago(EFFECT_RETENTION_HOURS)).await {
            tracing::error!(%error, "deleting old effects failed; retrying");
        }
        if let Err(error) = store.delete_requests_before(hours_ago(REQUEST_RETENTION_HOURS)).await {
            tracing::error!(%error, "deleting old requests failed; retrying");
        }
        // Records are retained that a restart from the checkpoint would read, and those that are not in the tables yet.
        let trimmed = bus.committed(consumer_groups::DETECT).and_then(|committed| {
            let lake_committed = |group| match lake_enabled {
                true => Ok(bus.committed(group)?.unwrap_or_default()),
                false => Ok(u64::MAX),
            };
            let needed = committed.unwrap_or_default();
            let needed = needed.min(lake_committed(consumer_groups::LAKE_SAMPLES)?);
            let needed = needed.min(lake_committed(consumer_groups::LAKE_EVENTS)?);
            let needed = needed.min(next.load(Ordering::Acquire));
            let keep = |envelope: &Envelope| envelope.has_events;
            bus.trim(needed, &TrimPolicy { segments_before, archive_before, keep: &keep })
        });
        if let Err(error) = trimmed {
            tracing::error!(%error, "trimming the bus failed; retrying");
        }
    }
}

/// Tests whether the state database can be written, until it is cancelled: rarely while it works, each second while it
/// fails, so that it is known soon when it works again. Also checks all pages of the file, at the start and then less
/// often the longer a check takes.
pub(super) async fn watch_store(store: Store) {
    let (mut probed_at, mut checked_at): (Option<Instant>, Option<Instant>) = (None, None);
    let mut check_interval = STORE_CHECK_INTERVAL;
    let is_due = |last: Option<Instant>, interval| last.is_none_or(|last| last.elapsed() >= interval);
    loop {
        if is_due(checked_at, check_interval) {
            let started_at = Instant::now();
            store.check_pages().await;
            check_interval = STORE_CHECK_INTERVAL.max(started_at.elapsed() * STORE_CHECK_SHARE);
            checked_at = Some(Instant::now());
        }
        if store.error().is_some() || is_due(probed_at, STORE_PROBE_INTERVAL) {
            store.probe().await;
            probed_at = Some(Instant::now());
        }
        tokio::time::sleep(STORE_WATCH_INTERVAL).await;
    }
}

/// Checks whether the executor responds and can use its configuration, and whether that has changed, until it is
/// cancelled.
pub(super) async fn watch_executor(executor: ExecutorClient, store: Store, health: Arc<ExecutorHealth>) {
    let mut configuration = KnownConfiguration::default();
    let (mut was_up, mut known_stop) = (false, None);
    loop {
        let found = check_executor(&executor, &store, &mut configuration).await;
        let is_up = found.is_ok();
        if let Ok(state) = &found
            && known_stop != state.stopped
            && audit_stop(&store, known_stop.as_ref(), state.stopped.as_ref()).await
        {
            known_stop.clone_from(&state.stopped);
        }
        match &found {
            Err(reason) if was_up => tracing::error!(reason, "the executor is down: no plan can be approved"),
            _ => {}
        }
        was_up = is_up;
        health.set(found);
        metrics::gauge!(names::EXECUTOR_UP).set(if is_up { 1.0 } else { 0.0 });
        tokio::time::sleep(if is_up { EXECUTOR_UP_INTERVAL } else { EXECUTOR_DOWN_INTERVAL }).await;
    }
}

/// Records that a stop of all actions is in force or has ended, by whatever request. Returns whether it is recorded.
async fn audit_stop(store: &Store, known: Option<&Stopped>, found: Option<&Stopped>) -> bool {
    let (action, stop) = if found.is_some() { ("stop_in_force", found) } else { ("stop_ended", known) };
    let entry = audit_entry(&TenantId::main(), "operator", None, action, json!(stop), clock::now());
    let written = store.append_audit(&entry).await;
    if let Err(error) = &written {
        tracing::error!(%error, "auditing a stop of all actions failed; retrying");
    }
    written.is_ok()
}

/// Returns what the kernel enforces on an executor that works, or why it does not: one that responds and cannot use its
/// configuration refuses every approval.
async fn check_executor(
    executor: &ExecutorClient,
    store: &Store,
    configuration: &mut KnownConfiguration,
) -> Result<ExecutorState, String> {
    let pong = executor.check(&Request::Ping).await.map_err(|error| error.to_string())?;
    let (confinement, unpublished, version) = match pong {
        Response::Pong { confinement, unpublished, configuration } => (confinement, unpublished, configuration),
        Response::Refused { detail, .. } => return Err(detail),
        _ => return Err(OTHER_ANSWER.to_owned()),
    };
    configuration.update(executor, store, version).await?;
    // An executor that does not say is asked again soon.
    let stopped = match executor.check(&Request::StopState).await {
        Ok(Response::StopState { stopped }) => stopped,
        _ => None,
    };
    Ok(ExecutorState { confinement, approval_proof: configuration.describe_proofs(), stopped, unpublished })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use wardroom_store::database_path;

    use super::*;

    /// Regression: an executor that could not read its file any more, and refused every approval, counted as up.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_executor_that_cannot_use_its_configuration_is_down_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("executor.sock");
        let executor = ExecutorClient::new(Some(socket.clone()));
        let store = Store::open(&database_path(dir.path())).await.unwrap();
        let mut configuration = KnownConfiguration::default();
        let down = check_executor(&executor, &store, &mut configuration).await.unwrap_err();
        assert!(down.contains("executor unavailable"), "{down}");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let approvers = [
                r#"{"answer":"refused","code":"unavailable","detail":"executor.yaml: chmod 600 it"}"#,
                r#"{"answer":"approvers","approvers":[]}"#,
            ];
            for approvers in approvers {
                for response in [r#"{"answer":"pong"}"#, approvers] {
                    let stream: UnixStream = listener.accept().unwrap().0;
                    BufReader::new(&stream).read_line(&mut String::new()).unwrap();
                    writeln!(&stream, "{response}").unwrap();
                }
            }
        });
        let refused = check_executor(&executor, &store, &mut configuration).await;
        assert_eq!(refused.unwrap_err(), "executor.yaml: chmod 600 it");
        let found = check_executor(&executor, &store, &mut configuration).await.unwrap();
        assert!(found.stopped.is_none() && found.approval_proof == "ssh");
    }
}
