//! Paths of the workspace and of its cache, and commands that run in the workspace.

use std::path::PathBuf;
use std::process::Command;

/// The workspace's root folder, as cargo reports it at run time: clones that share a target folder also share this
/// program, and the folder it was built in may belong to another clone or no longer exist.
pub(crate) fn root() -> PathBuf {
    let manifest = var("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.ancestors().nth(2).unwrap_or(&manifest).to_owned()
}

/// Folder for everything that can be rebuilt or downloaded again.
pub(crate) fn cache() -> PathBuf {
    let home =
        var("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".cache")));
    home.unwrap_or_else(|| PathBuf::from("/tmp")).join("wardroom")
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, or one in the cache outside the clone.
pub(crate) fn target() -> PathBuf {
    var("CARGO_TARGET_DIR").map_or_else(|| cache().join("target"), PathBuf::from)
}

/// Reads an environment variable; `None` if it is unset or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "xtask is a developer's tool without a configuration file")]
pub(crate) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A command that runs in the workspace's root folder with the shared target folder.
#[expect(clippy::disallowed_methods, reason = "xtask starts other programs")]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env("CARGO_TARGET_DIR", target());
    // Cargo's variables about xtask must not reach a nested cargo: build scripts that track them (ring's) would run
    // again and rebuild half of the lake's dependencies whenever another clone uses the same target folder.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text.starts_with("CARGO_BIN_") {
            command.env_remove(&name);
        }
    }
    command
}
