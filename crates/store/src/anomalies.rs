//! Anomalies: written in batches, idempotent by their derived id.

use sqlx::Row;
use wardroom_domain::{Anomaly, TenantId, Timestamp};

use crate::{Error, Store};

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
        for anomaly in anomalies {
            let body = serde_json::to_string(anomaly).map_err(|error| Error::damaged("an anomaly", error))?;
            let query = "INSERT INTO anomalies (id, tenant, at, service, body) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT DO NOTHING";
            sqlx::query(query)
                .bind(&anomaly.id)
                .bind(tenant.as_str())
                .bind(anomaly.at.nanos())
                .bind(&anomaly.service)
                .bind(body)
                .execute(&mut *transaction)
                .await?;
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
