//! Queries over everything that is retained: live series, tables and bus.

mod bus_scan;
mod cursor;
pub mod dump;
pub mod query_error;
pub mod sample_reader;
pub mod series_data;
