//! Commits event batches to their tables, and publishes pending rows to queries.

use std::collections::BTreeMap;

use wardroom_domain::TenantId;

use crate::error::Error;
use crate::format::row_reader::{StoredRequest, read_requests};
use crate::format::table_schemas::{DEPLOYMENTS, EVENTS};
use crate::lake::Lake;
use crate::write::event_batch::{CommittedOffsets, EventFiles};
use crate::write::pending_rows::PendingRows;

impl Lake {
    /// Returns the bus offset up to which each event table is committed. A table lags behind only if no rows came for
    /// it.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read.
    pub async fn committed_event_offsets(&self) -> Result<CommittedOffsets, Error> {
        let mut offsets = CommittedOffsets::default();
        for (_, table) in &self.events {
            let mut table = table.lock().await;
            let offset = table.reload_position(&self.app_id).await?.unwrap_or(0);
            offsets.0.insert(table.name(), offset);
        }
        // Rows that an earlier build wrote to the former table are not written again.
        if let (Some(former), Some(events)) = (self.table(DEPLOYMENTS.name), offsets.0.get_mut(EVENTS.name)) {
            let former = former.lock().await.reload_position(&self.app_id).await?.unwrap_or(0);
            *events = former.max(*events);
        }
        Ok(offsets)
    }

    /// Returns the bus offset up to which event tables and pending rows are complete.
    pub async fn visible_event_offset(&self) -> u64 {
        self.pending.read().await.offset
    }

    /// Commits the files of an event batch once. They are synced when this returns.
    ///
    /// # Errors
    /// Returns an error if a table cannot be written now. Retrying is safe.
    pub async fn commit_events(&self, written: &EventFiles) -> Result<(), Error> {
        let mut pending = self.pending.write().await;
        for (_, table) in &self.events {
            let mut table = table.lock().await;
            if let Some(files) = written.files.get(table.name()) {
                table.append(&self.app_id, written.offset, files.clone()).await?;
                pending.remove_table(table.name());
            }
        }
        Ok(())
    }

    /// Shows uncommitted rows to queries, in place of those published before.
    pub async fn publish_pending(&self, pending: PendingRows) {
        *self.pending.write().await = pending;
    }

    /// Returns each tenant's requests before a bus offset and since a time (µs), in bus order, to recognise duplicates.
    /// Those of damaged files are missing: a server with a damaged file still starts.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read.
    pub async fn stored_requests(
        &self,
        before: u64,
        since_us: i64,
    ) -> Result<BTreeMap<TenantId, Vec<StoredRequest>>, Error> {
        let mut found: BTreeMap<TenantId, Vec<StoredRequest>> = BTreeMap::new();
        for (_, table) in self.events.iter().chain(&self.former) {
            let mut table = table.lock().await;
            if !table.schema().columns.iter().any(|column| column.name == "request") {
                continue;
            }
            for file in table.files().await?.iter().filter(|file| file.written_ms >= since_us / 1000) {
                let stored = match table.open_file(file).await.and_then(read_requests) {
                    Err(error @ (Error::Damaged(_) | Error::DamagedFile(_))) => {
                        let table = table.name();
                        tracing::error!(table, %error, "requests of a damaged file will be stored again if repeated");
                        continue;
                    }
                    stored => stored?,
                };
                let requests = stored.into_iter();
                let requests = requests.filter(|request| request.offset < before && request.received_us >= since_us);
                found.entry(file.tenant.clone()).or_default().extend(requests);
            }
        }
        for requests in found.values_mut() {
            requests.sort_unstable();
            requests.dedup();
        }
        Ok(found)
    }
}
