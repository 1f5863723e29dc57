//! Maintenance: merging and joining files, retention, table usage, verification, and the file list of a backup.

pub(crate) mod backup_snapshot;
pub(crate) mod file_join;
pub(crate) mod file_verification;
pub(crate) mod maintenance_report;
pub(crate) mod maintenance_tasks;
pub(crate) mod retention;
pub(crate) mod sample_merge;
pub(crate) mod table_usage;
