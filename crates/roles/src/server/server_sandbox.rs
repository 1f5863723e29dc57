//! The sandbox of the server, and the executor's files, which must not be in it.

use std::path::{Path, PathBuf};

use wardroom_process::sandbox::{EXECUTOR_FOLDER, Sandbox};

use crate::config::Config;

/// The sandbox cannot be set up as configured.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The location of the tables is invalid.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    /// A file of the executor lies where the server may read.
    #[error(
        "{} lies in {}, which the server may read; it is for the executor only: move one of them \
         (--executor-config, --data, lake.uri, knowledge.runbooks, store.password, identity, edge.tls, SSL_CERT_DIR)",
        .file.display(), .readable.display()
    )]
    Exposed {
        /// The configuration of the executor, or its folder.
        file: PathBuf,
        /// The path that the server may read.
        readable: PathBuf,
    },
}

/// Returns the sandbox of a server on a data folder.
///
/// # Errors
/// Returns an error if the location of the tables is invalid.
pub fn server_sandbox(data: &Path, config: &Config) -> Result<Sandbox, SandboxError> {
    let lake = if config.lake.enabled { config.lake.folder(data)? } else { None };
    let readable: Vec<PathBuf> = config.knowledge.runbooks.iter().chain(&config.policy.file).cloned().collect();
    let readable: Vec<PathBuf> =
        readable.into_iter().chain(config.store.password_file()).chain(config.identity.files()).collect();
    let readable: Vec<PathBuf> = readable.into_iter().chain(config.edge.tls_folders()).collect();
    Ok(Sandbox::server(data, lake, &readable))
}

/// Checks that the server may read neither the executor's configuration nor its ledger and keys. Landlock cannot
/// exclude a file from a folder that it allows.
///
/// # Errors
/// Returns an error that names the file and the folder.
pub fn check_executor_files(data: &Path, config: &Config, executor_config: &Path) -> Result<(), SandboxError> {
    let sandbox = server_sandbox(data, config)?;
    for file in [executor_config.to_owned(), data.join(EXECUTOR_FOLDER)] {
        if let Some(readable) = sandbox.exposes(&file) {
            return Err(SandboxError::Exposed { readable, file });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executor_files_that_the_server_could_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["data", "tables", "runbooks", "secrets"] {
            std::fs::create_dir(path(folder)).unwrap();
        }
        let check = |lake: &str, runbooks: &str, executor_config: &str| {
            let mut config = Config::default();
            config.lake.uri = path(lake).display().to_string();
            config.knowledge.runbooks = Some(path(runbooks));
            check_executor_files(&path("data"), &config, &path(executor_config)).map_err(|error| error.to_string())
        };
        assert_eq!(check("tables", "runbooks", "secrets/executor.yaml"), Ok(()));
        assert_eq!(check("data/lake", "runbooks", "executor.yaml"), Ok(()));
        for (lake, runbooks, executor_config, file, readable) in [
            ("tables", "runbooks", "runbooks/executor.yaml", "runbooks/executor.yaml", "runbooks"),
            ("tables", "runbooks", "tables/executor.yaml", "tables/executor.yaml", "tables"),
            ("tables", "", "secrets/executor.yaml", "secrets/executor.yaml", ""),
            ("data", "runbooks", "secrets/executor.yaml", "data/executor", "data"),
            ("data/executor/lake", "runbooks", "secrets/executor.yaml", "data/executor", "data/executor/lake"),
            ("tables", "data", "secrets/executor.yaml", "data/executor", "data"),
        ] {
            let error = check(lake, runbooks, executor_config).unwrap_err();
            let expected = format!("{} lies in {}", path(file).display(), path(readable).display());
            assert!(error.starts_with(&expected) && error.contains("lake.uri"), "{error}");
        }
        let among_certificates = Path::new("/etc/ssl/certs/executor.yaml");
        let error = check_executor_files(&path("data"), &Config::default(), among_certificates).unwrap_err();
        assert!(error.to_string().contains("lies in /etc/ssl/certs"), "{error}");
    }
}
