//! Writes signed heads of the audit log to `gold.audit_heads`, one a day.

use wardroom_domain::TenantId;
use wardroom_domain::audit_head::{SignedHead, key_id};

use crate::error::Error;
use crate::format::data_file::day_of;
use crate::format::row_buffer::{Cell, Lineage, RowBuffer, micros};
use crate::format::table_schemas::AUDIT_HEADS;
use crate::lake::Lake;

/// Delta application id of the commits: their versions are the times of the heads, in seconds.
const APP_ID: &str = "audit-heads";
/// Seconds of a day.
const DAY_SECONDS: i64 = 86_400;

impl Lake {
    /// Writes a signed head of the audit log, unless there is one of its day or of a later one. Returns whether it was
    /// written. The log is that of the installation; its heads belong to the tenant `main`.
    ///
    /// # Errors
    /// Returns an error if the table cannot be written now. Retrying is safe.
    pub async fn write_audit_head(&self, signed: &SignedHead) -> Result<bool, Error> {
        let Some(table) = self.table(AUDIT_HEADS.name) else { return Ok(false) };
        let (head, mut table) = (&signed.head, table.lock().await);
        let seconds = head.at.millis().div_euclid(1000);
        let written = table.reload_position(APP_ID).await?.and_then(|written| i64::try_from(written).ok());
        if written.is_some_and(|written| written.div_euclid(DAY_SECONDS) >= seconds.div_euclid(DAY_SECONDS)) {
            return Ok(false);
        }
        let text = serde_json::to_string(signed).map_err(|error| Error::Unavailable(error.to_string()))?;
        let (tenant, day, key) = (TenantId::main(), day_of(head.at.millis()), key_id(&signed.public_key));
        let mut rows = RowBuffer::new(&AUDIT_HEADS, tenant, day);
        let cells = [
            Cell::Timestamp(micros(head.at)),
            Cell::Long(head.position.sequence),
            Cell::Text(&head.position.hash),
            Cell::Text(&key),
            Cell::Text(&text),
        ];
        rows.push(&cells, None, &Lineage::new(0, head.at))?;
        table.append(APP_ID, u64::try_from(seconds).unwrap_or_default(), vec![rows.finish()?]).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wardroom_domain::Timestamp;
    use wardroom_domain::audit_head::{AuditHead, ChainPosition};

    use super::*;
    use crate::config::{Config, QueryConfig};
    use crate::read::sql_engine::{OutputFormat, QueryEngine};

    fn signed(day: i64, second: i64, sequence: i64) -> SignedHead {
        let position = ChainPosition { sequence, hash: format!("hash-{sequence}") };
        let at = Timestamp::from_millis((day * DAY_SECONDS + second) * 1000);
        let head = AuditHead { at, previous: ChainPosition::genesis(), previous_head: None, position, accepted: None };
        SignedHead { head, public_key: "key".into(), signature: "signature".into() }
    }

    #[tokio::test]
    async fn the_first_head_of_each_day_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
        for (day, second, sequence, expected) in [
            (20_000, 5, 1, true),
            (20_000, 5, 1, false),
            (20_000, 9, 2, false),
            (20_001, 0, 7, true),
            (20_000, 8, 8, false),
        ] {
            assert_eq!(
                lake.write_audit_head(&signed(day, second, sequence)).await.unwrap(),
                expected,
                "{day} {second}"
            );
        }
        // After an accepted restore the log may be shorter than before.
        let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
        assert!(lake.write_audit_head(&signed(20_002, 0, 3)).await.unwrap());
        let queries = QueryEngine::new(Arc::new(lake), QueryConfig::default()).unwrap();
        let text = "SELECT sequence, hash, signed_head FROM gold.audit_heads ORDER BY ts";
        let found = queries.run_sql(&TenantId::main(), text, OutputFormat::Json).await.unwrap();
        let found: Vec<serde_json::Value> = serde_json::from_slice(&found).unwrap();
        assert_eq!(found.iter().map(|row| row["sequence"].as_i64().unwrap()).collect::<Vec<_>>(), [1, 7, 3]);
        let head: SignedHead = serde_json::from_str(found[1]["signed_head"].as_str().unwrap()).unwrap();
        assert_eq!(head, signed(20_001, 0, 7));
    }
}
