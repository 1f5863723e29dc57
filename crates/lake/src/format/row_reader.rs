//! Reads rows of the smaller tables from Parquet files and record batches.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltalake_core::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, MapArray, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use deltalake_core::arrow::datatypes::{ArrowPrimitiveType, Field, SchemaRef};
use deltalake_core::parquet::arrow::ProjectionMask;
use deltalake_core::parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};
use deltalake_core::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use deltalake_core::parquet::file::statistics::Statistics;
use deltalake_core::parquet::schema::types::SchemaDescriptor;
use wardroom_domain::{Labels, Severity, Span, SpanKind, Timestamp};

use crate::error::Error;
use crate::format::parquet_source::ParquetSource;
use crate::format::row_buffer::micros;
use crate::format::schema::TableSchema;
use crate::format::table_schemas::SPANS;

/// Adds the columns that a file was written without, as nulls.
pub(crate) fn add_missing_columns(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let empty = |field: &Field| new_null_array(field.data_type(), batch.num_rows());
    let columns =
        schema.fields().iter().map(|field| batch.column_by_name(field.name()).cloned().unwrap_or_else(|| empty(field)));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect())?)
}

fn column_error(what: &str) -> impl Fn() -> Error {
    move || Error::Damaged(format!("{what}: a column is missing or has another type"))
}

/// Keeps rows whose column `name` has one of these values.
pub(crate) fn filter_by_name(schema: &SchemaDescriptor, names: BTreeSet<String>) -> RowFilter {
    let mask = ProjectionMask::columns(schema, ["name"]);
    let predicate = ArrowPredicateFn::new(mask, move |batch: RecordBatch| {
        let column = batch.column(0).as_string::<i32>();
        Ok(column.iter().map(|name| name.map(|name| names.contains(name))).collect())
    });
    RowFilter::new(vec![Box::new(predicate)])
}

/// Reads series ids and label sets from a file of `silver.series`, optionally only of some metric names.
pub(crate) fn read_labels(file: ParquetSource, names: Option<&BTreeSet<&str>>) -> Result<Vec<(i64, Labels)>, Error> {
    let wrong_column = column_error("silver.series");
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    if let Some(names) = names {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let filter = filter_by_name(builder.parquet_schema(), names);
        builder = builder.with_row_filter(filter);
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["series_id", "labels"]);
    let mut found = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let ids = batch.column_by_name("series_id").and_then(|column| column.as_any().downcast_ref::<Int64Array>());
        let maps = batch.column_by_name("labels").and_then(|column| column.as_any().downcast_ref::<MapArray>());
        let (ids, maps) = (ids.ok_or_else(&wrong_column)?, maps.ok_or_else(&wrong_column)?);
        for row in 0..batch.num_rows() {
            let pairs = maps.value(row);
            let texts = |column: usize| pairs.column(column).as_any().downcast_ref::<StringArray>().cloned();
            let (names, values) = (texts(0).ok_or_else(&wrong_column)?, texts(1).ok_or_else(&wrong_column)?);
            let pairs = (0..names.len()).map(|pair| (names.value(pair), values.value(pair))).collect();
            found.push((ids.value(row), Labels::new(pairs)));
        }
    }
    Ok(found)
}

/// Reads the requests whose rows a file holds.
pub(crate) fn read_requests(file: ParquetSource) -> Result<Vec<StoredRequest>, Error> {
    let wrong_column = column_error("requests");
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["request", "offset", "received_at"]);
    let mut found: Vec<StoredRequest> = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let long =
            |name: &str| batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<Int64Array>());
        // Files from before this column have no hashes.
        let Some(hashes) = long("request") else { continue };
        let offsets = long("offset").ok_or_else(&wrong_column)?;
        let times = batch.column_by_name("received_at");
        let times = times.and_then(|column| column.as_any().downcast_ref::<TimestampMicrosecondArray>());
        let times = times.ok_or_else(&wrong_column)?;
        for row in (0..batch.num_rows()).filter(|row| hashes.is_valid(*row)) {
            let request = StoredRequest {
                offset: u64::try_from(offsets.value(row)).unwrap_or_default(),
                fingerprint: hashes.value(row).cast_unsigned(),
                received_us: times.value(row),
            };
            if found.last() != Some(&request) {
                found.push(request);
            }
        }
    }
    Ok(found)
}

/// A request in the tables, as needed to recognise duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredRequest {
    /// Bus offset.
    pub offset: u64,
    /// Hash of the body.
    pub fingerprint: u64,
    /// When it was received, in µs since the epoch.
    pub received_us: i64,
}

/// Reads the rows of row groups that may overlap a time range, optionally only those with one of these names (the table
/// needs a column `name`).
pub(crate) fn read_rows(
    file: ParquetSource,
    schema: &'static TableSchema,
    (from, to): (Timestamp, Timestamp),
    names: Option<BTreeSet<String>>,
) -> Result<Vec<RecordBatch>, Error> {
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let groups = overlapping_row_groups(reader.metadata(), micros(from), micros(to), schema.name == SPANS.name);
    if let Some(names) = names {
        let filter = filter_by_name(reader.parquet_schema(), names);
        reader = reader.with_row_filter(filter);
    }
    Ok(reader.with_row_groups(groups).build()?.collect::<Result<_, _>>()?)
}

