//! Whether anything was written, without asking the database.
//!
//! Problem: several roles look a few times a second whether a person or another process has written something, and each question
//! to SQLite wakes threads four times; that was most of what an idle server cost. Model: in WAL mode every commit, of any process,
//! writes to the `-wal` file, and a checkpoint to the database file, so as long as the two files' sizes and times of modification stay the
//! same, nothing was written. Times are as coarse as the kernel's tick: a file that was modified a moment ago may be modified again
//! without showing it, so it counts as changed until it has rested. Guarantee: a commit that ended before a look is seen by that look.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wardroom_domain::Timestamp;

use crate::Store;

/// A file that rests for so long shows its next modification: the kernel's tick takes at most ten milliseconds.
const REST: Duration = Duration::from_millis(100);

/// Looks again and again whether anything was written.
#[derive(Debug)]
pub struct Changes {
    files: [PathBuf; 2],
    /// Sizes and times when it was looked last, if they can be relied on.
    seen: Option<[(u64, SystemTime); 2]>,
}

impl Store {
    /// Tells of everything that is written from now on; its first look always says yes.
    pub fn changes(&self) -> Changes {
        Changes::of(self.pool.connect_options().get_filename())
    }
}

impl Changes {
    fn of(database: &Path) -> Self {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        Self { files: [database.to_owned(), log.into()], seen: None }
    }

    /// Whether something may have been written since the last look; it is `now` by the wall clock. When in doubt, yes.
    pub fn any(&mut self, now: Timestamp) -> bool {
        let before = self.seen.take();
        let now = UNIX_EPOCH + Duration::from_nanos(u64::try_from(now.nanos()).unwrap_or_default());
        let look = |file: &PathBuf| std::fs::metadata(file).and_then(|meta| Ok((meta.len(), meta.modified()?))).ok();
        let [Some(database), Some(log)] = self.files.each_ref().map(look) else { return true };
        // A clock that was set back leaves times in the future: they cannot be relied on either.
        let rests = |(_, modified): (u64, SystemTime)| now.duration_since(modified).is_ok_and(|age| age > REST);
        self.seen = (rests(database) && rests(log)).then_some([database, log]);
        self.seen.is_none() || self.seen != before
    }

    /// The next look says yes: what the last one led to failed.
    pub const fn again(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{AccessRole, Identity, Principal, TenantId};

    use super::*;
    use crate::NewToken;

    /// The time by the clock of the files.
    fn now() -> Timestamp {
        let modified = tempfile::tempfile().unwrap().metadata().unwrap().modified().unwrap();
        Timestamp::from_nanos(modified.duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64)
    }

    /// Looks until the files have rested.
    fn rested(changes: &mut Changes) {
        let since = std::time::Instant::now();
        while changes.any(now()) {
            assert!(since.elapsed() < Duration::from_secs(20), "nothing is written, and it never rests");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[tokio::test]
    async fn a_write_of_another_process_shows_at_once_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wardroom.db");
        let (store, other) = (Store::open(&path).await.unwrap(), Store::open(&path).await.unwrap());
        let mut changes = store.changes();
        assert!(changes.any(now()), "the first look");
        rested(&mut changes);
        store.tokens().await.unwrap();
        assert!(!changes.any(now()), "reading is no change");
        for n in 0..3 {
            rested(&mut changes);
            let identity =
                Identity { tenant: TenantId::main(), principal: Principal::wardroom(), role: AccessRole::Viewer };
            let token = NewToken::new(n.to_string().repeat(64), identity, None);
            other.create_token(&token, Timestamp::from_millis(1)).await.unwrap();
            assert!(changes.any(now()), "write {n}");
        }
        rested(&mut changes);
        changes.again();
        assert!(changes.any(now()));
        other.close().await;
        store.close().await;
        std::fs::remove_file(&path).unwrap();
        assert!(changes.any(now()) && changes.any(now()), "a file that is not there is none to rely on");
    }
}
