//! Files from Debian packages for tests and benchmarks: downloaded and unpacked into the cache, never installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

use crate::steps::step;
use crate::workspace::{cache, command};

/// Folder with the shared libraries of the unpacked packages.
pub(crate) fn library_folder() -> PathBuf {
    cache().join(format!("debian/root/usr/lib/{}-linux-gnu", std::env::consts::ARCH))
}

/// Unpacks shared libraries that an unpacked program needs and the machine may lack.
///
/// # Errors
/// Returns an error if a package cannot be downloaded or unpacked.
pub(crate) fn unpack_libraries(packages: &[&str]) -> anyhow::Result<()> {
    for package in packages {
        unpack(package, &format!("usr/share/doc/{package}"))?;
    }
    Ok(())
}

/// Unpacks a package into the cache, unless it is there already, and returns the path of one of its files.
///
/// # Errors
/// Returns an error if the package cannot be downloaded or unpacked, or lacks the file.
pub(crate) fn unpack(package: &str, file: &str) -> anyhow::Result<PathBuf> {
    let folder = cache().join("debian");
    let path = folder.join("root").join(file);
    if exists(&path) {
        return Ok(path);
    }
    let lists = folder.join("lists");
    for sub in ["lists/partial", "cache/archives/partial", "root", "download"] {
        std::fs::create_dir_all(folder.join(sub))?;
    }
    let options = [
        format!("Dir::State::lists={}", lists.display()),
        format!("Dir::Cache={}", folder.join("cache").display()),
        "Debug::NoLocking=1".to_owned(),
    ];
    let apt = |arguments: &[&str]| {
        let mut apt = command("apt-get");
        apt.args(options.iter().flat_map(|option| ["-o", option.as_str()]))
            .args(arguments)
            .current_dir(folder.join("download"));
        apt
    };
    static LISTS_UPDATED: Mutex<bool> = Mutex::new(false);
    let mut updated = LISTS_UPDATED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*updated {
        step("package lists", apt(&["update", "-qq"]).stdout(Stdio::null()))?;
        *updated = true;
    }
    step(&format!("download {package}"), apt(&["download", "-qq", package]).stdout(Stdio::null()))?;
    for entry in std::fs::read_dir(folder.join("download"))? {
        let archive = entry?.path();
        step(&format!("unpack {package}"), command("dpkg-deb").arg("-x").arg(&archive).arg(folder.join("root")))?;
        // The folder must be empty for the next package.
        std::fs::remove_file(&archive)?;
    }
    exists(&path).then_some(path).with_context(|| format!("package {package} has no file {file}"))
}

/// Does not follow links: the documentation of a package is often a link into a package that is not unpacked.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
