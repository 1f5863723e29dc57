//! What reads the OpenAPI document in tests: schemathesis, and generators of clients in TypeScript and Python. Their
//! versions are pinned in `clients/`, which says how users generate the same clients.

use std::path::PathBuf;
use std::process::Command;

use crate::pinned_packages::{Python, install_node_packages};
use crate::workspace::root;

/// Paths of the installed tools.
pub(crate) struct ApiTools {
    python: Python,
    site_packages: PathBuf,
    node: PathBuf,
}

impl ApiTools {
    /// Installs into the cache whatever is missing there.
    ///
    /// # Errors
    /// Returns an error if a package cannot be downloaded or installed, or npm is missing.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let (python, pins) = (Python::unpack()?, root().join("clients"));
        let label = "schemathesis, openapi-python-client";
        let site_packages = python.install("api-python", label, &pins.join("python/requirements.txt"))?;
        let node = install_node_packages("api-node", "openapi-typescript, TypeScript", &pins.join("typescript"))?;
        Ok(Self { python, site_packages, node })
    }

    /// Passes the paths to a command.
    pub(crate) fn set_env(&self, command: &mut Command) {
        self.python.set_env(command);
        command.env("API_PYTHON_SITE", &self.site_packages).env("API_NODE", &self.node);
    }
}
