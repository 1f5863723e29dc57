//! The database handle: opening, copying, checking, transactions and change notification.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{Notify, watch};

use crate::database::{Database, Transaction};
use crate::error::Error;
use crate::health::{Health, OpenedFile, Operation};

/// Timeout of a statement that waits for another writer's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: u32 = 2;
/// Connections to PostgreSQL: reads need not wait for a write that waits for another process.
const MAX_POSTGRES_CONNECTIONS: u32 = 6;
/// Longest wait for a connection to PostgreSQL: a server that is down is reported, not waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the path of the database in a data folder.
pub fn database_path(data: &Path) -> PathBuf {
    data.join("state").join("wardroom.db")
}

/// Which database a schema is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

/// Every schema version, in order. The database records the checksum of each, so a released migration never changes.
fn migrator(dialect: Dialect) -> Migrator {
    let data_folder = match dialect {
        Dialect::Sqlite => include_str!("../migrations/0003_data_folder.sql"),
        Dialect::Postgres => include_str!("../migrations/0003_data_folder.postgres.sql"),
    };
    let migrations = [
        (1, "first", include_str!("../migrations/0001_first.sql")),
        (2, "audit head", include_str!("../migrations/0002_audit_head.sql")),
        (3, "data folder", data_folder),
        (4, "effects", include_str!("../migrations/0004_effects.sql")),
        (5, "principals", include_str!("../migrations/0005_principals.sql")),
        (6, "autonomy", include_str!("../migrations/0006_autonomy.sql")),
        (7, "effects that read", include_str!("../migrations/0007_effects_that_read.sql")),
        (8, "identity", include_str!("../migrations/0008_identity.sql")),
        (9, "requests", include_str!("../migrations/0009_requests.sql")),
    ];
    let simple = |(version, description, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.map(simple).into())
}

/// The open database; cheap to clone. Clones share the connections and the subscribers.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) database: Database,
    pub(crate) health: Health,
    /// SQLite's file.
    pub(crate) file: Option<OpenedFile>,
    /// Number of committed incident changes since the store was opened.
    incident_changes: watch::Sender<u64>,
    /// Notified by every commit of this process.
    committed: Arc<Notify>,
    /// Notified by every commit of this process that may have made an effect due.
    effects: Arc<Notify>,
}

