//! Real counterparts of tools for the tests: a D-Bus daemon with python-dbusmock's systemd, and Terraform.
//!
//! The daemon and Python are those of Debian, unpacked into the cache. Terraform is the user's: its licence does not
//! allow to distribute it, and Debian has none.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::debian_packages::{library_folder, unpack};
use crate::workspace::cache;

/// Packages with libraries and modules that python-dbusmock and the daemon load: (package, a file in it).
const PACKAGES: [(&str, &str); 9] = [
    ("libdbus-1-3", "usr/share/doc/libdbus-1-3"),
    ("libapparmor1", "usr/share/doc/libapparmor1"),
    ("libcap-ng0", "usr/share/doc/libcap-ng0"),
    ("libaudit1", "usr/share/doc/libaudit1"),
    ("libgirepository-1.0-1", "usr/share/doc/libgirepository-1.0-1"),
    ("libglib2.0-0", "usr/share/doc/libglib2.0-0"),
    ("gir1.2-glib-2.0", "usr/share/doc/gir1.2-glib-2.0"),
    ("python3-dbus", "usr/lib/python3/dist-packages/dbus/__init__.py"),
    ("python3-gi", "usr/lib/python3/dist-packages/gi/__init__.py"),
];

/// Paths of the counterparts.
pub(crate) struct ToolCounterparts {
    dbus_daemon: PathBuf,
    dbusmock_python: PathBuf,
    terraform: PathBuf,
}

impl ToolCounterparts {
    /// Unpacks into the cache whatever is missing there, and finds Terraform.
    ///
    /// # Errors
    /// Returns an error if a package cannot be downloaded or unpacked, or Terraform is missing.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let daemon = unpack("dbus-daemon", "usr/bin/dbus-daemon")?;
        let python = unpack("python3.11-minimal", "usr/bin/python3.11")?;
        for (package, file) in PACKAGES {
            unpack(package, file)?;
        }
        let modules = unpack("python3-dbusmock", "usr/lib/python3/dist-packages/dbusmock/__init__.py")?;
        let modules = modules.ancestors().nth(2).unwrap_or(&modules).to_owned();
        let home = python.ancestors().nth(2).unwrap_or(&python).to_owned();
        let typelibs = library_folder().join("girepository-1.0");
        let python_environment =
            [("PYTHONHOME", home.as_path()), ("PYTHONPATH", &modules), ("GI_TYPELIB_PATH", &typelibs)];
        Ok(Self {
            dbus_daemon: write_wrapper("dbus-daemon", &daemon, &[])?,
            dbusmock_python: write_wrapper("dbusmock-python", &python, &python_environment)?,
            terraform: find_terraform()?,
        })
    }

    /// Passes the paths to a command.
    pub(crate) fn set_env(&self, command: &mut Command) {
        command.env("DBUS_DAEMON_BIN", &self.dbus_daemon).env("DBUSMOCK_PYTHON", &self.dbusmock_python);
        command.env("TERRAFORM_BIN", &self.terraform);
    }
}

/// Writes a script that starts an unpacked program with its libraries.
fn write_wrapper(name: &str, program: &Path, environment: &[(&str, &Path)]) -> anyhow::Result<PathBuf> {
    let folder = cache().join("wrappers");
    std::fs::create_dir_all(&folder)?;
    let mut script = format!("#!/bin/sh\nexport LD_LIBRARY_PATH='{}'\n", library_folder().display());
    for (name, value) in environment {
        writeln!(script, "export {name}='{}'", value.display())?;
    }
    writeln!(script, "exec '{}' \"$@\"", program.display())?;
    let path = folder.join(name);
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[expect(clippy::disallowed_methods, reason = "looks for a program as a shell does")]
fn find_terraform() -> anyhow::Result<PathBuf> {
    if let Ok(path) = std::env::var("TERRAFORM_BIN") {
        return Ok(path.into());
    }
    let folders = std::env::var("PATH").unwrap_or_default();
    let candidates =
        folders.split(':').flat_map(|folder| ["terraform", "tofu"].map(|name| Path::new(folder).join(name)));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.context("the tests of the tool `terraform` need Terraform or OpenTofu in PATH, or TERRAFORM_BIN")
}
