//! Are all tables there that were written?
//!
//! Problem: a table whose folder is gone has no files that could be damaged, and the next start creates it empty.
//! Model: the bus notes up to where each event table was written. Guarantee: a table that has been written and has no
//! folder is named.

use std::path::Path;

use wardroom_bus::recorded_offsets;
use wardroom_lake::{DamagedFile, Lake};
use wardroom_pipeline::consumer_groups::event_table_mark;

/// Returns the tables of a lake whose folders are missing although rows were written to them.
///
/// # Errors
/// Returns an error if the bus cannot be read.
pub fn missing_tables(data: &Path, lake: &Lake) -> Result<Vec<DamagedFile>, wardroom_bus::Error> {
    let recorded = recorded_offsets(&data.join("bus"))?;
    let written_to = |table: &str| {
        let mark = event_table_mark(table);
        recorded.iter().find(|(what, offset)| what.ends_with(&format!(" {mark}")) && *offset > 0)
    };
    let missing = lake.missing_tables().filter_map(|table| {
        let (_, offset) = written_to(table)?;
        let detail = format!(
            "the table's folder is missing, and rows of requests up to bus offset {offset} were written to it; put the \
             folder back, or restore a backup"
        );
        Some(DamagedFile { path: table.replace('.', "/"), detail })
    });
    Ok(missing.collect())
}
