//! The TLS of listeners while the server runs: in force, read again, described.

use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use wardroom_domain::Timestamp;

use super::certificate::{LoadedTls, TlsError, Validity, load};
use super::config::TlsConfig;
use crate::metrics as names;

/// Interval between two looks whether files have changed.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What the file system says of a file; a replaced, changed or permitted one differs. `None` if it is missing.
type FileVersion = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// The TLS of one listener.
#[derive(Debug)]
pub struct ListenerTls {
    /// Name of the listener, as in metrics.
    name: &'static str,
    settings: TlsConfig,
    config: RwLock<Arc<ServerConfig>>,
    state: Mutex<ReloadState>,
}

#[derive(Debug)]
struct ReloadState {
    /// Of the certificate in force.
    validity: Validity,
    /// Of the files when they were read last.
    versions: Vec<FileVersion>,
    /// Why they could not be used then, without their paths: every caller can read it.
    error: Option<String>,
}

impl ListenerTls {
    /// Loads the files of a listener; `None` if it has no TLS.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(name: &'static str, settings: &TlsConfig) -> Result<Option<Arc<Self>>, TlsError> {
        let versions = versions_of(settings);
        let Some(LoadedTls { config, validity }) = load(settings)? else { return Ok(None) };
        let state = Mutex::new(ReloadState { validity, versions, error: None });
        let tls = Self { name, settings: settings.clone(), config: RwLock::new(config), state };
        Ok(Some(Arc::new(tls)))
    }

    /// Returns what makes a connection's handshake, with the certificate in force.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner)).into()
    }

    /// Counts a connection whose handshake failed.
    pub(crate) fn handshake_failed(&self) {
        metrics::counter!(names::TLS_HANDSHAKES_FAILED_TOTAL, "listener" => self.name).increment(1);
    }

    /// Reads the files again if one has changed since, or if they could not be used. What cannot be used, or is not
    /// valid now, leaves the last certificate in force.
    pub(crate) fn reload(&self, now: Timestamp) {
        let versions = versions_of(&self.settings);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.error.is_none() && state.versions == versions {
            return;
        }
        let loaded = load(&self.settings).map_err(|error| error.without_path()).and_then(|loaded| {
            let loaded = loaded.ok_or_else(|| "the settings name no files".to_owned())?;
            let problem = loaded.validity.problem_at(now).map(|problem| format!("cert-file: {problem}"));
            problem.map_or(Ok(loaded), Err)
        });
        state.versions = versions;
        match loaded {
            Ok(LoadedTls { config, validity }) => {
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                state.validity = validity;
                state.error = None;
                tracing::info!(listener = self.name, expires = %validity.until, "the new certificate is in force");
            }
            Err(error) if state.error.as_ref() == Some(&error) => {}
            Err(error) => {
                let in_force = state.validity.until;
                let files = &self.settings;
                tracing::error!(listener = self.name, error, ?files, expires = %in_force,
                    "the new certificate cannot be used; the last one stays in force");
                state.error = Some(error);
            }
        }
    }

    /// Returns why the operator is needed, if they are.
    pub(super) fn problem(&self, now: Timestamp) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let expired = state.validity.problem_at(now);
        let error = state.error.as_ref().map(|error| format!("{error}; the last certificate stays in force"));
        error.or(expired).map(|problem| format!("{}: {problem}", self.name))
    }

    fn expires_at(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).validity.until
    }
}

fn versions_of(settings: &TlsConfig) -> Vec<FileVersion> {
    let version = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        let changed = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
        Some((found.dev(), found.ino(), found.size(), changed.0, changed.1, changed.2, changed.3))
    };
    let files = [&settings.cert_file, &settings.key_file, &settings.client_ca_file];
    files.into_iter().flatten().map(version).collect()
}

/// The certificates of all listeners with TLS; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Arc<Vec<Arc<ListenerTls>>>);

impl Certificates {
    /// Those of some listeners.
    pub(crate) fn new(listeners: Vec<Arc<ListenerTls>>) -> Self {
        Self(Arc::new(listeners))
    }

    /// Returns `off`, `ok` or what the operator has to do, and whether they have to.
    pub fn describe(&self, now: Timestamp) -> (String, bool) {
        match self.0.iter().find_map(|tls| tls.problem(now)) {
            Some(problem) => (problem, true),
            None if self.0.is_empty() => ("off".to_owned(), false),
            None => ("ok".to_owned(), false),
        }
    }

    /// Reads changed files again, every few seconds and at each SIGHUP, until it is cancelled. SIGHUP is received from
    /// the call on, also if no listener has TLS: without a handler it ends the process.
    pub fn watch(
        self,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let hangup = signal(SignalKind::hangup());
        async move {
            let mut hangup = hangup.inspect_err(|error| tracing::error!(%error, "SIGHUP cannot be received")).ok();
            let mut check = tokio::time::interval(CHECK_INTERVAL);
            loop {
                let received = async {
                    match &mut hangup {
                        Some(hangup) => hangup.recv().await,
                        None => std::future::pending().await,
                    }
                };
                let is_hangup = tokio::select! {
                    _ = received => true,
                    _ = check.tick() => false,
                };
                if is_hangup {
                    tracing::info!(listeners = self.0.len(), "SIGHUP: looking for new certificates");
                }
                for tls in self.0.iter() {
                    tls.reload(now());
                    metrics::gauge!(names::TLS_CERTIFICATE_EXPIRY_SECONDS, "listener" => tls.name)
                        .set(tls.expires_at().seconds_f64());
                }
            }
        }
    }
}
