//! Retention rules: how long each table keeps a tenant's rows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::{TenantId, Timestamp};

use crate::format::data_file::day_of;
use crate::format::table_schemas::{SERIES, TELEMETRY};

/// Default retention of `bronze.telemetry`, in days.
const TELEMETRY_RETENTION_DAYS: u32 = 7;

/// Retention of the rows of some tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Retention {
    /// Table name such as `silver.logs`, or a prefix such as `silver.*`. Since 0.1.
    pub table: String,
    /// Limits the rule to one tenant. Since 0.1.
    #[serde(default)]
    pub tenant: Option<TenantId>,
    /// Whole days after the day of a row. Then its file is removed, and its bytes are deleted a week later. Since 0.1.
    pub days: u32,
}

impl Retention {
    /// Returns the retention of a table and tenant in days, or `None` for no limit.
    fn days(rules: &[Self], table: &str, tenant: &TenantId) -> Option<u32> {
        let rule = rules.iter().find(|rule| rule.matches(table, tenant)).map(|rule| rule.days);
        // The bus has deleted the request bodies that these rows point to by then.
        rule.or_else(|| (table == TELEMETRY.name).then_some(TELEMETRY_RETENTION_DAYS))
    }

    fn matches(&self, table: &str, tenant: &TenantId) -> bool {
        let table_matches =
            self.table.strip_suffix('*').map_or(self.table == table, |prefix| table.starts_with(prefix));
        table_matches && self.tenant.as_ref().is_none_or(|only| only == tenant)
    }
}

/// Returns true if the retention rules allow removing a file of this day (days since the epoch).
pub(crate) fn is_expired(rules: &[Retention], table: &str, tenant: &TenantId, day: i64, now: Timestamp) -> bool {
    // Label sets are needed as long as there are samples of their series.
    let days = Retention::days(rules, table, tenant).filter(|_| table != SERIES.name);
    days.is_some_and(|days| day + i64::from(days) < day_of(now.millis()))
}
