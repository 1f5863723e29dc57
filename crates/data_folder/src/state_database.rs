//! Is the state database there, and is it this data folder's?
//!
//! Problem: a database that was deleted would be created again, without tokens: every sender gets 401 and drops its
//! data, and incidents and the audit log are gone without a word. The same holds for a file that lost its write-ahead
//! log, has other tables, or belongs to another data folder. Model: an empty database is used only in a data folder
//! that holds nothing else that a server writes, or on explicit request. Database and bus both have the id of the data
//! folder.

use std::path::{Path, PathBuf};

use wardroom_bus::has_records;
use wardroom_config::StoreConfig;
use wardroom_pipeline::state::checkpoint;
use wardroom_store::{DatabaseContents, Store, database_path};

/// File in the folder of the bus with the id of the data folder: telemetry and database belong together.
const FOLDER_ID_FILE: &str = "data-folder-id";

/// Why the state database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDatabaseError {
    /// The state database is missing or has nothing, although the data folder has data.
    #[error(
        "the state database {} {defect}, but the data folder has {found}. Without the database every sender is \
         refused, and incidents and the audit log are lost. Put it back, or restore a backup to a new folder; to go on \
         with an empty one, run `wardroom token create --new-database --data {} …`",
        database_path(.data).display(), .data.display()
    )]
    Missing {
        /// The data folder.
        data: PathBuf,
        /// What is wrong with the database.
        defect: &'static str,
        /// What the data folder has.
        found: &'static str,
    },
    /// The state database belongs to another data folder.
    #[error(
        "the state database {} is of data folder {database_id}, but {} says {folder_id}: one of them is of another \
         data folder. Put the right one back, or restore a backup to a new folder; to use this database for this bus, \
         delete {}; to go on with an empty one, move it away and run `wardroom token create --new-database --data {} \
         …`",
        database_path(.data).display(), id_file(.data).display(), id_file(.data).display(), .data.display()
    )]
    OtherFolder {
        /// The data folder.
        data: PathBuf,
        /// The id in the database.
        database_id: String,
        /// The id in the data folder.
        folder_id: String,
    },
    /// The database cannot be read or written.
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
    /// The data folder has its state in another database than configured.
    #[error(
        "the state of data folder {} is in {there}, and {configured} is configured: incidents, tokens and the audit log \
         would be lost. Set store.url to where they are, or use another data folder",
        .data.display()
    )]
    OtherDatabase {
        /// The data folder.
        data: PathBuf,
        /// Where the state is.
        there: String,
        /// Where it would be looked for.
        configured: String,
    },
    /// The configuration of the database, in the environment or in the data folder, cannot be used.
    #[error("{0}")]
    Config(String),
    /// The file with the id of the data folder, or with the place of its state, cannot be read or written.
    #[error("{}: {error}", .path.display())]
    FolderId {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        error: std::io::Error,
    },
}

/// What the database of a data folder with data must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredState {
    /// Tokens, if there ever were any, or else entries of the audit log: a server that checks tokens.
    Tokens,
    /// A token or an entry of the audit log.
    Entries,
    /// The tables: a server that does not check tokens.
    Tables,
    /// Nothing: an empty database was asked for.
    Nothing,
}

impl RequiredState {
    /// Returns what is wrong with a database, or `None` if it has what is required.
    fn defect(self, contents: &DatabaseContents) -> Option<&'static str> {
        let is_empty = !contents.has_tokens && !contents.has_audit_entries;
        match self {
            Self::Nothing => None,
            _ if !contents.has_tables => Some("is missing or empty"),
            Self::Entries | Self::Tokens if is_empty => Some("has neither tokens nor an audit log"),
            Self::Tokens if !contents.has_tokens && contents.has_created_tokens => {
                Some("has lost its tokens, whose creation is in the audit log")
            }
            _ => None,
        }
    }
}

/// Opens the state database of a data folder, wherever it is; creates it if the folder is new, or on request.
///
/// # Errors
/// Returns an error if the folder has data that a server wrote and the database does not have what is required or
/// belongs to another folder, or if a file or the database cannot be read or written.
pub async fn open_state(data: &Path, required: RequiredState) -> Result<Store, StateDatabaseError> {
    let config = match read_location(data)? {
        Some(config) => config,
        // A new data folder: only the environment can say where its state is to be.
        None if data_found(data).is_none() && !database_path(data).exists() => {
            wardroom_config::load(None).map_err(|error| StateDatabaseError::Config(error.to_string()))?.store
        }
        None => StoreConfig::default(),
    };
    open_configured_state(data, &config, required).await
}