impl Store {
    /// Opens or creates the database file and migrates its schema to the current version.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened, is damaged, or was written by a newer version.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|error| Error::Unavailable(error.to_string()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // The sandboxed process has no folder for temporary files.
            .pragma("temp_store", "MEMORY")
            .busy_timeout(BUSY_TIMEOUT);
        let pool = Self::connect(options.clone()).await?;
        // A connection that is opened later would create an empty file in the place of one that was moved away.
        pool.set_connect_options(options.create_if_missing(false));
        migrator(Dialect::Sqlite).run(&pool).await.map_err(migration_error)?;
        Ok(Self::new(Database::Sqlite(pool), Some(path)))
    }

    /// Opens the database file read-only: nothing is created or migrated.
    ///
    /// # Errors
    /// Returns an error if the file does not exist or is damaged.
    pub async fn open_read_only(path: &Path) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
        Ok(Self::new(Database::Sqlite(Self::connect(options).await?), Some(path)))
    }

    /// Connects to PostgreSQL. Nothing is created before [`Store::migrate`].
    ///
    /// # Errors
    /// Returns an error if the URL is invalid or the database does not answer.
    pub async fn connect_postgres(url: &str, password: Option<&str>) -> Result<Self, Error> {
        let options =
            url.parse::<PgConnectOptions>().map_err(|error| Error::Unavailable(format!("store.url: {error}")))?;
        let options = password.map_or_else(|| options.clone(), |password| options.clone().password(password));
        let seconds = BUSY_TIMEOUT.as_secs();
        let options = options.application_name("wardroom").options([
            // As with SQLite, a commit survives a power cut, whatever the server's default is.
            ("synchronous_commit", "on".to_owned()),
            ("lock_timeout", format!("{seconds}s")),
            // A process that stops within a write must not block the others indefinitely.
            ("idle_in_transaction_session_timeout", format!("{seconds}s")),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(MAX_POSTGRES_CONNECTIONS)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_with(options)
            .await?;
        Ok(Self::new(Database::Postgres(pool), None))
    }

    /// Migrates the schema to the current version.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written, or was written by a newer version.
    pub async fn migrate(&self) -> Result<(), Error> {
        let migrated = match &self.database {
            Database::Sqlite(pool) => migrator(Dialect::Sqlite).run(pool).await,
            Database::Postgres(pool) => migrator(Dialect::Postgres).run(pool).await,
        };
        migrated.map_err(migration_error)
    }

    async fn connect(options: SqliteConnectOptions) -> Result<sqlx::SqlitePool, Error> {
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            // SQLite ends the transaction itself when a COMMIT fails on a full disk. The ROLLBACK that follows fails,
            // and sqlx then takes the connection for one inside a transaction, in which no other can begin. Such a
            // connection is closed.
            .before_acquire(|connection, _| {
                let is_usable = !sqlx::Connection::is_in_transaction(connection);
                Box::pin(async move { Ok(is_usable) })
            })
            .connect_with(options)
            .await?;
        Ok(pool)
    }

    fn new(database: Database, file: Option<&Path>) -> Self {
        Self {
            database,
            health: Health::default(),
            file: file.map(OpenedFile::new),
            incident_changes: watch::Sender::new(0),
            committed: Arc::default(),
            effects: Arc::default(),
        }
    }

    /// Writes a consistent copy of SQLite's database to a file that does not exist yet.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read, the file cannot be written, or the state is in PostgreSQL.
    pub async fn copy_to(&self, path: &Path) -> Result<(), Error> {
        let Database::Sqlite(pool) = &self.database else {
            return Err(Error::Unsupported("the state is in PostgreSQL; copy it with pg_dump".to_owned()));
        };
        let path = path.to_str().ok_or_else(|| Error::Unavailable(format!("{} is not UTF-8", path.display())))?;
        sqlx::query("VACUUM INTO ?").bind(path).execute(pool).await?;
        Ok(())
    }

    /// Checks every page of SQLite's file. Returns the first defect, or `None` if there is none. PostgreSQL checks its
    /// own files when it reads them.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn integrity_check(&self) -> Result<Option<String>, Error> {
        let Database::Sqlite(pool) = &self.database else { return Ok(None) };
        let result: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(pool).await?;
        Ok((result != "ok").then_some(result))
    }

    /// Finishes running statements and closes the connections.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Returns a receiver that changes after every committed change of an incident by this process; its value counts
    /// them. The first check reports a change. A commit that ended before [`watch::Receiver::mark_unchanged`] is seen
    /// by any read that starts after it.
    pub fn subscribe_incidents(&self) -> watch::Receiver<u64> {
        let mut receiver = self.incident_changes.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// Begins a write transaction.
    pub(crate) async fn begin_write(&self) -> Result<Transaction, Error> {
        let begun = self.database.begin_write().await.map_err(Error::from);
        // Only a commit shows that the disk can be written.
        self.health.record_failure(Operation::Write, begun)
    }

    /// Records a failure of a statement in a write transaction: on a full disk the statement fails before the commit.
    /// Errors that are not the database's are not recorded.
    pub(crate) fn record_write<T, E: Into<Error>>(&self, outcome: Result<T, E>) -> Result<T, Error> {
        let outcome = outcome.map_err(Into::into);
        let is_failure = matches!(outcome, Err(Error::Unavailable(_) | Error::DamagedFile(_)));
        if is_failure { self.health.record_failure(Operation::Write, outcome) } else { outcome }
    }

    /// Commits a transaction.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<(), Error> {
        let committed = self.health.record(Operation::Write, transaction.commit().await.map_err(Error::from));
        self.committed.notify_one();
        committed
    }

    /// Whether other servers may change incidents in the same database.
    pub const fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    /// Waits for a commit by this process, since the last call, that may have made an effect due. Only one task may
    /// wait.
    pub async fn wait_for_effects(&self) {
        self.effects.notified().await;
    }

    pub(crate) fn notify_effects(&self) {
        self.effects.notify_one();
    }

    /// Waits for a commit by this process since the last call. Only one task may wait.
    pub async fn wait_for_commit(&self) {
        self.committed.notified().await;
    }

    /// Commits a transaction that changed an incident and notifies the subscribers. Runs as its own task: a caller that
    /// is cancelled during the commit must not suppress the notification.
    pub(crate) async fn commit_incident_change(&self, transaction: Transaction) -> Result<(), Error> {
        let store = self.clone();
        let commit = tokio::spawn(async move {
            let committed = store.commit(transaction).await;
            store.incident_changes.send_modify(|count| *count += 1);
            store.notify_effects();
            committed
        });
        commit.await.map_err(|error| Error::Unavailable(error.to_string()))?
    }
}

