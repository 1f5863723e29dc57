//! Where the tables of a lake are, and how their files are read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use deltalake_core::{DeltaTable, DeltaTableBuilder, ObjectStore, Path};
use url::Url;

use crate::damaged_files::DamagedFiles;
use crate::error::Error;
use crate::format::schema::TableSchema;
use crate::table::local_disk::LocalDisk;
use crate::table::remote_store::{open_store, register_object_stores};
use crate::table::verified_store::VerifiedStore;

/// Where the tables of a lake are.
#[derive(Clone, Debug)]
pub(crate) struct LakeLocation {
    /// URL of the folder of all tables.
    pub(crate) root: Url,
    /// Options of the object store.
    pub(crate) options: HashMap<String, String>,
    /// The file system of a local lake that is opened for writing.
    pub(crate) disk: Option<Arc<LocalDisk>>,
    /// Store with `/` at the root of the file system or bucket. Data files are compared with their checksums.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Damaged files that reads have found.
    pub(crate) damaged_files: DamagedFiles,
}

impl LakeLocation {
    /// Connects to the store of this folder of tables.
    ///
    /// # Errors
    /// Returns an error if the location or an option is invalid.
    pub(crate) fn open(
        root: Url,
        options: &BTreeMap<String, String>,
        disk: Option<Arc<LocalDisk>>,
    ) -> Result<Self, Error> {
        let options: HashMap<String, String> = options.clone().into_iter().collect();
        register_object_stores(&root, &options)?;
        let folder = Path::from_url_path(root.path()).map_err(|error| Error::Unavailable(error.to_string()))?;
        let damaged_files = DamagedFiles::default();
        let store = Arc::new(VerifiedStore::new(open_store(&root, &options)?, folder, damaged_files.clone()));
        Ok(Self { root, options, disk, store, damaged_files })
    }

    /// Returns a table below the root, without reading it.
    pub(crate) fn table(&self, schema: &TableSchema) -> Result<DeltaTable, Error> {
        let url = self.table_url(schema)?;
        let builder = DeltaTableBuilder::from_url(url.clone())?.with_storage_options(self.options.clone());
        Ok(builder.with_storage_backend(Arc::clone(&self.store), url).build()?)
    }

    /// Returns the location of a table.
    pub(crate) fn table_url(&self, schema: &TableSchema) -> Result<Url, Error> {
        let below = table_folder(schema) + "/";
        self.root.join(&below).map_err(|error| Error::Unavailable(error.to_string()))
    }
}

/// Folder of a table below the root.
pub(crate) fn table_folder(schema: &TableSchema) -> String {
    schema.name.replace('.', "/")
}
