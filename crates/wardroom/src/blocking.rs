//! Runs async code from a command.

use std::path::Path;

use anyhow::Context;
use wardroom_roles::Store;
use wardroom_roles::state_database::{RequiredState, open_state};

/// Runs a future to completion. The runtime has a thread of its own: on one without, the table library loses its
/// connections to an object store after each step.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(future)
}

/// Opens the state database of a data folder; creates it if the folder is new.
///
/// # Errors
/// Returns an error if the database is missing or empty although the folder has data, if it is another folder's, or if
/// it cannot be opened.
pub(crate) async fn open_store(data: &Path) -> anyhow::Result<Store> {
    open_state(data, RequiredState::Entries).await.with_context(|| format!("data folder {}", data.display()))
}

/// Opens the state database of a data folder; creates it if it is missing or empty.
pub(crate) async fn open_or_create_store(data: &Path) -> anyhow::Result<Store> {
    open_state(data, RequiredState::Nothing).await.with_context(|| format!("data folder {}", data.display()))
}
