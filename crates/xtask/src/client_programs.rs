//! Client programs for the tests, kept in the cache: OpenTelemetry's SDKs for Python and JavaScript, the rotel
//! collector, readers of Delta tables, and object stores. Their versions are pinned beside the scripts that use them
//! (`crates/wardroom/tests/it/clients/`).

use std::path::PathBuf;
use std::process::Command;

use crate::pinned_packages::{Python, install_node_packages};
use crate::workspace::root;

/// Paths of the installed client programs.
pub(crate) struct ClientPrograms {
    python: Python,
    site_packages: PathBuf,
    node: PathBuf,
}

impl ClientPrograms {
    /// Installs into the cache whatever is missing there.
    ///
    /// # Errors
    /// Returns an error if a package cannot be downloaded or installed, or npm is missing.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let (python, pins) = (Python::unpack()?, root().join("crates/wardroom/tests/it/clients"));
        let label = "OpenTelemetry for Python, rotel, Delta readers, moto";
        let site_packages = python.install("python", label, &pins.join("requirements.txt"))?;
        let node = install_node_packages("node", "OpenTelemetry for JavaScript, Azurite", &pins)?;
        Ok(Self { python, site_packages, node })
    }

    /// Passes the paths to a command.
    pub(crate) fn set_env(&self, command: &mut Command) {
        self.python.set_env(command);
        command.env("CLIENT_PYTHON_SITE", &self.site_packages).env("CLIENT_NODE", &self.node);
        command.env("ROTEL_BIN", self.site_packages.join("rotel/rotel-agent"));
    }
}