/// Opens the state database of a data folder where the configuration says that it is.
///
/// # Errors
/// As for [`open_state`]; also if the data folder has its state elsewhere.
pub async fn open_configured_state(
    data: &Path,
    config: &StoreConfig,
    required: RequiredState,
) -> Result<Store, StateDatabaseError> {
    let location = read_location(data)?;
    let there = match &location {
        Some(location) => location.url.clone(),
        None if database_path(data).exists() => String::new(),
        None => config.url.clone(),
    };
    if there != config.url {
        let name = |url: &str| if url.is_empty() { "SQLite".to_owned() } else { url.to_owned() };
        let (there, configured) = (name(&there), name(&config.url));
        return Err(StateDatabaseError::OtherDatabase { data: data.to_owned(), there, configured });
    }
    if config.is_postgres() { open_postgres(data, config, required).await } else { open_sqlite(data, required).await }
}

/// Opens the state of a data folder as it is: nothing is created or migrated.
///
/// # Errors
/// Returns an error if there is no state, or it cannot be read.
pub async fn open_existing_state(data: &Path) -> Result<Store, StateDatabaseError> {
    match read_location(data)? {
        Some(config) => connect(&config).await,
        None => Ok(Store::open_read_only(&database_path(data)).await?),
    }
}

/// Whether a data folder has a state, which need not be intact.
pub fn has_state(data: &Path) -> bool {
    database_path(data).exists() || location_file(data).exists()
}

/// Returns the id of a data folder on which a server runs.
///
/// # Errors
/// Returns an error if the file with it cannot be read.
pub fn folder_id(data: &Path) -> Result<String, StateDatabaseError> {
    Ok(read_folder_id(data)?.unwrap_or_default())
}

async fn connect(config: &StoreConfig) -> Result<Store, StateDatabaseError> {
    let password = config.read_password().map_err(|error| StateDatabaseError::Config(error.to_string()))?;
    Ok(Store::connect_postgres(&config.url, password.as_deref()).await?)
}

/// Opens the state in PostgreSQL. Several servers may share it, so that the data folder's id is its own.
async fn open_postgres(
    data: &Path,
    config: &StoreConfig,
    required: RequiredState,
) -> Result<Store, StateDatabaseError> {
    let store = connect(config).await?;
    if let Some(found) = data_found(data)
        && let Some(defect) = required.defect(&store.read_contents().await?)
    {
        return Err(StateDatabaseError::Missing { data: data.to_owned(), defect, found });
    }
    store.migrate().await?;
    write_location(data, config)?;
    if data.join("bus").is_dir() && read_folder_id(data)?.is_none() {
        write_folder_id(data, &new_folder_id())?;
    }
    Ok(store)
}

/// Opens the state in SQLite.
async fn open_sqlite(data: &Path, required: RequiredState) -> Result<Store, StateDatabaseError> {
    let path = database_path(data);
    let (found, folder_id) = (data_found(data), read_folder_id(data)?);
    let mut database_id = None;
    if let Some(found) = found {
        let contents = Store::contents(&path).await?;
        if let Some(defect) = required.defect(&contents) {
            return Err(StateDatabaseError::Missing { data: data.to_owned(), defect, found });
        }
        database_id = contents.data_folder_id;
        if let (Some(database_id), Some(folder_id)) = (&database_id, &folder_id)
            && database_id != folder_id
        {
            let (database_id, folder_id) = (database_id.clone(), folder_id.clone());
            return Err(StateDatabaseError::OtherFolder { data: data.to_owned(), database_id, folder_id });
        }
    }
    let store = Store::open(&path).await?;
    match folder_id {
        // A new database, or one of an earlier version.
        Some(folder_id) if found.is_some() && database_id.is_none() => {
            store.set_data_folder_id(&folder_id).await?;
            tracing::info!(folder_id, "the state database has taken over the id of the data folder");
        }
        Some(_) if found.is_some() => {}
        // Without data any database is this folder's.
        before => {
            let id = store.data_folder_id().await?;
            // The server creates the folder before it opens the database.
            if data.join("bus").is_dir() && before.as_ref() != Some(&id) {
                write_folder_id(data, &id)?;
                if found.is_some() {
                    tracing::info!(id, "the data folder has taken over its id from the state database");
                }
            }
        }
    }
    Ok(store)
}

/// File with the place of a state that is not in the data folder: what the configuration says, with the reference to
/// the password and without the password.
fn location_file(data: &Path) -> PathBuf {
    data.join("state").join("store.json")
}

