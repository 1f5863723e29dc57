//! The gold writer: writes incidents, service health and inferred events to the tables at an interval.
//!
//! ```text
//! store ───► changed incidents ──► rows of their whole day ──► gold.incidents, .enrichments, .tool_results
//! signals ─► completed windows ──────────────────────────────► gold.service_health
//! events ──► those that detection infers ────────────────────► silver.events
//! store ───► the first signed audit head of a day ───────────► gold.audit_heads
//! ```
//!
//! The tables are derived: they are rebuilt from the store and the signals if they are deleted. At the start all days
//! are written once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wardroom_domain::{TenantId, Timestamp};
use wardroom_response::incident_fact;
use wardroom_store::{IncidentRevision, Store};

use wardroom_pipeline::lake::health_writer::write_health;
use wardroom_pipeline::lake::inferred_events::InferredEventWriter;
use wardroom_pipeline::lake::lake_state::LakeTables;
use wardroom_pipeline::metrics as pipeline_metrics;
use wardroom_pipeline::state::tenants::Tenants;

use crate::clock;

/// A day in ms.
pub(crate) const DAY_MS: i64 = 86_400_000;
/// Overlap of two reads of changed incidents, so that writes that were in progress during a read are not missed.
const READ_OVERLAP: Duration = Duration::from_secs(60);

/// The gold writer.
pub(crate) struct GoldWriter {
    pub(crate) tables: LakeTables,
    pub(crate) store: Store,
    pub(crate) tenants: Arc<Tenants>,
}

/// Why a round failed; the next round retries.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
}

impl GoldWriter {
    /// Writes the tables at this interval until it is cancelled.
    pub(crate) async fn run(self, interval: Duration) {
        let mut since = Timestamp::from_nanos(i64::MIN);
        let (mut written, mut written_to) = (BTreeSet::new(), BTreeMap::new());
        let mut events = InferredEventWriter::default();
        loop {
            tokio::time::sleep(interval).await;
            let now = clock::now();
            let incidents = self.write_incidents(since, now, &mut written).await;
            let health = write_health(&self.tables.lake, &self.tenants, &mut written_to).await.map_err(Error::from);
            let offset = self.tables.samples_progress.committed_offset();
            let inferred = events.write(&self.tables.lake, &self.tenants, offset, now).await.map_err(Error::from);
            if incidents.is_ok() {
                since = now.minus(READ_OVERLAP);
            }
            let audited = self.write_audit_head().await;
            for error in [incidents, health, inferred, audited].into_iter().filter_map(Result::err) {
                metrics::counter!(pipeline_metrics::LAKE_FAILURES_TOTAL).increment(1);
                tracing::error!(%error, "writing derived tables failed; retrying");
            }
        }
    }

    /// Writes the last signed head of the audit log, if the table has none of its day.
    async fn write_audit_head(&self) -> Result<(), Error> {
        if let Some(signed) = self.store.noted_audit_head().await? {
            self.tables.lake.write_audit_head(&signed).await?;
        }
        Ok(())
    }

    /// Writes all incidents of the days on which changed incidents opened. `written` has the changes that the round
    /// before has written: those of the overlap are not written again.
    async fn write_incidents(
        &self,
        since: Timestamp,
        now: Timestamp,
        written: &mut BTreeSet<IncidentRevision>,
    ) -> Result<(), Error> {
        let changed: BTreeSet<_> = self.store.revisions_since(since).await?.into_iter().collect();
        let day_of = |change: &IncidentRevision| (change.tenant.clone(), change.opened_at.millis().div_euclid(DAY_MS));
        let days: BTreeSet<(TenantId, i64)> = changed.difference(written).map(day_of).collect();
        for (tenant, day) in days {
            let [from, to] = [day, day + 1].map(|day| Timestamp::from_millis(day * DAY_MS));
            let rows = self.store.incidents_opened(&tenant, from, to).await?;
            let facts: Vec<_> = rows.iter().filter_map(incident_fact).collect();
            self.tables.lake.write_incidents(&tenant, day, &facts, now).await?;
        }
        *written = changed;
        Ok(())
    }
}
