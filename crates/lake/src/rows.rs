//! Rows of the smaller tables as Parquet, and back.

use std::collections::BTreeMap;

use bytes::Bytes;
use deltalake_core::arrow::array::{Array, Int64Array, MapArray, StringArray};
use deltalake_core::arrow::datatypes::SchemaRef;
use deltalake_core::parquet::arrow::ArrowWriter;
use deltalake_core::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;
use wardroom_domain::{Labels, TenantId};

use crate::samples::{DataFile, common};
use crate::spec::Spec;
use crate::{Error, SCHEMA_VERSION, TOPIC};

/// Where a row came from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Lineage {
    topic: &'static str,
    partition: i32,
    offset: i64,
    schema_version: i32,
    src_uri: String,
    received_at: i64,
}

impl Lineage {
    /// A request on the bus, received at this moment (µs).
    pub(crate) fn of(offset: u64, received_us: i64) -> Self {
        Self {
            topic: TOPIC,
            partition: 0,
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            schema_version: SCHEMA_VERSION,
            src_uri: format!("bus://{TOPIC}/0/{offset}"),
            received_at: received_us,
        }
    }
}

/// One file of rows of a tenant and a day.
pub(crate) fn file<T: Serialize>(spec: &Spec, tenant: TenantId, day: i64, rows: &[T]) -> Result<DataFile, Error> {
    let schema: SchemaRef = spec.arrow();
    let properties = common()?.build();
    let mut decoder = arrow_json::ReaderBuilder::new(schema.clone()).with_batch_size(8192).build_decoder()?;
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for some in rows.chunks(8192) {
        decoder.serialize(some)?;
        if let Some(batch) = decoder.flush()? {
            writer.write(&batch)?;
        }
    }
    let stats = serde_json::json!({ "numRecords": rows.len() });
    Ok(DataFile { tenant, day, bytes: writer.into_inner()?.into(), stats })
}

/// The label sets of a file of `silver.series`, by their numbers.
pub(crate) fn labels(bytes: Bytes) -> Result<Vec<(i64, Labels)>, Error> {
    let odd = || Error::Damaged("silver.series: a column is missing or of another type".into());
    let mut found = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()? {
        let batch = batch?;
        let ids = batch.column_by_name("series_id").and_then(|column| column.as_any().downcast_ref::<Int64Array>());
        let maps = batch.column_by_name("labels").and_then(|column| column.as_any().downcast_ref::<MapArray>());
        let (ids, maps) = (ids.ok_or_else(odd)?, maps.ok_or_else(odd)?);
        for at in 0..batch.num_rows() {
            let pairs = maps.value(at);
            let texts = |column: usize| pairs.column(column).as_any().downcast_ref::<StringArray>().cloned();
            let (names, values) = (texts(0).ok_or_else(odd)?, texts(1).ok_or_else(odd)?);
            let pairs = (0..names.len()).map(|at| (names.value(at), values.value(at))).collect();
            found.push((ids.value(at), Labels::new(pairs)));
        }
    }
    Ok(found)
}

/// A row of `silver.series`.
#[derive(Debug, Serialize)]
pub(crate) struct SeriesRow {
    pub(crate) series_id: i64,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) first_seen: i64,
    #[serde(flatten)]
    pub(crate) lineage: Lineage,
}