/// Converts an error of a migration; a damaged file has an error of its own.
fn migration_error(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => Error::Unavailable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};

    use super::*;
    use crate::audit::example_entry;
    use crate::tokens::NewToken;

    async fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(&database_path(dir.path())).await.unwrap()
    }

    /// Runs a statement in a transaction of SQLite.
    async fn sqlite(transaction: &mut Transaction, sql: &'static str) {
        let Transaction::Sqlite(transaction) = transaction else { unreachable!("it was opened as SQLite") };
        sqlx::query(sql).execute(&mut **transaction).await.unwrap();
    }

    /// As on a full disk: SQLite has ended the transaction, so that COMMIT and ROLLBACK fail.
    async fn fail_commit(store: &Store) -> Error {
        let mut transaction = store.begin_write().await.unwrap();
        sqlite(&mut transaction, "ROLLBACK").await;
        store.commit(transaction).await.unwrap_err()
    }

    #[tokio::test]
    async fn writes_work_again_after_failed_commits() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        for round in 0..2 * MAX_CONNECTIONS {
            fail_commit(&store).await;
            assert!(store.error().unwrap().contains("commit"), "round {round}");
        }
        for _ in 0..2 * MAX_CONNECTIONS {
            store.probe().await;
            assert_eq!(store.error(), None);
        }
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_leaves_a_usable_connection() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        for _ in 0..2 * MAX_CONNECTIONS {
            drop(store.begin_write().await.unwrap());
            let mut ended = store.begin_write().await.unwrap();
            sqlite(&mut ended, "ROLLBACK").await;
            drop(ended);
        }
        store.probe().await;
        assert_eq!(store.error(), None);
    }

    #[tokio::test]
    async fn a_full_database_is_reported_until_there_is_space() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir).await;
        let Database::Sqlite(pool) = &store.database else { unreachable!("it was opened as SQLite") };
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(pool).await.unwrap();
        // Both connections; the limit is a property of the connection.
        let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        let limit = |pages: i64| sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        for connection in [&mut one, &mut other] {
            sqlx::query(limit(pages + 1)).execute(&mut **connection).await.unwrap();
        }
        drop((one, other));
        let identity =
            Identity { tenant: TenantId::main(), principal: Principal::new("alice").unwrap(), role: AccessRole::Admin };
        let entry = example_entry();
        let mut failed = None;
        for number in 0..1000 {
            // The id is derived from the start of the hash.
            let token = NewToken::new(format!("{number:012}{:052}", 0), identity.clone(), None);
            failed = store.create_token(&token, Timestamp::from_millis(1), &entry).await.err();
            if failed.is_some() {
                break;
            }
        }
        assert!(failed.unwrap().to_string().contains("full"));
        assert!(store.error().unwrap().contains("full"));
    }

    /// The connections have the pages in memory, so that it would not be noticed before the next restart.
    #[tokio::test]
    async fn damage_beside_open_connections_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = database_path(dir.path());
        open(&dir).await.close().await;
        let store = open(&dir).await;
        store.check_pages().await;
        assert_eq!(store.error(), None);
        let intact = std::fs::read(&path).unwrap();
        let mut bytes = intact.clone();
        let pages = bytes.len() / 4096;
        bytes[4096..(pages - 1) * 4096].fill(0x5a);
        std::fs::write(&path, &bytes).unwrap();
        store.check_pages().await;
        assert!(store.error().unwrap().contains("damaged"), "{:?}", store.error());
        std::fs::write(&path, &intact).unwrap();
        store.check_pages().await;
        assert_eq!(store.error(), None);
    }

    #[tokio::test]
    async fn damaged_and_replaced_files_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = database_path(dir.path());
        let store = open(&dir).await;
        store.check_pages().await;
        store.probe().await;
        assert_eq!(store.error(), None);
        let moved = path.with_extension("moved");
        std::fs::rename(&path, &moved).unwrap();
        store.probe().await;
        assert!(store.error().unwrap().contains("deleted or replaced"));
        std::fs::rename(&moved, &path).unwrap();
        store.probe().await;
        assert_eq!(store.error(), None);
        store.close().await;

        let mut bytes = std::fs::read(&path).unwrap();
        let pages = bytes.len() / 4096;
        bytes[4096..(pages - 1) * 4096].fill(0x5a);
        std::fs::write(&path, &bytes).unwrap();
        match Store::open(&path).await {
            Ok(store) => {
                store.check_pages().await;
                assert!(store.error().unwrap().contains("damaged"), "{:?}", store.error());
                store.close().await;
            }
            Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
        }
        for extension in ["db-wal", "db-shm"] {
            drop(std::fs::remove_file(path.with_extension(extension)));
        }
        std::fs::write(&path, "this is not a database, whatever its name says").unwrap();
        let error = Store::open(&path).await.unwrap_err();
        assert!(matches!(error, Error::DamagedFile(_)), "{error}");
    }
}
