//! Lists the files that make up the newest version of a table, for backups.

use std::path::PathBuf;

use crate::error::Error;
use crate::table::delta_table::Table;

/// A file of the tables' newest versions: data, commit or checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Name below the lake's folder, with slashes.
    pub name: String,
    /// Path on the local disk.
    pub path: PathBuf,
}

impl Table {
    /// Lists the data files of the newest version and the log files up to it. Local tables only.
    pub(crate) async fn snapshot_files(&mut self) -> Result<Vec<SnapshotFile>, Error> {
        let files = self.files().await?;
        let folder_name = self.schema.name.replace('.', "/");
        let Ok(folder) = self.table.table_url().to_file_path() else {
            return Err(Error::Unavailable(format!("{folder_name} is on an object store")));
        };
        let mut paths: Vec<_> = files.into_iter().map(|file| file.path).collect();
        for entry in std::fs::read_dir(folder.join("_delta_log"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let version = name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
            let is_log_file = name.ends_with(".json") || name.ends_with(".parquet");
            if is_log_file && version.is_some_and(|version| version <= self.version()) {
                paths.push(format!("_delta_log/{name}"));
            }
        }
        let snapshot_file =
            |path: String| SnapshotFile { path: folder.join(&path), name: format!("{folder_name}/{path}") };
        Ok(paths.into_iter().map(snapshot_file).collect())
    }
}
