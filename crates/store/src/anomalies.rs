//! Anomalies: inserted in batches, idempotent by their derived id.

use sqlx::Row;
use wardroom_domain::{Anomaly, TenantId, Timestamp};

use crate::error::Error;
use crate::health::Operation;
use crate::store::Store;

/// Rows per INSERT statement: a round trip to the SQLite worker thread costs more than a row.
const ROWS_PER_INSERT: usize = 200;

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
            let mut query = sqlx::QueryBuilder::new("INSERT INTO anomalies (id, tenant, at, service, body) ");
            query.push_values(chunk.iter().zip(bodies), |mut row, (anomaly, body)| {
                row.push_bind(anomaly.id.clone()).push_bind(tenant.as_str()).push_bind(anomaly.at.nanos());
                row.push_bind(anomaly.service.clone()).push_bind(body);
            });
            query.push(" ON CONFLICT DO NOTHING");
            // The statement text depends on the number of rows, so caching it is useless.
            self.record_write(query.build().persistent(false).execute(&mut *transaction).await)?;
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
        let query = "SELECT body FROM anomalies WHERE tenant = ? AND at >= ? AND (? IS NULL OR service = ?)
            AND (at > ? OR (at = ? AND id > ?)) ORDER BY at, id LIMIT ?";
        let rows = sqlx::query(query)
            .bind(tenant.as_str())
            .bind(since.nanos())
            .bind(service)
            .bind(service)
            .bind(after_at.nanos())
            .bind(after_at.nanos())
            .bind(after_id)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let body: String = row.try_get("body")?;
                serde_json::from_str(&body).map_err(|error| Error::damaged("an anomaly", error))
            })
            .collect()
    }

    /// Deletes anomalies older than `before`.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn delete_anomalies_before(&self, before: Timestamp) -> Result<(), Error> {
        let deleted = sqlx::query("DELETE FROM anomalies WHERE at < ?").bind(before.nanos()).execute(&self.pool).await;
        self.health.record_failure(Operation::Write, deleted.map_err(Error::from)).map(drop)
    }
}
