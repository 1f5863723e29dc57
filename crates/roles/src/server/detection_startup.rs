//! Starts detection: opens the tables, loads the newest checkpoint and restores open incidents.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use wardroom_bus::{Bus, DeadLetters};
use wardroom_domain::IncidentState;
use wardroom_edge::InflateBudget;
use wardroom_pipeline::detection::detector_loop::DetectorLoop;
use wardroom_pipeline::detection::detector_output::{DetectorEvent, DetectorOutput};
use wardroom_pipeline::intake::batch_queue::BatchQueue;
use wardroom_pipeline::lake::lake_state::{LakeState, LakeTables};
use wardroom_pipeline::lake::lake_writer::load_lake_series_ids;
use wardroom_pipeline::poison_records::dead_lettered_offsets;
use wardroom_pipeline::state::checkpoint::{self, Checkpoints};
use wardroom_pipeline::state::tenants::Tenants;
use wardroom_respond::Workflow;
use wardroom_store::Store;

use super::lake_access::open_lake;
use super::serve_error::{ServeError, io_error};
use super::serve_options::ServeOptions;
use crate::bus_epoch::check_bus_end;
use crate::clock;
use crate::config::Config;

/// Incidents younger than this may still get more services, in hours.
const CORRELATION_HOURS: u64 = 24;

/// Running detection.
pub(super) struct Detection {
    pub(super) tenants: Arc<Tenants>,
    pub(super) queue: Arc<BatchQueue>,
    pub(super) next: Arc<AtomicU64>,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) lake: LakeState,
    pub(super) thread: JoinHandle<()>,
}

/// Starts detection on a separate thread, from the newest checkpoint.
///
/// # Errors
/// Returns an error if the checkpoints, the tables, the bus or the store cannot be opened.
pub(super) async fn start_detection(
    options: &ServeOptions,
    config: &Config,
    bus: &Arc<dyn Bus>,
    store: &Store,
    budget: &InflateBudget,
    events: mpsc::Sender<DetectorEvent>,
) -> Result<Detection, ServeError> {
    let mut pipeline_config = config.pipeline();
    let tenants = Arc::new(Tenants::new(pipeline_config.clone()));
    let dead_letters = Arc::new(DeadLetters::open(&options.data.join("dead-letters"))?);
    let lake = open_lake(config, &options.data, bus.as_ref()).await?;
    // Before the checkpoints are opened: unusable ones are deleted, and these are evidence.
    let tables = lake.tables().map(|tables| tables.lake.as_ref());
    check_bus_end(&options.data, bus.as_ref(), &dead_letters, tables).await?;
    let lake_offset = match &lake {
        LakeState::Disabled => None,
        LakeState::Ready(tables) => tables.committed_offset,
        // The committed offset is unknown, so the checkpoint is trusted. None is taken: it would record an unknown
        // offset.
        LakeState::Unavailable(_) => {
            pipeline_config.checkpoint.interval_seconds = u64::MAX;
            Some(u64::MAX)
        }
    };
    let folder = options.data.join("checkpoint");
    let opened =
        Checkpoints::open(&folder, &pipeline_config, bus.start_offset()..=bus.end_offset(), &tenants, lake_offset);
    let open_failed = |error: checkpoint::Error| io_error("open checkpoints", std::io::Error::other(error));
    let (checkpoints, resumed) = opened.map_err(open_failed)?;
    if let Some(LakeTables { lake, .. }) = lake.tables() {
        load_lake_series_ids(lake, &tenants, resumed.and_then(|resumed| resumed.lake_offset)).await?;
    }
    restore_incidents(store, &tenants).await?;
    let (queue, next) = (Arc::new(BatchQueue::default()), Arc::new(AtomicU64::new(0)));
    let detector_loop = DetectorLoop {
        config: pipeline_config,
        bus: Arc::clone(bus),
        tenants: Arc::clone(&tenants),
        queue: Arc::clone(&queue),
        budget: budget.clone(),
        output: DetectorOutput::new(events),
        next: Arc::clone(&next),
        dead_lettered: dead_lettered_offsets(&dead_letters)?,
        dead_letters: Arc::clone(&dead_letters),
        runtime: tokio::runtime::Handle::current(),
        checkpoints,
        resumed,
        lake: lake.tables().cloned(),
    };
    let thread = std::thread::Builder::new().name("detect".into()).spawn(move || detector_loop.run());
    let thread = thread.map_err(|error| io_error("start detection", error))?;
    Ok(Detection { tenants, queue, next, dead_letters, lake, thread })
}

/// Restores into the correlators the incidents that findings may still join.
async fn restore_incidents(store: &Store, tenants: &Tenants) -> Result<(), ServeError> {
    let since = clock::now().minus(Duration::from_secs(CORRELATION_HOURS * 3600));
    for row in store.live_incidents(since).await? {
        let workflow = match Workflow::read(&row.workflow) {
            Ok(workflow) => workflow,
            Err(error) => {
                tracing::error!(incident = %row.id(), %error, "reading an incident failed; skipping it");
                continue;
            }
        };
        let is_settled =
            matches!(row.state, IncidentState::Resolved | IncidentState::Suppressed | IncidentState::Closed);
        let mut released_ms = workflow.settled_ms;
        if released_ms.is_none() && is_settled {
            // Closed without having been resolved. A verdict may be recorded much later, so the transition counts.
            let history = store.history(&row.tenant, &row.key).await?;
            released_ms = Some(history.last().map_or(row.updated_at, |transition| transition.at).millis());
        }
        tenants.with_detectors(&row.tenant, |detectors| {
            detectors.correlator.restore(&workflow.incident, workflow.opened_ms, released_ms);
        });
    }
    Ok(())
}
