//! Pinned packages of Python and Node for tests, installed once into the cache.
//!
//! A folder's name contains a hash of the file with the pins: changed pins get a new folder, and clones with different
//! pins do not disturb each other.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::debian_packages::{library_folder, unpack};
use crate::steps::step;
use crate::workspace::{cache, command};

/// What Python's standard library and pip need: (package, a file in it).
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

/// Debian's Python with pip, unpacked into the cache.
pub(crate) struct Python {
    program: PathBuf,
}

impl Python {
    /// Unpacks whatever is missing.
    ///
    /// # Errors
    /// Returns an error if a package cannot be downloaded or unpacked.
    pub(crate) fn unpack() -> anyhow::Result<Self> {
        let program = unpack("python3.11-minimal", "usr/bin/python3.11")?;
        for (package, file) in PYTHON_PACKAGES {
            unpack(package, file)?;
        }
        Ok(Self { program })
    }

    /// Installs the packages of a file of requirements, unless they are there, and returns their folder. `label` says
    /// what they are; the name of the folder begins with `name`.
    ///
    /// # Errors
    /// Returns an error if a package cannot be downloaded or installed.
    pub(crate) fn install(&self, name: &str, label: &str, requirements: &Path) -> anyhow::Result<PathBuf> {
        let folder = versioned_folder(name, requirements)?;
        if !folder.join("done").exists() {
            let mut pip = command(&self.program);
            pip.env("PYTHONHOME", self.home()).env("LD_LIBRARY_PATH", library_folder());
            pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
            pip.args(["--root-user-action", "ignore", "--only-binary", ":all:", "--upgrade", "--target"]);
            pip.arg(&folder).arg("--requirement").arg(requirements);
            step(&format!("install {label}"), &mut pip)?;
            std::fs::write(folder.join("done"), "")?;
        }
        Ok(folder)
    }

    /// Passes the paths of the program and of its libraries to a command.
    pub(crate) fn set_env(&self, command: &mut Command) {
        command.env("CLIENT_PYTHON", &self.program).env("CLIENT_PYTHON_HOME", self.home());
        command.env("CLIENT_LIBRARIES", library_folder());
    }

    fn home(&self) -> &Path {
        self.program.ancestors().nth(2).unwrap_or(&self.program)
    }
}

/// Installs the packages of a folder with `package.json` and `package-lock.json`, unless they are there, and returns
/// the folder that has `node_modules`.
///
/// # Errors
/// Returns an error if a package cannot be downloaded or installed, or npm is missing.
pub(crate) fn install_node_packages(name: &str, label: &str, pins: &Path) -> anyhow::Result<PathBuf> {
    let folder = versioned_folder(name, &pins.join("package-lock.json"))?;
    if !folder.join("done").exists() {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(pins.join(file), folder.join(file))?;
        }
        let mut npm = command("npm");
        npm.args(["ci", "--no-fund", "--no-audit", "--ignore-scripts", "--loglevel", "error"]);
        step(&format!("install {label}"), npm.current_dir(&folder)).context("the client tests need Node with npm")?;
        std::fs::write(folder.join("done"), "")?;
    }
    Ok(folder)
}

/// A folder in the cache whose name contains a hash (FNV-1a) of the file with the pins.
fn versioned_folder(name: &str, pins: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read(pins).with_context(|| pins.display().to_string())?;
    let digest = text
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let folder = cache().join("clients").join(format!("{name}-{digest:016x}"));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