fn read_location(data: &Path) -> Result<Option<StoreConfig>, StateDatabaseError> {
    let path = location_file(data);
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| StateDatabaseError::FolderId { path, error: std::io::Error::other(error) }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateDatabaseError::FolderId { path, error }),
    }
}

fn write_location(data: &Path, config: &StoreConfig) -> Result<(), StateDatabaseError> {
    let path = location_file(data);
    if read_location(data)?.as_ref() == Some(config) {
        return Ok(());
    }
    let text = serde_json::json!(config).to_string();
    let new_path = path.with_extension("new");
    let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = folder.and_then(|()| std::fs::write(&new_path, text));
    let written = written.and_then(|()| std::fs::rename(&new_path, &path));
    written.map_err(|error| StateDatabaseError::FolderId { path, error })
}

/// A random id.
fn new_folder_id() -> String {
    wardroom_edge::generate_token().1.chars().take(32).collect()
}

fn id_file(data: &Path) -> PathBuf {
    data.join("bus").join(FOLDER_ID_FILE)
}

/// Returns the id of a data folder, or `None` if it has none yet.
fn read_folder_id(data: &Path) -> Result<Option<String>, StateDatabaseError> {
    let path = id_file(data);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|id| !id.is_empty())),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(StateDatabaseError::FolderId { path, error }),
    }
}

fn write_folder_id(data: &Path, id: &str) -> Result<(), StateDatabaseError> {
    let path = id_file(data);
    let new_path = path.with_extension("new");
    // A file that is empty after a power cut counts as missing.
    let written = std::fs::write(&new_path, id).and_then(|()| std::fs::rename(&new_path, &path));
    written.map_err(|error| StateDatabaseError::FolderId { path, error })
}

/// Returns what the folder has that a server writes only after it has created the database. A folder that cannot be
/// read counts as data.
fn data_found(data: &Path) -> Option<&'static str> {
    let has_entries =
        |folder: &Path| folder.is_dir() && std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    let ledger = std::fs::metadata(data.join("executor/ledger.jsonl"));
    let checkpoint = checkpoint::newest_offset(&data.join("checkpoint"));
    [
        (has_records(&data.join("bus")).unwrap_or(true), "telemetry on the bus"),
        (checkpoint.map_or(true, |newest| newest.is_some()), "checkpoints"),
        (has_entries(&data.join("lake")), "tables"),
        (has_records(&data.join("dead-letters")).unwrap_or(true), "dead letters"),
        (ledger.is_ok_and(|file| file.len() > 0), "a ledger of executed plans"),
    ]
    .into_iter()
    .find_map(|(is_there, what)| is_there.then_some(what))
}

