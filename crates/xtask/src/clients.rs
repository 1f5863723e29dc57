//! Real programs for the tests, in the cache: OpenTelemetry's SDKs for Python and JavaScript, the rotel collector, readers of Delta
//! tables, and object stores. The versions stand beside the scripts that use them (`crates/wardroom/tests/it/clients/`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::build::{cache, command, root, step};
use crate::debian::{debian, libraries};

/// Python as Debian has it, with what its standard library needs.
const PYTHON: [(&str, &str); 9] = [
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

/// What the tests are told of the senders.
pub(crate) struct Clients {
    python: PathBuf,
    site: PathBuf,
    node: PathBuf,
}

impl Clients {
    /// Fetches what is not there yet.
    pub(crate) fn fetch() -> anyhow::Result<Self> {
        let python = debian("python3.11-minimal", "usr/bin/python3.11")?;
        for (package, file) in PYTHON {
            debian(package, file)?;
        }
        let scripts = root().join("crates/wardroom/tests/it/clients");
        let clients = Self {
            python,
            site: kept("python", &scripts.join("requirements.txt"))?,
            node: kept("node", &scripts.join("package-lock.json"))?,
        };
        if !clients.site.join("done").exists() {
            let mut pip = clients.python();
            pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
            pip.args(["--root-user-action", "ignore", "--only-binary", ":all:", "--upgrade", "--target"]);
            pip.arg(&clients.site).arg("--requirement").arg(scripts.join("requirements.txt"));
            step("OpenTelemetry for Python, rotel, readers of tables, moto", &mut pip)?;
            std::fs::write(clients.site.join("done"), "")?;
        }
        if !clients.node.join("done").exists() {
            for file in ["package.json", "package-lock.json"] {
                std::fs::copy(scripts.join(file), clients.node.join(file))?;
            }
            let mut npm = command("npm");
            npm.args(["ci", "--no-fund", "--no-audit", "--ignore-scripts", "--loglevel", "error"]);
            step("OpenTelemetry for JavaScript, Azurite", npm.current_dir(&clients.node))
                .context("Node with npm is needed for the tests of its clients")?;
            std::fs::write(clients.node.join("done"), "")?;
        }
        Ok(clients)
    }

    /// Tells a test run where they are.
    pub(crate) fn tell(&self, tests: &mut Command) {
        let home = self.python.ancestors().nth(2).unwrap_or(&self.python);
        tests.env("CLIENT_PYTHON", &self.python).env("CLIENT_PYTHON_HOME", home).env("CLIENT_PYTHON_SITE", &self.site);
        tests.env("CLIENT_NODE", &self.node).env("CLIENT_LIBRARIES", libraries());
        tests.env("ROTEL_BIN", self.site.join("rotel/rotel-agent"));
    }

    fn python(&self) -> Command {
        let mut python = command(&self.python);
        let home = self.python.ancestors().nth(2).unwrap_or(&self.python);
        python.env("PYTHONHOME", home).env("LD_LIBRARY_PATH", libraries());
        python
    }
}

/// A folder in the cache that changes with what it is made from.
fn kept(name: &str, from: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read(from).with_context(|| from.display().to_string())?;
    let digest = text
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let folder = cache().join("clients").join(format!("{name}-{digest:016x}"));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
