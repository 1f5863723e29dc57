//! Anomalies: written in batches, idempotent by their derived id.

use sqlx::Row;
use wardroom_domain::{Anomaly, TenantId, Timestamp};

use crate::{Error, Store};

/// Rows that one statement writes: each trip to the writer's thread costs more than a row.
const AT_ONCE: usize = 200;

impl Store {
    /// Adds anomalies; ones already there stay as they are.
    ///
    /// # Errors
    /// The store's.
    pub async fn add_anomalies(&self, tenant: &TenantId, anomalies: &[Anomaly]) -> Result<(), Error> {
        if anomalies.is_empty() {
            return Ok(());
        }
        let mut transaction = self.write().await?;
        for some in anomalies.chunks(AT_ONCE) {
            let bodies: Result<Vec<String>, _> = some.iter().map(serde_json::to_string).collect();
            let bodies = bodies.map_err(|error| Error::damaged("an anomaly", error))?;
            let mut query = sqlx::QueryBuilder::new("INSERT INTO anomalies (id, tenant, at, service, body) ");
            query.push_values(some.iter().zip(bodies), |mut row, (anomaly, body)| {
                row.push_bind(anomaly.id.clone()).push_bind(tenant.as_str()).push_bind(anomaly.at.nanos());
                row.push_bind(anomaly.service.clone()).push_bind(body);
            });
            query.push(" ON CONFLICT DO NOTHING");
            // Nearly every number of rows is a statement of its own.
            query.build().persistent(false).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Anomalies from `since` on, oldest first, at most `limit`, after the (time, id) of `after`.
    ///
    /// # Errors
    /// The store's.
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

    /// Forgets anomalies older than `before`.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_anomalies(&self, before: Timestamp) -> Result<(), Error> {
        sqlx::query("DELETE FROM anomalies WHERE at < ?").bind(before.nanos()).execute(&self.pool).await?;
        Ok(())
    }
}
