//! Pages of incidents in several orders, and what changed since a position.

use wardroom_domain::{IncidentState, TenantId, Timestamp};

use crate::database::{built_query, query};
use crate::error::Error;
use crate::incidents::{IncidentRow, decode_incident};
use crate::store::Store;

/// Nanoseconds of a millisecond.
const NANOS_PER_MS: i64 = 1_000_000;

/// Order of incidents, and where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentOrder {
    /// Numbers below this one, the highest first.
    Newest(i64),
    /// Numbers above this one, the lowest first.
    Oldest(i64),
    /// Changed before this time, in ms since the epoch, the latest first.
    Updated(i64),
}

impl Store {
    /// Returns incidents of a tenant in an order: at most `limit`; in the order of changes also those that changed in
    /// the same millisecond as the last of them, so that the next page begins before it. No states mean all.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn incident_page(
        &self,
        tenant: &TenantId,
        order: IncidentOrder,
        states: &[IncidentState],
        limit: u32,
    ) -> Result<Vec<IncidentRow>, Error> {
        let (condition, sort, position) = match order {
            IncidentOrder::Newest(before) => ("number < $2", "number DESC", before),
            IncidentOrder::Oldest(after) => ("number > $2", "number", after),
            IncidentOrder::Updated(before_ms) => {
                ("updated_at < $2", "updated_at DESC, number DESC", before_ms.saturating_mul(NANOS_PER_MS))
            }
        };
        // Words of an enumeration, no text of a caller.
        let words: Vec<String> = states.iter().map(|state| format!("'{}'", state.as_str())).collect();
        let states = if words.is_empty() { String::new() } else { format!("AND state IN ({})", words.join(", ")) };
        let select =
            format!("SELECT * FROM incidents WHERE tenant = $1 AND {condition} {states} ORDER BY {sort} LIMIT $3");
        let select = built_query(select).bind(tenant.as_str()).bind(position).bind(i64::from(limit));
        let rows = select.fetch_all(&self.database).await?;
        let mut rows = rows.iter().map(decode_incident).collect::<Result<Vec<_>, _>>()?;
        let last = rows.last().filter(|_| rows.len() >= limit as usize).map(|row| row.updated_at.nanos());
        if let (IncidentOrder::Updated(_), Some(last)) = (order, last) {
            let from = last.div_euclid(NANOS_PER_MS).saturating_mul(NANOS_PER_MS);
            let select = format!(
                "SELECT * FROM incidents WHERE tenant = $1 AND updated_at >= $2 AND updated_at <= $3 {states}
                 ORDER BY {sort}"
            );
            let select = built_query(select).bind(tenant.as_str()).bind(from).bind(last);
            for row in select.fetch_all(&self.database).await? {
                let row = decode_incident(&row)?;
                if !rows.iter().any(|known| known.number == row.number) {
                    rows.push(row);
                }
            }
        }
        Ok(rows)
    }

    /// Returns at most `limit` incidents of all tenants that changed after a time, in the order of their changes.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn incidents_changed_after(&self, after: Timestamp, limit: u32) -> Result<Vec<IncidentRow>, Error> {
        let select = "SELECT * FROM incidents WHERE updated_at > $1 ORDER BY updated_at, tenant, number LIMIT $2";
        let select = query(select).bind(after.nanos()).bind(i64::from(limit));
        select.fetch_all(&self.database).await?.iter().map(decode_incident).collect()
    }

    /// Returns the time of the last change of an incident; `None` without incidents.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn last_incident_change(&self) -> Result<Option<Timestamp>, Error> {
        let row = query("SELECT MAX(updated_at) AS last FROM incidents").fetch_one(&self.database).await?;
        Ok(row.get::<Option<i64>>("last")?.map(Timestamp::from_nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::example_entry;

    #[tokio::test]
    async fn pages_have_each_incident_once_in_every_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wardroom.db")).await.unwrap();
        let tenant = TenantId::main();
        for number in 0..10_i64 {
            // Three in each millisecond.
            let now = Timestamp::from_nanos((number / 3) * NANOS_PER_MS + number);
            let key = format!("k{number}");
            let opened = store.open_incident(&tenant, &key, now, "{}", now, |_| example_entry());
            assert_eq!(opened.await.unwrap(), Some(number + 1));
        }
        let numbers = async |order: IncidentOrder| {
            let rows = store.incident_page(&tenant, order, &[], 4).await.unwrap();
            rows.iter().map(|row| row.number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(IncidentOrder::Newest(i64::MAX)).await, [10, 9, 8, 7]);
        assert_eq!(numbers(IncidentOrder::Newest(7)).await, [6, 5, 4, 3]);
        assert_eq!(numbers(IncidentOrder::Oldest(0)).await, [1, 2, 3, 4]);
        assert_eq!(numbers(IncidentOrder::Updated(i64::MAX)).await, [10, 9, 8, 7], "the millisecond 2 is complete");
        assert_eq!(numbers(IncidentOrder::Updated(2)).await, [6, 5, 4, 3, 2, 1], "with the rest of the millisecond");
        let resolved = store.incident_page(&tenant, IncidentOrder::Oldest(0), &[IncidentState::Resolved], 4).await;
        assert!(resolved.unwrap().is_empty());
        let open = store.incident_page(&tenant, IncidentOrder::Oldest(8), &[IncidentState::Open], 4).await.unwrap();
        assert_eq!(open.len(), 2);
        let last = store.last_incident_change().await.unwrap().unwrap();
        assert_eq!(last.nanos(), 3 * NANOS_PER_MS + 9);
        let changed = store.incidents_changed_after(Timestamp::from_nanos(2 * NANOS_PER_MS + 7), 5).await.unwrap();
        assert_eq!(changed.iter().map(|row| row.number).collect::<Vec<_>>(), [9, 10]);
    }
}
