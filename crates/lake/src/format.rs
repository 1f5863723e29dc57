//! Table schemas, and the encoding of rows and samples as Parquet. Does not depend on tables or their logs.

pub(crate) mod checksums;
pub(crate) mod data_file;
pub(crate) mod decimal;
pub(crate) mod file_name;
pub(crate) mod parquet_pages;
pub(crate) mod parquet_source;
pub(crate) mod row_buffer;
pub(crate) mod row_reader;
pub(crate) mod sample_file;
pub(crate) mod sample_row_group;
pub(crate) mod schema;
pub(crate) mod sorted_run;
pub(crate) mod table_schemas;
