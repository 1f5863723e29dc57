//! One Delta table on a local disk or an object store: open, append exactly once, sync, repair, vacuum.

pub(crate) mod column_addition;
pub(crate) mod delta_table;
pub(crate) mod file_removal;
pub(crate) mod lake_location;
pub(crate) mod live_file;
pub(crate) mod local_disk;
pub(crate) mod log_checksums;
pub(crate) mod power_loss_repair;
pub(crate) mod remote_store;
pub(crate) mod snapshot_files;
pub(crate) mod unsynced_rewrite;
pub(crate) mod vacuum_policy;
pub(crate) mod verified_store;
