//! Runs async code from a command.

use std::path::Path;

use anyhow::Context;
use wardroom_roles::state_database::require_state;
use wardroom_roles::{Store, database_path};

/// Runs a future to completion on the current thread.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// Opens the state database of a data folder; creates it if the folder is new.
///
/// # Errors
/// Returns an error if the database is missing although the folder has data, or if it cannot be opened.
pub(crate) async fn open_store(data: &Path) -> anyhow::Result<Store> {
    require_state(data)?;
    open_or_create_store(data).await
}

/// Opens the state database of a data folder; creates it if it is missing.
pub(crate) async fn open_or_create_store(data: &Path) -> anyhow::Result<Store> {
    Store::open(&database_path(data)).await.with_context(|| format!("data folder {}", data.display()))
}
