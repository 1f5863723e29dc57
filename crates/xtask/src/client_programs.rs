//! Client programs for the tests, kept in the cache: OpenTelemetry's SDKs for Python and JavaScript, the rotel
//! collector, readers of Delta tables, and object stores. Their versions are pinned beside the scripts that use them
//! (`crates/wardroom/tests/it/clients/`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::debian_packages::{library_folder, unpack};
use crate::steps::step;
use crate::workspace::{cache, command, root};

/// Debian's Python with what its standard library and pip need: (package, a file in it).
const PYTHON_PACKAGES: [(&str, &str); 9] = [
    ("libpython3.11-minimal", "usr/lib/python3.11/os.py"),
    ("libpython3.11-stdlib", "usr/lib/python3.11/json/__init__.py"),
    ("libexpat1", "usr/share/doc/libexpat1"),
    ("libssl3", "usr/share/doc/libssl3"),
    ("libffi8", "usr/share/doc/libffi8"),
    ("python3-pkg-resources", "usr/lib/python3/dist-packages/pkg_resources/__init__.py"),
    ("python3-setuptools", "usr/lib/python3/dist-packages/setuptools/__init__.py"),
    ("python3-wheel", "usr/lib/python3/dist-packages/wheel/__init__.py"),
    ("python3-pip", "usr/lib/python3/dist-packages/pip/__init__.py"),
];

/// Paths of the installed client programs.
pub(crate) struct ClientPrograms {
    python: PathBuf,
    site_packages: PathBuf,
    node: PathBuf,
}

impl ClientPrograms {
    /// Installs into the cache whatever is missing there.
    ///
    /// # Errors
    /// Returns an error if a package cannot be downloaded or installed, or npm is missing.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let python = unpack("python3.11-minimal", "usr/bin/python3.11")?;
        for (package, file) in PYTHON_PACKAGES {
            unpack(package, file)?;
        }
        let scripts = root().join("crates/wardroom/tests/it/clients");
        let clients = Self {
            python,
            site_packages: versioned_folder("python", &scripts.join("requirements.txt"))?,
            node: versioned_folder("node", &scripts.join("package-lock.json"))?,
        };
        if !clients.site_packages.join("done").exists() {
            let mut pip = clients.python();
            pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
            pip.args(["--root-user-action", "ignore", "--only-binary", ":all:", "--upgrade", "--target"]);
            pip.arg(&clients.site_packages).arg("--requirement").arg(scripts.join("requirements.txt"));
            step("install OpenTelemetry for Python, rotel, Delta readers, moto", &mut pip)?;
            std::fs::write(clients.site_packages.join("done"), "")?;
        }
        if !clients.node.join("done").exists() {
            for file in ["package.json", "package-lock.json"] {
                std::fs::copy(scripts.join(file), clients.node.join(file))?;
            }
            let mut npm = command("npm");
            npm.args(["ci", "--no-fund", "--no-audit", "--ignore-scripts", "--loglevel", "error"]);
            step("install OpenTelemetry for JavaScript, Azurite", npm.current_dir(&clients.node))
                .context("the client tests need Node with npm")?;
            std::fs::write(clients.node.join("done"), "")?;
        }
        Ok(clients)
    }

    /// Passes the paths to a command.
    pub(crate) fn set_env(&self, command: &mut Command) {
        command.env("CLIENT_PYTHON", &self.python).env("CLIENT_PYTHON_HOME", self.python_home());
        command.env("CLIENT_PYTHON_SITE", &self.site_packages).env("CLIENT_NODE", &self.node);
        command.env("CLIENT_LIBRARIES", library_folder());
        command.env("ROTEL_BIN", self.site_packages.join("rotel/rotel-agent"));
    }

    fn python_home(&self) -> &Path {
        self.python.ancestors().nth(2).unwrap_or(&self.python)
    }

    fn python(&self) -> Command {
        let mut python = command(&self.python);
        python.env("PYTHONHOME", self.python_home()).env("LD_LIBRARY_PATH", library_folder());
        python
    }
}

/// A folder in the cache whose name contains a hash (FNV-1a) of a lock file: changed pins get a new folder.
fn versioned_folder(name: &str, lock_file: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read(lock_file).with_context(|| lock_file.display().to_string())?;
    let digest = text
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let folder = cache().join("clients").join(format!("{name}-{digest:016x}"));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
