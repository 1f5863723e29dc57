//! The workspace's packages and their source files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::workspace::{command, root};

/// Packages that are not part of the product; some rules do not apply to them.
pub(super) const INTERNAL_PACKAGES: &[&str] = &["shop", "wardroom-testing", "wardroom-evals", "xtask"];

/// A workspace member.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    /// Names of the normal dependencies, sorted; no dev and build dependencies.
    pub(super) dependencies: Vec<String>,
}

impl Package {
    pub(super) fn is_shipped(&self) -> bool {
        !INTERNAL_PACKAGES.contains(&self.name.as_str())
    }
}

/// Reads the workspace members from `cargo metadata`.
///
/// # Errors
/// Returns an error if cargo cannot be run or its output is unexpected.
pub(super) fn read() -> anyhow::Result<Vec<Package>> {
    let output = command("cargo").args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata without packages")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let package = |value: &Value| {
        let folder = PathBuf::from(text(&value["manifest_path"])).parent().map(Path::to_owned).unwrap_or_default();
        let all = value["dependencies"].as_array().into_iter().flatten();
        let normal = all.filter(|dependency| dependency["kind"].is_null());
        let mut dependencies: Vec<String> = normal.map(|dependency| text(&dependency["name"])).collect();
        dependencies.sort();
        Package { name: text(&value["name"]), folder, dependencies }
    };
    Ok(packages.iter().map(package).collect())
}

/// All Rust files below a folder, sorted; none if the folder does not exist.
///
/// # Errors
/// Returns an error if a folder cannot be read.
pub(super) fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files_with_extension(folder, "rs")
}

/// All files below a folder with an extension, sorted; none if the folder does not exist.
///
/// # Errors
/// Returns an error if a folder cannot be read.
pub(super) fn files_with_extension(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_with_extension(&path, extension)?);
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file contains tests only, by its path.
pub(super) fn is_test_file(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs")
        || path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_tests"))
}

/// A path relative to the workspace, for messages.
pub(super) fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
