//! What a copy of the tables consists of, and whether one is whole.
//!
//! Files of a table are never written anew: commits, checkpoints and data are there or not. So a table of this moment is its log
//! up to the newest version and the files this version names, whoever writes meanwhile. `_last_checkpoint`, which is written
//! anew, is a hint that readers do without.

use std::path::PathBuf;

use crate::{Error, Lake};

/// A file that belongs to the tables as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its name below the lake's folder, with slashes.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What a table holds, all tenants together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// The table.
    pub table: &'static str,
    /// Its version.
    pub version: u64,
    /// Its files.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
}

impl Lake {
    /// Everything that a copy of the tables needs; only of a lake on a local disk.
    ///
    /// # Errors
    /// A table cannot be read, or the lake lies on an object store.
    pub async fn pieces(&self) -> Result<Vec<Piece>, Error> {
        let mut pieces = Vec::new();
        for table in self.all() {
            pieces.extend(table.lock().await.pieces().await?);
        }
        Ok(pieces)
    }

    /// What the tables hold, after a look at whether every file is there in full.
    ///
    /// # Errors
    /// A file is missing or of another size, or a table cannot be read.
    pub async fn check(&self) -> Result<Vec<Holds>, Error> {
        let mut found = Vec::new();
        for table in self.all() {
            let mut table = table.lock().await;
            let files = table.files().await?;
            for file in &files {
                let size = table.size(file).await?;
                if size != file.bytes {
                    let (name, path, wanted) = (table.name(), &file.path, file.bytes);
                    return Err(Error::Damaged(format!("{name}: {path} has {size} bytes, and should have {wanted}")));
                }
            }
            let rows = files.iter().map(|file| file.rows).sum();
            found.push(Holds { table: table.name(), version: table.version(), files: files.len(), rows });
        }
        Ok(found)
    }
}
