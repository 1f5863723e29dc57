//! Joins short files of the smaller tables.
//!
//! Each batch adds a file per table, tenant and day. Once a day has [`JOIN_FILE_COUNT`] short files they are joined,
//! row by row in bus order. Guarantee: the same rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltalake_core::parquet::arrow::ArrowWriter;
use deltalake_core::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use wardroom_domain::{TenantId, Timestamp};

use crate::error::Error;
use crate::format::checksums::{FinishedFile, finish_arrow_file};
use crate::format::data_file::{DataFile, FilePurpose, writer_properties};
use crate::format::parquet_source::ParquetSource;
use crate::format::row_reader::add_missing_columns;
use crate::format::schema::TableSchema;
use crate::maintain::maintenance_report::MaintenanceReport;
use crate::table::delta_table::Table;
use crate::table::live_file::LiveFile;

/// Number of short files of a day that are joined at once.
pub(crate) const JOIN_FILE_COUNT: usize = 16;
/// Files of at least this size are not joined, in bytes.
const MAX_SHORT_FILE_BYTES: u64 = 32 << 20;
/// Bound on the input of one join, in bytes: the joined file is held in memory.
const MAX_JOINED_BYTES: u64 = 2 * MAX_SHORT_FILE_BYTES;

/// Returns the groups of files that are due for a join.
pub(crate) fn files_to_join(files: &[LiveFile]) -> Vec<Vec<LiveFile>> {
    let mut days: BTreeMap<(&TenantId, i64), Vec<&LiveFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.bytes < MAX_SHORT_FILE_BYTES) {
        days.entry((&file.tenant, file.day)).or_default().push(file);
    }
    let group = |mut short: Vec<&LiveFile>| {
        short.sort_unstable_by_key(|file| file.offset);
        let mut bytes = 0;
        let fits = |file: &&LiveFile| {
            bytes += file.bytes;
            bytes <= MAX_JOINED_BYTES
        };
        short.into_iter().take(JOIN_FILE_COUNT).take_while(fits).cloned().collect()
    };
    days.into_values().filter(|short| short.len() >= JOIN_FILE_COUNT).map(group).collect()
}

/// Joins files of one tenant and day.
pub(crate) async fn join_files(table: &mut Table, group: &[LiveFile]) -> Result<MaintenanceReport, Error> {
    let Some(first) = group.first() else { return Ok(MaintenanceReport::default()) };
    let mut files = Vec::new();
    for file in group {
        files.push(table.open_file(file).await?);
    }
    let table_schema = table.schema();
    let encoding = tokio::task::spawn_blocking(move || encode(table_schema, files));
    let finished = encoding.await.map_err(|error| Error::Unavailable(error.to_string()))??;
    let FinishedFile { bytes, tail_start } = finished;
    let done =
        MaintenanceReport { files_in: group.len(), files_out: 1, rows: group.iter().map(|file| file.rows).sum() };
    let offset = group.iter().map(|file| file.offset).max().unwrap_or_default();
    let (tenant, stats) = (first.tenant.clone(), stats(table_schema, group));
    let joined = DataFile { tenant, day: first.day, bytes, tail_start, stats };
    let written = table.write_file(&joined, offset).await?;
    table.replace_files(group, vec![written]).await?;
    Ok(done)
}

fn encode(table_schema: &TableSchema, files: Vec<ParquetSource>) -> Result<FinishedFile, Error> {
    let schema = table_schema.arrow_schema();
    let mut writer = ArrowWriter::try_new(
        Vec::new(),
        Arc::clone(&schema),
        Some(writer_properties(FilePurpose::LongLived)?.build()),
    )?;
    for file in files {
        file.verify_before_rewrite()?;
        for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
            writer.write(&add_missing_columns(&schema, &batch?)?)?;
        }
    }
    finish_arrow_file(writer)
}

/// Combines the statistics of the joined files.
fn stats(table_schema: &TableSchema, group: &[LiveFile]) -> serde_json::Value {
    let has = |name: &str| table_schema.all_columns().any(|column| column.name == name);
    let (mut min, mut max) = (serde_json::Map::new(), serde_json::Map::new());
    if has("ts") {
        // File statistics have times in ms: round up to include the last row.
        let first = group.iter().map(|file| file.span_ms.0).min().unwrap_or_default();
        let last = group.iter().map(|file| file.span_ms.1).max().unwrap_or_default() + 1;
        min.insert("ts".into(), Timestamp::from_millis(first).to_string().into());
        max.insert("ts".into(), Timestamp::from_millis(last).to_string().into());
    }
    if has("series_id") {
        min.insert("series_id".into(), group.iter().map(|file| file.series.0).min().into());
        max.insert("series_id".into(), group.iter().map(|file| file.series.1).max().into());
    }
    let rows: u64 = group.iter().map(|file| file.rows).sum();
    serde_json::json!({ "numRecords": rows, "minValues": min, "maxValues": max })
}
