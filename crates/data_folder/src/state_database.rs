//! Is the state database there?
//!
//! Problem: a database that was deleted would be created again, without tokens: every sender gets 401 and drops its
//! data, and incidents and the audit log are gone without a word. Model: a missing or empty database is created only in
//! a data folder that holds nothing else that a server writes, or on explicit request.

use std::path::{Path, PathBuf};

use wardroom_bus::has_records;
use wardroom_pipeline::state::checkpoint;
use wardroom_store::database_path;

/// The state database is missing, although the data folder has data.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state database {} is missing or empty, but the data folder has {found}. Without the database every sender is \
     refused, and incidents and the audit log are lost. Put it back, or restore a backup to a new folder; to go on \
     with an empty one, run `wardroom token create --new-database --data {} …`",
    .path.display(), .data.display()
)]
pub struct MissingState {
    path: PathBuf,
    data: PathBuf,
    /// What the data folder has.
    found: &'static str,
}

/// Checks that the state database exists, or that the data folder is new.
///
/// # Errors
/// Returns an error if the database is missing or empty and the folder has data that a server wrote.
pub fn require_state(data: &Path) -> Result<(), MissingState> {
    let path = database_path(data);
    // Recent changes may be in the write-ahead log only.
    let has_bytes = |path: PathBuf| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    if has_bytes(path.clone()) || has_bytes(path.with_extension("db-wal")) && path.exists() {
        return Ok(());
    }
    match data_found(data) {
        Some(found) => Err(MissingState { path, data: data.to_owned(), found }),
        None => Ok(()),
    }
}

/// Returns what the folder has that a server writes only after it has created the database. A folder that cannot be
/// read counts as data.
fn data_found(data: &Path) -> Option<&'static str> {
    let has_entries =
        |folder: &Path| folder.is_dir() && std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    let ledger = std::fs::metadata(data.join("executor/ledger.jsonl"));
    let checkpoint = checkpoint::newest_offset(&data.join("checkpoint"));
    [
        (has_records(&data.join("bus")).unwrap_or(true), "telemetry on the bus"),
        (checkpoint.map_or(true, |newest| newest.is_some()), "checkpoints"),
        (has_entries(&data.join("lake")), "tables"),
        (has_records(&data.join("dead-letters")).unwrap_or(true), "dead letters"),
        (ledger.is_ok_and(|file| file.len() > 0), "a ledger of executed plans"),
    ]
    .into_iter()
    .find_map(|(is_there, what)| is_there.then_some(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_database_is_an_error_beside_data_only() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert!(require_state(&data.join("missing")).is_ok());
        assert!(require_state(data).is_ok(), "a new folder");
        // What a server creates before the database.
        for folder in ["bus", "state", "checkpoint", "dead-letters", "lake", "executor"] {
            std::fs::create_dir(data.join(folder)).unwrap();
        }
        std::fs::write(data.join("bus/00000000000000000000.seg"), "").unwrap();
        std::fs::write(data.join("executor/ledger.jsonl"), "").unwrap();
        assert!(require_state(data).is_ok(), "an interrupted first start");
        for (file, what) in [
            ("bus/00000000000000000000.seg", "telemetry on the bus"),
            ("checkpoint/00000000000000000007.state", "checkpoints"),
            ("lake/silver", "tables"),
            ("dead-letters/00000000000000000000.seg", "dead letters"),
            ("executor/ledger.jsonl", "a ledger of executed plans"),
        ] {
            let path = data.join(file);
            std::fs::write(&path, "x").unwrap();
            let refused = require_state(data).unwrap_err().to_string();
            assert!(refused.contains(what), "{file}: {refused}");
            std::fs::write(database_path(data), "").unwrap();
            assert!(require_state(data).is_err(), "{file}: an empty file is no database");
            std::fs::write(database_path(data), "database").unwrap();
            assert!(require_state(data).is_ok(), "{file}");
            std::fs::remove_file(database_path(data)).unwrap();
            std::fs::remove_file(&path).unwrap();
        }
    }
}
