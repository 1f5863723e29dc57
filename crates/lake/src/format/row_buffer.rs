//! Collects rows of the smaller tables column by column, and writes them as Parquet.

use std::sync::Arc;

use deltalake_core::arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, ListBuilder, MapBuilder, MapFieldNames,
    RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use deltalake_core::arrow::datatypes::{DataType, Field};
use deltalake_core::parquet::arrow::ArrowWriter;
use deltalake_core::parquet::file::properties::WriterPropertiesBuilder;
use wardroom_domain::{Entity, Labels, TenantId, Timestamp};

use crate::error::Error;
use crate::format::checksums::{FinishedFile, finish_arrow_file};
use crate::format::data_file::{DataFile, FilePurpose, writer_properties};
use crate::format::schema::{ColumnType, TableSchema, list_element};

/// Rows per record batch.
const BATCH_ROWS: usize = 1 << 13;
/// Rows per record batch of a streaming buffer.
const STREAMED_BATCH_ROWS: usize = 1 << 10;
/// Approximate page size of a streaming buffer before compression, in bytes.
const PAGE_BYTES: usize = 128 << 10;

/// A value of one column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Long(i64),
    Int(i32),
    Double(f64),
    Text(&'a str),
    /// Microseconds since the epoch.
    Timestamp(i64),
    Labels(&'a Labels),
    Texts(&'a [&'a str]),
    Longs(&'a [i64]),
    Doubles(&'a [f64]),
    Boolean(bool),
    Null,
}

/// Where a row comes from: the last columns of every table except samples.
#[derive(Clone, Debug)]
pub(crate) struct Lineage {
    offset: i64,
    src_uri: String,
    received_us: i64,
}

impl Lineage {
    /// A request at this bus offset.
    pub(crate) fn new(offset: u64, received_at: Timestamp) -> Self {
        Self {
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            src_uri: format!("bus://{BUS_TOPIC}/0/{offset}"),
            received_us: micros(received_at),
        }
    }

    /// When the request was received, in µs since the epoch.
    pub(crate) const fn received_us(&self) -> i64 {
        self.received_us
    }

    fn cells(&self) -> [Cell<'_>; 6] {
        [
            Cell::Text(BUS_TOPIC),
            Cell::Int(0),
            Cell::Long(self.offset),
            Cell::Int(SCHEMA_VERSION),
            Cell::Text(&self.src_uri),
            Cell::Timestamp(self.received_us),
        ]
    }
}

/// Returns the cells of an entity, all null if it has no name. What is unknown of it is null.
pub(crate) fn entity_cells(entity: &Entity) -> [Cell<'_>; 5] {
    let known = |text| Some(text).filter(|text: &&str| !text.is_empty()).map_or(Cell::Null, Cell::Text);
    if entity.is_empty() {
        return [Cell::Null; 5];
    }
    let Entity { kind, cluster, environment, namespace, name } = entity;
    [Cell::Text(kind.as_str()), Cell::Text(name), known(namespace), known(environment), known(cluster)]
}

/// Converts to microseconds since the epoch.
pub(crate) const fn micros(at: Timestamp) -> i64 {
    at.nanos().div_euclid(1000)
}

/// Nanoseconds beyond the microsecond.
pub(crate) const fn sub_micro_nanos(at: Timestamp) -> i32 {
    at.nanos().rem_euclid(1000) as i32
}

enum ColumnBuilder {
    Long(Int64Builder),
    Int(Int32Builder),
    Double(Float64Builder),
    Text(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Labels(MapBuilder<StringBuilder, StringBuilder>),
    Texts(ListBuilder<StringBuilder>),
    Longs(ListBuilder<Int64Builder>),
    Doubles(ListBuilder<Float64Builder>),
    Boolean(BooleanBuilder),
}

/// Rows of one table, tenant and day that will become a file.
pub(crate) struct RowBuffer {
    schema: &'static TableSchema,
    tenant: TenantId,
    day: i64,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    /// Earliest and latest `ts`, in µs.
    span_us: Option<(i64, i64)>,
    batches: Vec<RecordBatch>,
    /// Writer of a streaming buffer; full batches go there instead of `batches`.
    writer: Option<ArrowWriter<Vec<u8>>>,
}

impl RowBuffer {
    pub(crate) fn new(schema: &'static TableSchema, tenant: TenantId, day: i64) -> Self {
        let columns = schema.all_columns().map(|column| builder(column.column_type)).collect();
        Self { schema, tenant, day, columns, rows: 0, span_us: None, batches: Vec::new(), writer: None }
    }

    /// Like [`new`](Self::new), for rows that no query needs before their file is finished: full batches are encoded at
    /// once, so that many buffers take little memory.
    pub(crate) fn streaming(schema: &'static TableSchema, tenant: TenantId, day: i64) -> Result<Self, Error> {
        let properties = writer_properties(FilePurpose::LongLived)?.set_data_page_size_limit(PAGE_BYTES);
        Ok(Self { writer: Some(writer(schema, properties)?), ..Self::new(schema, tenant, day) })
    }

    /// Appends a row: its own cells in column order, then its entity if the table has one, then its lineage.
    pub(crate) fn push(
        &mut self,
        own_cells: &[Cell<'_>],
        entity: Option<&Entity>,
        lineage: &Lineage,
    ) -> Result<(), Error> {
        debug_assert_eq!(self.schema.entity, entity.is_some(), "{}: an entity if the table has one", self.schema.name);
        let cells = own_cells.iter().copied().chain(entity.into_iter().flat_map(entity_cells)).chain(lineage.cells());
        let columns = self.schema.all_columns().zip(&mut self.columns);
        debug_assert_eq!(self.schema.columns.len(), own_cells.len(), "{}: a cell for every column", self.schema.name);
        for ((column, into), cell) in columns.zip(cells) {
            match (into, cell) {
                (ColumnBuilder::Long(into), Cell::Long(value)) => into.append_value(value),
                (ColumnBuilder::Int(into), Cell::Int(value)) => into.append_value(value),
                (ColumnBuilder::Double(into), Cell::Double(value)) => into.append_value(value),
                (ColumnBuilder::Text(into), Cell::Text(value)) => into.append_value(value),
                (ColumnBuilder::Boolean(into), Cell::Boolean(value)) => into.append_value(value),
                (ColumnBuilder::Long(into), Cell::Null) if column.nullable => into.append_null(),
                (ColumnBuilder::Double(into), Cell::Null) if column.nullable => into.append_null(),
                (ColumnBuilder::Text(into), Cell::Null) if column.nullable => into.append_null(),
                (ColumnBuilder::Timestamp(into), Cell::Null) if column.nullable => into.append_null(),
                (ColumnBuilder::Timestamp(into), Cell::Timestamp(value)) => {
                    if column.name == "ts" {
                        let (first, last) = self.span_us.unwrap_or((value, value));
                        self.span_us = Some((first.min(value), last.max(value)));
                    }
                    into.append_value(value);
                }
                (ColumnBuilder::Texts(into), Cell::Texts(values)) => {
                    values.iter().for_each(|value| into.values().append_value(value));
                    into.append(true);
                }
                (ColumnBuilder::Longs(into), Cell::Longs(values)) => {
                    into.values().append_slice(values);
                    into.append(true);
                }
                (ColumnBuilder::Doubles(into), Cell::Doubles(values)) => {
                    into.values().append_slice(values);
                    into.append(true);
                }
                (ColumnBuilder::Labels(into), Cell::Labels(labels)) => {
                    for (name, value) in labels.iter() {
                        into.keys().append_value(name);
                        into.values().append_value(value);
                    }
                    into.append(true)?;
                }
                _ => {
                    let detail = format!("{}.{}: a value has another type", self.schema.name, column.name);
                    return Err(Error::Damaged(detail));
                }
            }
        }
        self.rows += 1;
        if self.rows.is_multiple_of(if self.writer.is_some() { STREAMED_BATCH_ROWS } else { BATCH_ROWS }) {
            self.finish_batch()?;
        }
        Ok(())
    }

    /// Table of the rows.
    pub(crate) const fn table(&self) -> &'static str {
        self.schema.name
    }

    /// Number of rows.
    pub(crate) const fn len(&self) -> usize {
        self.rows
    }

    /// Turns the rows since the last call into a batch.
    fn finish_batch(&mut self) -> Result<(), Error> {
        let columns = self.columns.iter_mut().map(|column| -> ArrayRef {
            match column {
                ColumnBuilder::Long(column) => Arc::new(column.finish()),
                ColumnBuilder::Int(column) => Arc::new(column.finish()),
                ColumnBuilder::Double(column) => Arc::new(column.finish()),
                ColumnBuilder::Text(column) => Arc::new(column.finish()),
                ColumnBuilder::Timestamp(column) => Arc::new(column.finish()),
                ColumnBuilder::Labels(column) => Arc::new(column.finish()),
                ColumnBuilder::Texts(column) => Arc::new(column.finish()),
                ColumnBuilder::Longs(column) => Arc::new(column.finish()),
                ColumnBuilder::Doubles(column) => Arc::new(column.finish()),
                ColumnBuilder::Boolean(column) => Arc::new(column.finish()),
            }
        });
        let batch = RecordBatch::try_new(self.schema.arrow_schema(), columns.collect())?;
        match &mut self.writer {
            Some(writer) => writer.write(&batch)?,
            None if batch.num_rows() > 0 => self.batches.push(batch),
            None => {}
        }
        Ok(())
    }

    /// Returns the rows so far.
    pub(crate) fn batches(&mut self) -> Result<Vec<RecordBatch>, Error> {
        self.finish_batch()?;
        Ok(self.batches.clone())
    }

    /// Returns the file.
    pub(crate) fn finish(mut self) -> Result<DataFile, Error> {
        self.finish_batch()?;
        let mut writer =
            self.writer.take().map_or_else(|| writer(self.schema, writer_properties(FilePurpose::LongLived)?), Ok)?;
        for batch in &self.batches {
            writer.write(batch)?;
        }
        let mut stats = serde_json::json!({ "numRecords": self.rows });
        if let Some((first, last)) = self.span_us {
            let text = |us: i64| Timestamp::from_nanos(us.saturating_mul(1000)).to_string();
            stats["minValues"] = serde_json::json!({ "ts": text(first) });
            stats["maxValues"] = serde_json::json!({ "ts": text(last) });
        }
        let FinishedFile { bytes, tail_start } = finish_arrow_file(writer)?;
        Ok(DataFile { tenant: self.tenant, day: self.day, bytes, tail_start, stats })
    }
}

fn writer(schema: &TableSchema, properties: WriterPropertiesBuilder) -> Result<ArrowWriter<Vec<u8>>, Error> {
    Ok(ArrowWriter::try_new(Vec::new(), schema.arrow_schema(), Some(properties.build()))?)
}

fn builder(column_type: ColumnType) -> ColumnBuilder {
    match column_type {
        ColumnType::Long => ColumnBuilder::Long(Int64Builder::new()),
        ColumnType::Int => ColumnBuilder::Int(Int32Builder::new()),
        ColumnType::Double => ColumnBuilder::Double(Float64Builder::new()),
        ColumnType::Timestamp => ColumnBuilder::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
        ColumnType::Boolean => ColumnBuilder::Boolean(BooleanBuilder::new()),
        ColumnType::Texts => {
            ColumnBuilder::Texts(ListBuilder::new(StringBuilder::new()).with_field(list_element(DataType::Utf8)))
        }
        ColumnType::Longs => {
            ColumnBuilder::Longs(ListBuilder::new(Int64Builder::new()).with_field(list_element(DataType::Int64)))
        }
        ColumnType::Doubles => {
            ColumnBuilder::Doubles(ListBuilder::new(Float64Builder::new()).with_field(list_element(DataType::Float64)))
        }
        ColumnType::Labels => {
            let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
            let map = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
            ColumnBuilder::Labels(map.with_values_field(Field::new("value", DataType::Utf8, false)))
        }
        // Only samples have bytes, and they have their own writer.
        ColumnType::Byte | ColumnType::Text => ColumnBuilder::Text(StringBuilder::new()),
    }
}

/// Bus topic whose records the tables hold.
pub(crate) const BUS_TOPIC: &str = "telemetry";
/// Version of the tables' columns.
pub(crate) const SCHEMA_VERSION: i32 = 1;
