//! Column types of the tables.
//!
//! The Delta schema (with comments) and the Parquet schema of a table are both built from its [`TableSchema`]. Tenant
//! and day are the partitions of every table and are not listed. Adding a nullable column is the only change that an
//! existing table supports.

use std::sync::Arc;

use deltalake_core::arrow::datatypes::{DataType as Arrow, Field, Schema, SchemaRef, TimeUnit};
use deltalake_core::kernel::{ArrayType, DataType, MapType, MetadataValue, PrimitiveType, StructField};

/// Name and columns of a table.
#[derive(Debug)]
pub(crate) struct TableSchema {
    /// Layer and name, such as `silver.logs`.
    pub(crate) name: &'static str,
    /// What a row is.
    pub(crate) comment: &'static str,
    /// Columns without entity, lineage and partitions.
    pub(crate) columns: &'static [Column],
    /// Whether the columns of the entity follow.
    pub(crate) entity: bool,
    /// Whether the lineage columns follow.
    pub(crate) lineage: bool,
}

/// A column of a table.
#[derive(Debug)]
pub(crate) struct Column {
    /// Name.
    pub(crate) name: &'static str,
    /// Type.
    pub(crate) column_type: ColumnType,
    /// Whether rows may lack it.
    pub(crate) nullable: bool,
    /// What it holds, with its unit.
    pub(crate) comment: &'static str,
}

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnType {
    /// 64-bit signed integer.
    Long,
    /// 32-bit signed integer.
    Int,
    /// 8-bit signed integer.
    Byte,
    /// 64-bit IEEE 754.
    Double,
    /// UTF-8.
    Text,
    /// Microseconds since the epoch, UTC.
    Timestamp,
    /// Map of text to text.
    Labels,
    /// List of `Text`.
    Texts,
    /// List of `Long`.
    Longs,
    /// List of `Double`.
    Doubles,
    /// Boolean.
    Boolean,
}

impl ColumnType {
    fn delta_type(self) -> DataType {
        DataType::Primitive(match self {
            Self::Long => PrimitiveType::Long,
            Self::Int => PrimitiveType::Integer,
            Self::Byte => PrimitiveType::Byte,
            Self::Double => PrimitiveType::Double,
            Self::Text => PrimitiveType::String,
            Self::Timestamp => PrimitiveType::Timestamp,
            Self::Boolean => PrimitiveType::Boolean,
            Self::Texts => return list_type(PrimitiveType::String),
            Self::Longs => return list_type(PrimitiveType::Long),
            Self::Doubles => return list_type(PrimitiveType::Double),
            Self::Labels => {
                let text = || DataType::Primitive(PrimitiveType::String);
                return DataType::Map(Box::new(MapType::new(text(), text(), false)));
            }
        })
    }

    fn arrow_type(self) -> Arrow {
        match self {
            Self::Long => Arrow::Int64,
            Self::Int => Arrow::Int32,
            Self::Byte => Arrow::Int8,
            Self::Double => Arrow::Float64,
            Self::Text => Arrow::Utf8,
            Self::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Boolean => Arrow::Boolean,
            Self::Texts => Arrow::List(list_element(Arrow::Utf8)),
            Self::Longs => Arrow::List(list_element(Arrow::Int64)),
            Self::Doubles => Arrow::List(list_element(Arrow::Float64)),
            Self::Labels => {
                let pair = vec![Field::new("key", Arrow::Utf8, false), Field::new("value", Arrow::Utf8, false)];
                Arrow::Map(Arc::new(Field::new("key_value", Arrow::Struct(pair.into()), false)), false)
            }
        }
    }
}

fn list_type(element_type: PrimitiveType) -> DataType {
    DataType::Array(Box::new(ArrayType::new(DataType::Primitive(element_type), false)))
}

/// Returns the Arrow field of list elements.
pub(crate) fn list_element(element_type: Arrow) -> Arc<Field> {
    Arc::new(Field::new("element", element_type, false))
}

impl TableSchema {
    /// Returns all columns, including entity and lineage.
    pub(crate) fn all_columns(&self) -> impl Iterator<Item = &'static Column> {
        let entity: &[Column] = if self.entity { &ENTITY } else { &[] };
        let lineage: &[Column] = if self.lineage { &LINEAGE } else { &[] };
        self.columns.iter().chain(entity).chain(lineage)
    }

    /// Returns the schema of a Parquet file.
    pub(crate) fn arrow_schema(&self) -> SchemaRef {
        let fields =
            self.all_columns().map(|column| Field::new(column.name, column.column_type.arrow_type(), column.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Returns the schema of the Delta table, including partitions.
    pub(crate) fn delta_fields(&self) -> Vec<StructField> {
        let data_columns = self.all_columns().map(|column| {
            let field = StructField::new(column.name, column.column_type.delta_type(), column.nullable);
            field.with_metadata([("comment", MetadataValue::String(column.comment.to_owned()))])
        });
        let partitions = [
            StructField::new("tenant", DataType::Primitive(PrimitiveType::String), false),
            StructField::new("day", DataType::Primitive(PrimitiveType::Date), false),
        ];
        data_columns.chain(partitions).collect()
    }
}

pub(crate) const fn required(name: &'static str, column_type: ColumnType, comment: &'static str) -> Column {
    Column { name, column_type, nullable: false, comment }
}

pub(crate) const fn optional(name: &'static str, column_type: ColumnType, comment: &'static str) -> Column {
    Column { name, column_type, nullable: true, comment }
}

/// Columns that say what a row is about. Null in rows of builds before entities, and where a part is unknown.
const ENTITY: [Column; 5] = [
    optional(
        "entity_kind",
        ColumnType::Text,
        "kind of the entity, such as `service`, `workload`, `node` or `database`",
    ),
    optional("entity_name", ColumnType::Text, "name of the entity within its namespace. Untrusted text"),
    optional("namespace", ColumnType::Text, "namespace of the entity"),
    optional("environment", ColumnType::Text, "deployment environment of the entity, such as `prod`"),
    // Not `cluster`, which SQL would want in quotes.
    optional("cluster_name", ColumnType::Text, "cluster of the entity"),
];

/// Columns that say where a row comes from.
const LINEAGE: [Column; 6] = [
    required("topic", ColumnType::Text, "bus topic"),
    required("partition", ColumnType::Int, "partition of the topic"),
    required("offset", ColumnType::Long, "offset of the request on the bus"),
    required("schema_version", ColumnType::Int, "version of these columns"),
    required("src_uri", ColumnType::Text, "location of the request as received"),
    required("received_at", ColumnType::Timestamp, "when the request was received"),
];
