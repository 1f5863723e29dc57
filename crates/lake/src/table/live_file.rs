//! A data file as a table's log lists it.

use deltalake_core::kernel::LogicalFileView;
use wardroom_domain::{TenantId, Timestamp};

use crate::error::Error;
use crate::format::data_file::{DAY_MS, day_of};
use crate::format::file_name::name_offset;
use crate::format::schema::TableSchema;

/// A data file of a table's newest version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LiveFile {
    /// Path below the table's root.
    pub(crate) path: String,
    /// Tenant of the rows.
    pub(crate) tenant: TenantId,
    /// Day of the rows, in days since the epoch.
    pub(crate) day: i64,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Number of rows.
    pub(crate) rows: u64,
    /// Lowest and highest series id; zeros if the table has none.
    pub(crate) series: (i64, i64),
    /// Earliest and latest `ts`, in ms; zeros if unknown.
    pub(crate) span_ms: (i64, i64),
    /// Modification time by the store's clock, in ms.
    pub(crate) written_ms: i64,
    /// Bus offset at which the file's batch ended; of a merged file the highest.
    pub(crate) offset: u64,
}

/// Converts a file entry of the table's log.
pub(crate) fn live_file(schema: &TableSchema, file: &LogicalFileView) -> Result<LiveFile, Error> {
    let path = file.path().into_owned();
    let unreadable = |what: &str| Error::Damaged(format!("{}: {what} of {path} cannot be read", schema.name));
    let partitions = file.partition_values_map();
    let value = |name: &str| partitions.get(name).cloned().flatten().ok_or_else(|| unreadable(name));
    let stats: serde_json::Value =
        serde_json::from_str(file.stats().as_deref().unwrap_or("{}")).map_err(|_| unreadable("stats"))?;
    let number = |bound: &str| stats[bound]["series_id"].as_i64().unwrap_or_default();
    let time_ms = |bound: &str| {
        let text = stats[bound]["ts"].as_str().and_then(|text| Timestamp::parse(text).ok());
        text.map_or(0, Timestamp::millis)
    };
    let day = Timestamp::parse(&format!("{}T00:00:00Z", value("day")?)).map_err(|_| unreadable("day"))?;
    let offset = name_offset(&path);
    Ok(LiveFile {
        tenant: TenantId::new(value("tenant")?).map_err(|_| unreadable("tenant"))?,
        day: day_of(day.millis()),
        bytes: u64::try_from(file.size()).map_err(|_| unreadable("size"))?,
        rows: stats["numRecords"].as_u64().ok_or_else(|| unreadable("numRecords"))?,
        series: (number("minValues"), number("maxValues")),
        span_ms: (time_ms("minValues"), time_ms("maxValues")),
        written_ms: file.modification_time(),
        offset: offset.ok_or_else(|| unreadable("name"))?,
        path,
    })
}

/// Formats a day (days since the epoch) as Delta's partitions do.
pub(crate) fn format_day(day: i64) -> String {
    let start = Timestamp::from_millis(day.saturating_mul(DAY_MS)).to_string();
    start.split('T').next().unwrap_or_default().to_owned()
}
