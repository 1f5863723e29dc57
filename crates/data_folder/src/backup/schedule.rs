//! The schedule of the backups that the supervisor makes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::manifest::{Manifest, list_backups};
use wardroom_config::BackupConfig;
use wardroom_process::clock;

/// The configured schedule.
#[derive(Debug)]
pub struct BackupSchedule {
    to: PathBuf,
    interval: Duration,
    arguments: Vec<String>,
}

impl BackupSchedule {
    /// Returns `None` if the configuration has no `backup.to`.
    pub fn new(config: BackupConfig, data: &Path, config_file: Option<&Path>) -> Option<Self> {
        let to = config.to?;
        let interval = Duration::from_secs(u64::from(config.every_hours) * 3600);
        let text = |path: &Path| path.display().to_string();
        let mut arguments = vec!["backup".into(), "--supervised".into(), "--json".into()];
        arguments.extend(["--data".into(), text(data), "--to".into(), text(&to)]);
        arguments.extend(["--keep".into(), config.keep.to_string()]);
        arguments.extend(config_file.into_iter().flat_map(|file| ["--config".into(), text(file)]));
        Some(Self { to, interval, arguments })
    }

    /// Returns the arguments of `wardroom` that make a backup, if none exists or the newest is older than the interval.
    pub fn due_arguments(&self) -> Option<Vec<String>> {
        let newest = list_backups(&self.to).ok().and_then(|mut backups| Manifest::read(&backups.pop()?).ok());
        let due = newest.is_none_or(|newest| newest.taken_at <= clock::now().minus(self.interval));
        due.then(|| self.arguments.clone())
    }
}
