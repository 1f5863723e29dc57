//! Storage usage of a tenant by table.

use wardroom_domain::{TenantId, Timestamp};

use crate::error::Error;
use crate::lake::Lake;
use crate::maintain::retention::is_expired;

/// Storage usage of a tenant in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableUsage {
    /// Table name.
    pub table: &'static str,
    /// Number of files.
    pub files: usize,
    /// Number of rows.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows past their retention, which the next maintenance run removes.
    pub outdated: u64,
}

impl Lake {
    /// Returns how much each table stores for a tenant, and how much of it is past retention.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read.
    pub async fn table_usage(&self, tenant: &TenantId, now: Timestamp) -> Result<Vec<TableUsage>, Error> {
        let mut found = Vec::new();
        for table in self.tables() {
            let mut table = table.lock().await;
            let mut usage = TableUsage { table: table.name(), files: 0, rows: 0, bytes: 0, outdated: 0 };
            for file in table.files().await?.iter().filter(|file| file.tenant == *tenant) {
                usage.files += 1;
                usage.rows += file.rows;
                usage.bytes += file.bytes;
                usage.outdated +=
                    if is_expired(&self.retention, usage.table, tenant, file.day, now) { file.rows } else { 0 };
            }
            found.push(usage);
        }
        Ok(found)
    }
}
