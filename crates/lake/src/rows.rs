//! Rows of the smaller tables: gathered column by column, written as Parquet, and back.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltalake_core::arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int32Builder, Int64Array, Int64Builder, ListBuilder,
    MapArray, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder, new_null_array,
};
use deltalake_core::arrow::datatypes::{DataType, Field, SchemaRef};
use deltalake_core::parquet::arrow::ArrowWriter;
use deltalake_core::parquet::arrow::ProjectionMask;
use deltalake_core::parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};
use deltalake_core::parquet::file::properties::WriterPropertiesBuilder;
use deltalake_core::parquet::schema::types::SchemaDescriptor;
use wardroom_domain::{Labels, TenantId, Timestamp};

use crate::samples::{DataFile, Use, common};
use crate::source::Source;
use crate::spec::{Kind, Spec, element};
use crate::{Error, SCHEMA_VERSION, TOPIC};

/// Rows that go to the Parquet writer at once.
const BATCH: usize = 1 << 13;
/// The same of rows that go there as they come.
const FEW: usize = 1 << 10;
/// And their pages before they are compressed, about, in bytes.
const PAGE_BYTES: usize = 128 << 10;

/// What stands in one column of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Long(i64),
    Int(i32),
    Double(f64),
    Text(&'a str),
    /// Microseconds since the epoch.
    Moment(i64),
    Labels(&'a Labels),
    Texts(&'a [&'a str]),
    Longs(&'a [i64]),
    Doubles(&'a [f64]),
    Flag(bool),
    Nothing,
}

/// Where a row came from: the last columns of every table but that of samples.
#[derive(Clone, Debug)]
pub(crate) struct Lineage {
    offset: i64,
    src_uri: String,
    received_us: i64,
}

impl Lineage {
    /// A request on the bus.
    pub(crate) fn of(offset: u64, received_at: Timestamp) -> Self {
        Self {
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            src_uri: format!("bus://{TOPIC}/0/{offset}"),
            received_us: micros(received_at),
        }
    }

    /// When the request was received, in µs.
    pub(crate) const fn received_us(&self) -> i64 {
        self.received_us
    }

    fn cells(&self) -> [Cell<'_>; 6] {
        [
            Cell::Text(TOPIC),
            Cell::Int(0),
            Cell::Long(self.offset),
            Cell::Int(SCHEMA_VERSION),
            Cell::Text(&self.src_uri),
            Cell::Moment(self.received_us),
        ]
    }
}

/// Microseconds since the epoch.
pub(crate) const fn micros(at: Timestamp) -> i64 {
    at.nanos().div_euclid(1000)
}

enum Column {
    Long(Int64Builder),
    Int(Int32Builder),
    Double(Float64Builder),
    Text(StringBuilder),
    Moment(TimestampMicrosecondBuilder),
    Labels(MapBuilder<StringBuilder, StringBuilder>),
    Texts(ListBuilder<StringBuilder>),
    Longs(ListBuilder<Int64Builder>),
    Doubles(ListBuilder<Float64Builder>),
    Flag(BooleanBuilder),
}

/// Rows of one tenant and one day, on their way into a file.
pub(crate) struct Rows {
    spec: &'static Spec,
    tenant: TenantId,
    day: i64,
    columns: Vec<Column>,
    rows: usize,
    /// First and last of the column `ts`, in µs, where the table has one.
    span_us: Option<(i64, i64)>,
    full: Vec<RecordBatch>,
    /// Where full batches go instead, if nobody looks at them before the file is finished.
    writer: Option<ArrowWriter<Vec<u8>>>,
}

impl Rows {
    pub(crate) fn new(spec: &'static Spec, tenant: TenantId, day: i64) -> Self {
        let columns = spec.columns().map(|column| builder(column.kind)).collect();
        Self { spec, tenant, day, columns, rows: 0, span_us: None, full: Vec::new(), writer: None }
    }

    /// The same, for rows that nobody looks at before they are in their file: what is full is encoded at once, so that many of
    /// them take little memory.
    pub(crate) fn encoded(spec: &'static Spec, tenant: TenantId, day: i64) -> Result<Self, Error> {
        let properties = common(Use::Stay)?.set_data_page_size_limit(PAGE_BYTES);
        Ok(Self { writer: Some(writer(spec, properties)?), ..Self::new(spec, tenant, day) })
    }

    /// Adds a row: its own cells in the order of the table's columns, then where it came from.
    pub(crate) fn push(&mut self, own: &[Cell<'_>], lineage: &Lineage) -> Result<(), Error> {
        let cells = own.iter().copied().chain(lineage.cells());
        let named = self.spec.columns().zip(&mut self.columns);
        debug_assert_eq!(self.spec.own.len(), own.len(), "{}: a cell for every column", self.spec.name);
        for ((column, into), cell) in named.zip(cells) {
            match (into, cell) {
                (Column::Long(into), Cell::Long(value)) => into.append_value(value),
                (Column::Int(into), Cell::Int(value)) => into.append_value(value),
                (Column::Double(into), Cell::Double(value)) => into.append_value(value),
                (Column::Text(into), Cell::Text(value)) => into.append_value(value),
                (Column::Flag(into), Cell::Flag(value)) => into.append_value(value),
                (Column::Long(into), Cell::Nothing) if column.nullable => into.append_null(),
                (Column::Double(into), Cell::Nothing) if column.nullable => into.append_null(),
                (Column::Text(into), Cell::Nothing) if column.nullable => into.append_null(),
                (Column::Moment(into), Cell::Nothing) if column.nullable => into.append_null(),
                (Column::Moment(into), Cell::Moment(value)) => {
                    if column.name == "ts" {
                        let (first, last) = self.span_us.unwrap_or((value, value));
                        self.span_us = Some((first.min(value), last.max(value)));
                    }
                    into.append_value(value);
                }
                (Column::Texts(into), Cell::Texts(values)) => {
                    values.iter().for_each(|value| into.values().append_value(value));
                    into.append(true);
                }
                (Column::Longs(into), Cell::Longs(values)) => {
                    into.values().append_slice(values);
                    into.append(true);
                }
                (Column::Doubles(into), Cell::Doubles(values)) => {
                    into.values().append_slice(values);
                    into.append(true);
                }
                (Column::Labels(into), Cell::Labels(labels)) => {
                    for (name, value) in labels.iter() {
                        into.keys().append_value(name);
                        into.values().append_value(value);
                    }
                    into.append(true)?;
                }
                (_, cell) => {
                    let what = format!("{}.{}: {cell:?} is of another type", self.spec.name, column.name);
                    return Err(Error::Damaged(what));
                }
            }
        }
        self.rows += 1;
        if self.rows.is_multiple_of(if self.writer.is_some() { FEW } else { BATCH }) {
            self.close()?;
        }
        Ok(())
    }

    /// The table they are for.
    pub(crate) const fn table(&self) -> &'static str {
        self.spec.name
    }

    pub(crate) const fn len(&self) -> usize {
        self.rows
    }

    /// Rows since the last call become a batch.
    fn close(&mut self) -> Result<(), Error> {
        let columns = self.columns.iter_mut().map(|column| -> ArrayRef {
            match column {
                Column::Long(column) => Arc::new(column.finish()),
                Column::Int(column) => Arc::new(column.finish()),
                Column::Double(column) => Arc::new(column.finish()),
                Column::Text(column) => Arc::new(column.finish()),
                Column::Moment(column) => Arc::new(column.finish()),
                Column::Labels(column) => Arc::new(column.finish()),
                Column::Texts(column) => Arc::new(column.finish()),
                Column::Longs(column) => Arc::new(column.finish()),
                Column::Doubles(column) => Arc::new(column.finish()),
                Column::Flag(column) => Arc::new(column.finish()),
            }
        });
        let batch = RecordBatch::try_new(self.spec.arrow(), columns.collect())?;
        match &mut self.writer {
            Some(writer) => writer.write(&batch)?,
            None if batch.num_rows() > 0 => self.full.push(batch),
            None => {}
        }
        Ok(())
    }

    /// What has come so far.
    pub(crate) fn batches(&mut self) -> Result<Vec<RecordBatch>, Error> {
        self.close()?;
        Ok(self.full.clone())
    }

    /// The file.
    pub(crate) fn finish(mut self) -> Result<DataFile, Error> {
        self.close()?;
        let mut writer = self.writer.take().map_or_else(|| writer(self.spec, common(Use::Stay)?), Ok)?;
        for batch in &self.full {
            writer.write(batch)?;
        }
        let mut stats = serde_json::json!({ "numRecords": self.rows });
        if let Some((first, last)) = self.span_us {
            let text = |us: i64| Timestamp::from_nanos(us.saturating_mul(1000)).to_string();
            stats["minValues"] = serde_json::json!({ "ts": text(first) });
            stats["maxValues"] = serde_json::json!({ "ts": text(last) });
        }
        Ok(DataFile { tenant: self.tenant, day: self.day, bytes: writer.into_inner()?.into(), stats })
    }
}

fn writer(spec: &Spec, properties: WriterPropertiesBuilder) -> Result<ArrowWriter<Vec<u8>>, Error> {
    Ok(ArrowWriter::try_new(Vec::new(), spec.arrow(), Some(properties.build()))?)
}

fn builder(kind: Kind) -> Column {
    match kind {
        Kind::Long => Column::Long(Int64Builder::new()),
        Kind::Int => Column::Int(Int32Builder::new()),
        Kind::Double => Column::Double(Float64Builder::new()),
        Kind::Moment => Column::Moment(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
        Kind::Flag => Column::Flag(BooleanBuilder::new()),
        Kind::Texts => Column::Texts(ListBuilder::new(StringBuilder::new()).with_field(element(DataType::Utf8))),
        Kind::Longs => Column::Longs(ListBuilder::new(Int64Builder::new()).with_field(element(DataType::Int64))),
        Kind::Doubles => {
            Column::Doubles(ListBuilder::new(Float64Builder::new()).with_field(element(DataType::Float64)))
        }
        Kind::Labels => {
            let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
            let map = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
            Column::Labels(map.with_values_field(Field::new("value", DataType::Utf8, false)))
        }
        // Only samples have bytes, and these have a writer of their own.
        Kind::Byte | Kind::Text => Column::Text(StringBuilder::new()),
    }
}

/// Rows of a file with the columns of today: those that came since are empty.
pub(crate) fn fitted(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, Error> {
    let empty = |field: &Field| new_null_array(field.data_type(), batch.num_rows());
    let columns =
        schema.fields().iter().map(|field| batch.column_by_name(field.name()).cloned().unwrap_or_else(|| empty(field)));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect())?)
}

fn odd(what: &str) -> impl Fn() -> Error {
    move || Error::Damaged(format!("{what}: a column is missing or of another type"))
}

/// Rows whose column `name` has one of these.
pub(crate) fn named(schema: &SchemaDescriptor, names: BTreeSet<String>) -> RowFilter {
    let mask = ProjectionMask::columns(schema, ["name"]);
    let named = ArrowPredicateFn::new(mask, move |batch: RecordBatch| {
        let column = batch.column(0).as_string::<i32>();
        Ok(column.iter().map(|name| name.map(|name| names.contains(name))).collect())
    });
    RowFilter::new(vec![Box::new(named)])
}

/// The label sets of a file of `silver.series`, by their numbers; those under some names only, if they are given.
pub(crate) fn labels(file: Source, names: Option<&BTreeSet<&str>>) -> Result<Vec<(i64, Labels)>, Error> {
    let odd = odd("silver.series");
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    if let Some(names) = names {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let named = named(builder.parquet_schema(), names);
        builder = builder.with_row_filter(named);
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["series_id", "labels"]);
    let mut found = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let ids = batch.column_by_name("series_id").and_then(|column| column.as_any().downcast_ref::<Int64Array>());
        let maps = batch.column_by_name("labels").and_then(|column| column.as_any().downcast_ref::<MapArray>());
        let (ids, maps) = (ids.ok_or_else(&odd)?, maps.ok_or_else(&odd)?);
        for at in 0..batch.num_rows() {
            let pairs = maps.value(at);
            let texts = |column: usize| pairs.column(column).as_any().downcast_ref::<StringArray>().cloned();
            let (names, values) = (texts(0).ok_or_else(&odd)?, texts(1).ok_or_else(&odd)?);
            let pairs = (0..names.len()).map(|at| (names.value(at), values.value(at))).collect();
            found.push((ids.value(at), Labels::new(pairs)));
        }
    }
    Ok(found)
}

/// The requests whose rows a file holds: when each was received (µs) and the hash of its body, with its offset.
pub(crate) fn requests(file: Source) -> Result<Vec<Request>, Error> {
    let odd = odd("requests");
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["request", "offset", "received_at"]);
    let mut found: Vec<Request> = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let long =
            |name: &str| batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<Int64Array>());
        // A file from before there was such a column.
        let Some(hashes) = long("request") else { continue };
        let offsets = long("offset").ok_or_else(&odd)?;
        let times = batch.column_by_name("received_at");
        let times = times.and_then(|column| column.as_any().downcast_ref::<TimestampMicrosecondArray>());
        let times = times.ok_or_else(&odd)?;
        for at in (0..batch.num_rows()).filter(|at| hashes.is_valid(*at)) {
            let request = Request {
                offset: u64::try_from(offsets.value(at)).unwrap_or_default(),
                fingerprint: hashes.value(at).cast_unsigned(),
                received_us: times.value(at),
            };
            if found.last() != Some(&request) {
                found.push(request);
            }
        }
    }
    Ok(found)
}

/// A request as it is recognised when it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Where it stands on the bus.
    pub offset: u64,
    /// Hash of its body.
    pub fingerprint: u64,
    /// When it was received, in µs.
    pub received_us: i64,
}
