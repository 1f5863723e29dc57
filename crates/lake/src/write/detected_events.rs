//! Writes the events that detection infers to `silver.events`, beside those that senders report.
//!
//! Problem: what detection infers comes from no single request, so that no bus offset says which of it is written.
//! Model: an event has an id, and the table is asked once which ids it has; afterwards the caller remembers what it
//! wrote, and asks again after an error. Guarantee: with one writer, an event of an id is in the table once.

use std::collections::{BTreeMap, BTreeSet};

use wardroom_domain::{Event, TenantId, Timestamp};

use crate::error::Error;
use crate::format::data_file::{DataFile, day_of};
use crate::format::row_buffer::{Cell, Lineage, RowBuffer};
use crate::format::row_reader::{TableBatch, read_rows};
use crate::format::table_schemas::EVENTS;
use crate::lake::Lake;
use crate::maintain::retention::is_expired;
use crate::write::event_row::EventRow;

impl Lake {
    /// Returns the ids of a tenant's inferred events since a time.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    pub async fn inferred_event_ids(&self, tenant: &TenantId, since: Timestamp) -> Result<BTreeSet<String>, Error> {
        let mut found = BTreeSet::new();
        let Some(table) = self.table(EVENTS.name) else { return Ok(found) };
        let mut table = table.lock().await;
        let is_recent = |day: i64| day >= day_of(since.millis());
        for file in table.files().await?.iter().filter(|file| file.tenant == *tenant && is_recent(file.day)) {
            let end = Timestamp::from_nanos(i64::MAX);
            for batch in read_rows(table.open_file(file).await?, &EVENTS, (since, end), None)? {
                let rows = TableBatch { schema: &EVENTS, batch: &batch };
                for row in 0..batch.num_rows() {
                    if rows.text("source", row)? == Event::INFERRED {
                        found.insert(rows.text("event_id", row)?.to_owned());
                    }
                }
            }
        }
        Ok(found)
    }

    /// Appends inferred events of a tenant, none of which the table has. `offset` is the bus offset up to which
    /// detection has processed. After an error they may be in the table or not: see
    /// [`inferred_event_ids`](Self::inferred_event_ids).
    ///
    /// # Errors
    /// Returns an error if the table cannot be written now.
    pub async fn append_inferred_events(
        &self,
        tenant: &TenantId,
        events: &[Event],
        offset: u64,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut days: BTreeMap<i64, RowBuffer> = BTreeMap::new();
        let lineage = Lineage::new(offset, now);
        for (seq, event) in (0..).zip(events) {
            let day = day_of(event.at.millis());
            if is_expired(&self.retention, EVENTS.name, tenant, day, now) {
                continue;
            }
            let rows = days.entry(day).or_insert_with(|| RowBuffer::new(&EVENTS, tenant.clone(), day));
            let row = EventRow::of_event(event);
            rows.push(&row.cells(seq, Cell::Null), Some(row.entity()), &lineage)?;
        }
        let Some(table) = self.table(EVENTS.name).filter(|_| !days.is_empty()) else { return Ok(()) };
        let files = days.into_values().map(RowBuffer::finish).collect::<Result<Vec<DataFile>, _>>()?;
        let (mut table, app_id) = (table.lock().await, format!("events-{tenant}"));
        let written = table.reload_position(&app_id).await?.unwrap_or_default();
        table.append(&app_id, written + 1, files).await.map(drop)
    }
}
