//! Programs out of Debian's packages, for tests and benchmarks: nothing is installed on the machine.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

use crate::build::{cache, command, root, step};

/// Where the unpacked packages have their shared libraries.
pub(crate) fn libraries() -> PathBuf {
    cache().join(format!("debian/root/usr/lib/{}-linux-gnu", std::env::consts::ARCH))
}

/// A file out of a Debian package, unpacked into the cache and never installed.
pub(crate) fn debian(package: &str, file: &str) -> anyhow::Result<PathBuf> {
    let folder = cache().join("debian");
    let found = folder.join("root").join(file);
    if there(&found) {
        return Ok(found);
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
    let apt = |words: &[&str]| {
        let mut apt = command("apt-get");
        apt.args(options.iter().flat_map(|option| ["-o", option.as_str()]))
            .args(words)
            .current_dir(folder.join("download"));
        apt
    };
    static LISTS: Mutex<bool> = Mutex::new(false);
    let mut fresh = LISTS.lock().unwrap_or_else(PoisonError::into_inner);
    if !*fresh {
        step("package lists", apt(&["update", "-qq"]).stdout(std::process::Stdio::null()))?;
        *fresh = true;
    }
    step(&format!("download {package}"), apt(&["download", "-qq", package]).stdout(std::process::Stdio::null()))?;
    for entry in std::fs::read_dir(folder.join("download"))? {
        let archive = entry?.path();
        let mut unpack = command("dpkg-deb");
        unpack.arg("-x").arg(&archive).arg(folder.join("root"));
        step(&format!("unpack {package}"), &mut unpack)?;
        // The next package finds only its own archive here.
        std::fs::remove_file(&archive)?;
    }
    there(&found).then_some(found).with_context(|| format!("{package} holds no {file} ({})", root().display()))
}

/// Whether there is such a file: of a package's documentation, often a link into a package that is not here.
fn there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
