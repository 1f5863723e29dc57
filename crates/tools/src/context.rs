//! What tools share: credentials, the HTTP client, programs, and a folder for what they must remember.

use std::path::PathBuf;
use std::sync::Arc;

use crate::http_client::HttpClient;
use crate::marks::Marks;
use crate::programs::{NoPrograms, Programs};
use crate::secrets::{Secrets, SecretsConfig};

/// What a tool is created with. Cloning is cheap; clones share everything.
#[derive(Clone, Debug)]
pub struct Context {
    /// Resolves credentials.
    pub secrets: Secrets,
    /// Starts programs.
    pub programs: Arc<dyn Programs>,
    /// Folder that the executor may write to; no other process can read it.
    pub folder: PathBuf,
    http: HttpClient,
}

impl Context {
    /// Creates a context. `folder` is created when a tool first writes to it.
    pub fn new(secrets: SecretsConfig, programs: Arc<dyn Programs>, folder: impl Into<PathBuf>) -> Self {
        let http = HttpClient::new();
        Self { secrets: Secrets::new(secrets, http.clone()), programs, folder: folder.into(), http }
    }

    /// Creates a context that resolves nothing and starts nothing: enough to describe tools and to check a
    /// configuration.
    pub fn of_descriptions() -> Self {
        Self::new(SecretsConfig::default(), Arc::new(NoPrograms), PathBuf::new())
    }

    /// Returns the context with another HTTP client.
    #[must_use]
    pub fn with_http(mut self, http: HttpClient) -> Self {
        self.http = http;
        self
    }

    /// Returns the HTTP client that every tool uses.
    pub fn http(&self) -> HttpClient {
        self.http.clone()
    }

    /// Returns the notes of a tool about its executions.
    pub(crate) fn marks(&self, tool: &str) -> Marks {
        Marks::new(self.folder.join(tool))
    }
}
