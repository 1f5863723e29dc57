//! Short files of the smaller tables become longer ones.
//!
//! A batch of the bus brings each table a file for every tenant and day. Once [`MANY`] short ones of a day have come
//! together they are joined, row by row in the order of the bus. Guarantee: the same rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::parquet::arrow::ArrowWriter;
use deltalake_core::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use wardroom_domain::{TenantId, Timestamp};

use crate::Error;
use crate::merge::Merged;
use crate::rows::fitted;
use crate::samples::{DataFile, Use, common};
use crate::source::Source;
use crate::spec::Spec;
use crate::table::{LiveFile, Table};

/// So many short files of a day are joined.
pub(crate) const MANY: usize = 16;
/// A file of this size stays as it is, in bytes.
const LONG: u64 = 32 << 20;
/// About as much is joined at once, in bytes: the joined file is in memory.
const ENOUGH: u64 = 2 * LONG;

/// The files that are to be joined now, group by group.
pub(crate) fn due(files: &[LiveFile]) -> Vec<Vec<LiveFile>> {
    let mut days: BTreeMap<(&TenantId, i64), Vec<&LiveFile>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.bytes < LONG) {
        days.entry((&file.tenant, file.day)).or_default().push(file);
    }
    let group = |mut short: Vec<&LiveFile>| {
        short.sort_unstable_by_key(|file| file.offset);
        let mut bytes = 0;
        let fits = |file: &&LiveFile| {
            bytes += file.bytes;
            bytes <= ENOUGH
        };
        short.into_iter().take(MANY).take_while(fits).cloned().collect()
    };
    days.into_values().filter(|short| short.len() >= MANY).map(group).collect()
}

/// Joins the files of one tenant and day.
pub(crate) async fn join(table: &mut Table, group: &[LiveFile]) -> Result<Merged, Error> {
    let Some(first) = group.first() else { return Ok(Merged::default()) };
    let mut files = Vec::new();
    for file in group {
        files.push(table.open_file(file).await?);
    }
    let spec = table.spec();
    let encoding = tokio::task::spawn_blocking(move || encode(spec, files));
    let bytes = encoding.await.map_err(|error| Error::Unavailable(error.to_string()))??;
    let done = Merged {
        files_in: group.len(),
        files_out: 1,
        rows: group.iter().map(|file| file.rows).sum(),
        bytes_in: group.iter().map(|file| file.bytes).sum(),
        bytes_out: bytes.len() as u64,
        ..Merged::default()
    };
    let offset = group.iter().map(|file| file.offset).max().unwrap_or_default();
    let joined = DataFile { tenant: first.tenant.clone(), day: first.day, bytes, stats: stats(spec, group) };
    let written = table.put(&joined, offset).await?;
    table.replace(group, vec![written]).await?;
    Ok(done)
}

fn encode(spec: &Spec, files: Vec<Source>) -> Result<Bytes, Error> {
    let schema = spec.arrow();
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(common(Use::Stay)?.build()))?;
    for file in files {
        for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
            writer.write(&fitted(&schema, &batch?)?)?;
        }
    }
    Ok(writer.into_inner()?.into())
}

/// What the table's log says of the joined file.
fn stats(spec: &Spec, group: &[LiveFile]) -> serde_json::Value {
    let has = |name: &str| spec.columns().any(|column| column.name == name);
    let (mut least, mut most) = (serde_json::Map::new(), serde_json::Map::new());
    if has("ts") {
        // Times are known to the millisecond here.
        let first = group.iter().map(|file| file.span_ms.0).min().unwrap_or_default();
        let last = group.iter().map(|file| file.span_ms.1).max().unwrap_or_default() + 1;
        least.insert("ts".into(), Timestamp::from_millis(first).to_string().into());
        most.insert("ts".into(), Timestamp::from_millis(last).to_string().into());
    }
    if has("series_id") {
        least.insert("series_id".into(), group.iter().map(|file| file.series.0).min().into());
        most.insert("series_id".into(), group.iter().map(|file| file.series.1).max().into());
    }
    let rows: u64 = group.iter().map(|file| file.rows).sum();
    serde_json::json!({ "numRecords": rows, "minValues": least, "maxValues": most })
}