/// Returns the row groups that may have rows in a time range (µs) by their column `ts`. If `ts` is only a start time,
/// earlier row groups are included.
fn overlapping_row_groups(file: &ParquetMetaData, from_us: i64, to_us: i64, ts_is_start: bool) -> Vec<usize> {
    let may_overlap = |group: &RowGroupMetaData| {
        let column = group.columns().iter().find(|column| column.column_path().string() == "ts");
        let Some(Statistics::Int64(times)) = column.and_then(|column| column.statistics()) else { return true };
        let (first, last) = (times.min_opt().copied(), times.max_opt().copied());
        first.is_none_or(|first| first < to_us) && (ts_is_start || last.is_none_or(|last| last >= from_us))
    };
    (0..file.num_row_groups()).filter(|group| may_overlap(file.row_group(*group))).collect()
}

/// A record batch of a table, with access to columns by name.
pub(crate) struct TableBatch<'a> {
    pub(crate) schema: &'static TableSchema,
    pub(crate) batch: &'a RecordBatch,
}

impl TableBatch<'_> {
    fn column(&self, name: &str) -> Result<&ArrayRef, Error> {
        self.batch.column_by_name(name).ok_or_else(|| self.column_error(name))
    }

    pub(crate) fn column_error(&self, name: &str) -> Error {
        Error::Damaged(format!("{}.{name} is missing or has another type", self.schema.name))
    }

    pub(crate) fn column_as<T: Array + 'static>(&self, name: &str) -> Result<&T, Error> {
        self.column(name)?.as_any().downcast_ref().ok_or_else(|| self.column_error(name))
    }

    pub(crate) fn text(&self, name: &str, row: usize) -> Result<&str, Error> {
        Ok(self.column(name)?.as_string_opt::<i32>().ok_or_else(|| self.column_error(name))?.value(row))
    }

    /// Bus offset of the row's request.
    pub(crate) fn offset(&self, row: usize) -> Result<i64, Error> {
        Ok(self.column_as::<Int64Array>("offset")?.value(row))
    }

    /// `ts` of the row, in ms.
    pub(crate) fn millis(&self, row: usize) -> Result<i64, Error> {
        Ok(self.column_as::<TimestampMicrosecondArray>("ts")?.value(row).div_euclid(1000))
    }

    /// Values of a list.
    pub(crate) fn list<T: ArrowPrimitiveType>(&self, name: &str, row: usize) -> Result<Vec<T::Native>, Error> {
        let list = self.column(name)?.as_list_opt::<i32>().ok_or_else(|| self.column_error(name))?.value(row);
        Ok(list.as_primitive_opt::<T>().ok_or_else(|| self.column_error(name))?.values().to_vec())
    }

    /// `ts` and `nanos` of the row.
    pub(crate) fn timestamp(&self, row: usize) -> Result<Timestamp, Error> {
        let micros = self.column_as::<TimestampMicrosecondArray>("ts")?.value(row);
        let sub_micro_nanos = self.column_as::<Int32Array>("nanos")?.value(row);
        Ok(Timestamp::from_nanos(micros.saturating_mul(1000).saturating_add(sub_micro_nanos.into())))
    }

    pub(crate) fn labels(&self, name: &str, row: usize) -> Result<Labels, Error> {
        let pairs = self.column_as::<MapArray>(name)?.value(row);
        let texts = |column: usize| {
            pairs.column(column).as_any().downcast_ref::<StringArray>().cloned().ok_or_else(|| self.column_error(name))
        };
        let (names, values) = (texts(0)?, texts(1)?);
        Ok(Labels::new((0..names.len()).map(|index| (names.value(index), values.value(index))).collect()))
    }

    pub(crate) fn span(&self, row: usize) -> Result<Span, Error> {
        let start = self.timestamp(row)?;
        let kind = self.text("kind", row)?;
        let parent = self.column("parent_id")?.as_string_opt::<i32>().ok_or_else(|| self.column_error("parent_id"))?;
        let parent = if parent.is_valid(row) { parent.value(row) } else { "" };
        Ok(Span {
            trace_id: parse_hex_id(self.text("trace_id", row)?),
            span_id: parse_hex_id(self.text("span_id", row)?),
            parent_id: parse_hex_id(parent),
            name: self.text("name", row)?.to_owned(),
            kind: SpanKind::ALL.into_iter().find(|known| known.as_str() == kind).unwrap_or(SpanKind::Internal),
            start,
            end: Timestamp::from_nanos(
                start.nanos().saturating_add(self.column_as::<Int64Array>("duration_ns")?.value(row)),
            ),
            failed: self.column_as::<BooleanArray>("failed")?.value(row),
            labels: self.labels("labels", row)?,
        })
    }
}

pub(crate) fn parse_severity(word: &str) -> Severity {
    let known = [Severity::Critical, Severity::High, Severity::Warning];
    known.into_iter().find(|severity| severity.as_str() == word).unwrap_or(Severity::Info)
}

/// Parses an id from hexadecimal digits; missing digits are zero.
fn parse_hex_id<const N: usize>(digits: &str) -> [u8; N] {
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_default();
    }
    id
}