#[cfg(test)]
mod tests {
    use wardroom_domain::audit::AuditEntry;
    use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};
    use wardroom_store::NewToken;

    use super::*;

    fn entry(action: &str) -> AuditEntry {
        AuditEntry {
            at: Timestamp::from_millis(1),
            tenant: TenantId::main(),
            principal: Principal::wardroom(),
            agent: "operator".into(),
            incident_id: None,
            action: action.into(),
            decision: serde_json::json!({}),
            approved_by: None,
        }
    }

    /// Creates a data folder with telemetry and a token.
    async fn folder_with_data() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bus")).unwrap();
        let store = open_state(dir.path(), RequiredState::Tokens).await.unwrap();
        let identity =
            Identity { tenant: TenantId::main(), principal: Principal::new("alice").unwrap(), role: AccessRole::Admin };
        let token = NewToken::new("0".repeat(64), identity, None);
        store.create_token(&token, Timestamp::from_millis(1), &entry("create_token")).await.unwrap();
        store.close().await;
        std::fs::write(dir.path().join("bus/00000000000000000000.seg"), "x").unwrap();
        dir
    }

    async fn refused(data: &Path, required: RequiredState) -> String {
        match open_state(data, required).await {
            Err(error) => error.to_string(),
            Ok(store) => {
                store.close().await;
                String::new()
            }
        }
    }

    #[tokio::test]
    async fn missing_database_is_an_error_beside_data_only() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert_eq!(data_found(&data.join("missing")), None);
        assert_eq!(data_found(data), None, "a new folder");
        // What a server creates before the database.
        for folder in ["bus", "state", "checkpoint", "dead-letters", "lake", "executor"] {
            std::fs::create_dir(data.join(folder)).unwrap();
        }
        std::fs::write(data.join("bus/00000000000000000000.seg"), "").unwrap();
        std::fs::write(data.join("executor/ledger.jsonl"), "").unwrap();
        assert_eq!(data_found(data), None, "an interrupted first start");
        for (file, what) in [
            ("bus/00000000000000000000.seg", "telemetry on the bus"),
            ("checkpoint/00000000000000000007.state", "checkpoints"),
            ("lake/silver", "tables"),
            ("dead-letters/00000000000000000000.seg", "dead letters"),
            ("executor/ledger.jsonl", "a ledger of executed plans"),
        ] {
            let path = data.join(file);
            std::fs::write(&path, "x").unwrap();
            let missing = refused(data, RequiredState::Tables).await;
            assert!(missing.contains("is missing or empty") && missing.contains(what), "{file}: {missing}");
            std::fs::write(database_path(data), "").unwrap();
            assert!(!refused(data, RequiredState::Tables).await.is_empty(), "{file}: an empty file is no database");
            std::fs::remove_file(database_path(data)).unwrap();
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(refused(data, RequiredState::Tokens).await, "", "no data");
    }

    #[tokio::test]
    async fn a_database_without_tables_or_entries_is_as_good_as_missing() {
        let dir = folder_with_data().await;
        let data = dir.path();
        assert_eq!(refused(data, RequiredState::Tokens).await, "");
        // The write-ahead log that had everything is gone.
        let server = open_state(data, RequiredState::Tokens).await.unwrap();
        let other = tempfile::tempdir().unwrap();
        let unmigrated = Store::open(&database_path(other.path())).await.unwrap();
        std::fs::copy(database_path(other.path()), other.path().join("copied.db")).unwrap();
        unmigrated.close().await;
        server.close().await;
        std::fs::copy(other.path().join("copied.db"), database_path(data)).unwrap();
        for required in [RequiredState::Tokens, RequiredState::Entries, RequiredState::Tables] {
            let said = refused(data, required).await;
            assert!(said.contains("is missing or empty, but") && said.contains("--new-database"), "{said}");
        }
        // Asked for, it is migrated, and belongs to the folder; it still has no token.
        let id = read_folder_id(data).unwrap().unwrap();
        let store = open_state(data, RequiredState::Nothing).await.unwrap();
        assert_eq!(store.data_folder_id().await.unwrap(), id);
        store.close().await;
        let said = refused(data, RequiredState::Tokens).await;
        assert!(said.contains("has neither tokens nor an audit log"), "{said}");
        assert_eq!(refused(data, RequiredState::Tables).await, "", "no tokens are needed");
        // A server that did not check tokens has written to its audit log only.
        let store = open_state(data, RequiredState::Tables).await.unwrap();
        store.append_audit(&entry("configuration")).await.unwrap();
        store.close().await;
        assert_eq!(refused(data, RequiredState::Tokens).await, "");
    }

    #[tokio::test]
    async fn lost_tokens_are_told_from_tokens_that_never_were() {
        let contents = DatabaseContents { has_tables: true, has_audit_entries: true, ..DatabaseContents::default() };
        assert_eq!(RequiredState::Tokens.defect(&contents), None);
        let lost = DatabaseContents { has_created_tokens: true, ..contents };
        assert!(RequiredState::Tokens.defect(&lost).unwrap().contains("lost its tokens"));
        assert_eq!(RequiredState::Entries.defect(&lost), None, "`token create` mends it");
        assert_eq!(RequiredState::Tokens.defect(&DatabaseContents { has_tokens: true, ..lost }), None);
    }

    #[tokio::test]
    async fn the_database_of_another_data_folder_is_refused() {
        let (dir, other) = (folder_with_data().await, folder_with_data().await);
        let (data, id) = (dir.path(), read_folder_id(dir.path()).unwrap().unwrap());
        std::fs::copy(database_path(other.path()), database_path(data)).unwrap();
        for required in [RequiredState::Tokens, RequiredState::Nothing] {
            let said = refused(data, required).await;
            assert!(said.contains("another data folder") && said.contains(&id), "{said}");
        }
        // As the message says.
        std::fs::remove_file(id_file(data)).unwrap();
        assert_eq!(refused(data, RequiredState::Tokens).await, "");
        assert_eq!(read_folder_id(data).unwrap(), read_folder_id(other.path()).unwrap());
        std::fs::remove_file(database_path(data)).unwrap();
        assert_eq!(refused(data, RequiredState::Nothing).await, "");
        assert_eq!(Store::contents(&database_path(data)).await.unwrap().data_folder_id, read_folder_id(data).unwrap());
    }
}
