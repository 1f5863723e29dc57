//! Passes the rows that are not in the tables yet to another process that runs queries.
//!
//! Problem: these rows are in the memory of the writer only, and while a query runs they move into the tables. Model:
//! the writer encodes the rows of one tenant together with the version of each table that they complete, and the reader
//! reads exactly these versions. Guarantee: a query finds each row once, as in the writer's process.

use deltalake_core::arrow::array::RecordBatch;
use deltalake_core::arrow::ipc::reader::StreamReader;
use deltalake_core::arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use wardroom_domain::TenantId;

use crate::error::Error;
use crate::lake::Lake;
use crate::write::pending_rows::PendingRows;

/// Rows of a table that are not flushed yet, all of one tenant and day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnflushedRows {
    /// Name of the table with its layer, such as `silver.logs`.
    pub table: String,
    /// Version of the table that lacks these rows.
    pub version: u64,
    /// Day of the rows, in days since 1970-01-01.
    pub day: i64,
    /// The rows as Arrow IPC stream. Not part of the serialised form: they are sent beside it.
    #[serde(skip)]
    pub rows: Vec<u8>,
}

impl Lake {
    /// Encodes a tenant's unflushed rows of the tables that are `wanted` by name.
    ///
    /// # Errors
    /// Returns an error if rows cannot be encoded.
    pub async fn unflushed_rows(
        &self,
        tenant: &TenantId,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<UnflushedRows>, Error> {
        // Locked until all versions are read: a commit moves rows from here into a table.
        let pending = self.pending.read().await;
        let mut found = Vec::new();
        for ((name, owner, day), batches) in &pending.rows {
            if owner != tenant || !wanted(name) || batches.is_empty() {
                continue;
            }
            let Some(table) = self.table(name) else { continue };
            let (table, version, day) = ((*name).to_owned(), table.lock().await.version(), *day);
            // A stream has one schema.
            for batches in batches.chunk_by(|one, next| one.schema() == next.schema()) {
                found.push(UnflushedRows { table: table.clone(), version, day, rows: encode(batches)? });
            }
        }
        Ok(found)
    }

    /// Makes queries read a tenant's rows together with these unflushed ones, in place of earlier ones. For tables that
    /// were opened read-only.
    ///
    /// # Errors
    /// Returns an error if a table is unknown or rows cannot be decoded.
    pub async fn set_unflushed_rows(&self, tenant: &TenantId, unflushed: &[UnflushedRows]) -> Result<(), Error> {
        let mut pending = PendingRows::default();
        for table in self.tables() {
            table.lock().await.pinned_version = None;
        }
        for part in unflushed {
            let unknown = || Error::Unavailable(format!("{} is not open", part.table));
            let table = self.table(&part.table).ok_or_else(unknown)?;
            let mut table = table.lock().await;
            table.pinned_version = Some(part.version);
            let rows = pending.rows.entry((table.name(), tenant.clone(), part.day)).or_default();
            for batch in StreamReader::try_new(part.rows.as_slice(), None)? {
                rows.push(batch?);
            }
        }
        self.publish_pending(pending).await;
        Ok(())
    }
}

/// Encodes rows of one schema.
fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>, Error> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let mut writer = StreamWriter::try_new(Vec::new(), &first.schema())?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wardroom_domain::{Entity, Labels, LogEntry, Severity, Timestamp};

    use super::*;
    use crate::config::{Config, QueryConfig};
    use crate::read::sql_engine::{OutputFormat, QueryEngine};
    use crate::write::event_batch::{EventBatch, LogLine, RequestOrigin};

    fn add_log(events: &mut EventBatch, number: u64) {
        let at = Timestamp::from_millis(1_795_255_038_000 + number as i64);
        let (message, labels) = (format!("line {number}"), Labels::of(&[("k", "v")]));
        let log = LogEntry { at, severity: Severity::Info, message, service: "web".into(), labels };
        for tenant in ["main", "other"] {
            let from = RequestOrigin::new(TenantId::new(tenant).unwrap(), number, at, None);
            events
                .add_log(
                    &from,
                    0,
                    &LogLine { log: &log, entity: &Entity::service("web"), template: "t", parameters: &[] },
                )
                .unwrap();
        }
    }

    /// Another reader finds each row once, whether the rows are flushed before or after they are passed to it.
    #[tokio::test]
    async fn rows_are_found_once_while_they_are_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let (config, now) = (Config::default(), Timestamp::from_millis(1_795_255_040_000));
        let writer = Lake::open(&config, folder.path()).await.unwrap();
        let reader = Arc::new(Lake::open_read_only(&config, folder.path()).await.unwrap().unwrap());
        let queries = QueryEngine::new(Arc::clone(&reader), QueryConfig::default()).unwrap();
        let main = TenantId::main();
        let count = async || {
            let text = "SELECT count(*) AS n, count(DISTINCT message) AS m FROM logs WHERE labels['k'] = 'v'";
            let found = queries.run_sql(&main, text, OutputFormat::Json).await.unwrap();
            String::from_utf8(found).unwrap()
        };
        let mut events = EventBatch::new(writer.committed_event_offsets().await.unwrap());
        for number in 0..3 {
            add_log(&mut events, number);
            writer.publish_pending(events.pending_rows(number + 1).unwrap()).await;
        }
        let passed = writer.unflushed_rows(&main, |table| table == "silver.logs").await.unwrap();
        assert!(!passed.is_empty() && passed.iter().all(|part| part.table == "silver.logs"));
        assert!(writer.unflushed_rows(&main, |_| false).await.unwrap().is_empty());
        reader.set_unflushed_rows(&main, &passed).await.unwrap();
        assert_eq!(count().await, r#"[{"n":3,"m":3}]"#);
        writer.commit_events(&events.finish(3, now).unwrap()).await.unwrap();
        assert_eq!(count().await, r#"[{"n":3,"m":3}]"#, "the rows are in the table, too");
        let passed = writer.unflushed_rows(&main, |_| true).await.unwrap();
        assert_eq!(passed, []);
        reader.set_unflushed_rows(&main, &passed).await.unwrap();
        assert_eq!(count().await, r#"[{"n":3,"m":3}]"#, "in the table only");
    }
}
