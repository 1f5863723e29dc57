//! Anomalies: inserted in batches, idempotent by their derived id.

use wardroom_domain::{Anomaly, TenantId, Timestamp};

use crate::database::{built_query, query};
use crate::error::Error;
use crate::health::Operation;
use crate::store::Store;

/// Rows per INSERT statement: a round trip to the SQLite worker thread costs more than a row.
const ROWS_PER_INSERT: usize = 200;
/// Columns of a row of that statement.
const COLUMNS: usize = 5;

impl Store {
    /// Inserts anomalies; existing ones are left unchanged.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn add_anomalies(&self, tenant: &TenantId, anomalies: &[Anomaly]) -> Result<(), Error> {
        if anomalies.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin_write().await?;
        for chunk in anomalies.chunks(ROWS_PER_INSERT) {
            let bodies: Result<Vec<String>, _> = chunk.iter().map(serde_json::to_string).collect();
            let bodies = bodies.map_err(|error| Error::damaged("an anomaly", error))?;
            let row = |first: usize| {
                let parameters: Vec<String> = (first..first + COLUMNS).map(|number| format!("${number}")).collect();
                format!("({})", parameters.join(", "))
            };
            let rows: Vec<String> = (0..chunk.len()).map(|index| row(index * COLUMNS + 1)).collect();
            // The statement text depends on the number of rows, so caching it is useless.
            let mut insert = built_query(format!(
                "INSERT INTO anomalies (id, tenant, at, service, body) VALUES {} ON CONFLICT DO NOTHING",
                rows.join(", ")
            ));
            for (anomaly, body) in chunk.iter().zip(bodies) {
                insert = insert.bind(&anomaly.id).bind(tenant.as_str()).bind(anomaly.at.nanos());
                insert = insert.bind(&anomaly.service).bind(body);
            }
            self.record_write(insert.execute(&mut transaction).await)?;
        }
        self.commit(transaction).await
    }

    /// Returns a page of at most `limit` anomalies at or after `since`, oldest first, that come after the (time, id) of
    /// `after`.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn anomalies(
        &self,
        tenant: &TenantId,
        since: Timestamp,
        service: Option<&str>,
        after: Option<(Timestamp, String)>,
        limit: u32,
    ) -> Result<Vec<Anomaly>, Error> {
        let (after_at, after_id) = after.unwrap_or((Timestamp::from_nanos(i64::MIN), String::new()));
        let rows = query(
            "SELECT body FROM anomalies WHERE tenant = $1 AND at >= $2 AND ($3 = '' OR service = $3)
                AND (at > $4 OR (at = $4 AND id > $5)) ORDER BY at, id LIMIT $6",
        )
        .bind(tenant.as_str())
        .bind(since.nanos())
        .bind(service.unwrap_or_default())
        .bind(after_at.nanos())
        .bind(after_id)
        .bind(i64::from(limit))
        .fetch_all(&self.database)
        .await?;
        rows.iter()
            .map(|row| {
                let body: String = row.get("body")?;
                serde_json::from_str(&body).map_err(|error| Error::damaged("an anomaly", error))
            })
            .collect()
    }

    /// Deletes anomalies older than `before`.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn delete_anomalies_before(&self, before: Timestamp) -> Result<(), Error> {
        let deleted = query("DELETE FROM anomalies WHERE at < $1").bind(before.nanos()).execute(&self.database).await;
        self.health.record_failure(Operation::Write, deleted.map_err(Error::from)).map(drop)
    }
}
