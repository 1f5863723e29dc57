//! Dependencies between crates: the graph is the reviewed one, follows the layers of ARCHITECTURE.md, and heavy
//! external crates are used by their owners only.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::packages::{INTERNAL_PACKAGES, Package};
use crate::workspace::root;

/// Heavy external crates and the packages that may depend on them.
const ALLOWED_DEPENDENTS: &[(&str, &[&str])] = &[
    ("axum", &["wardroom-api", "wardroom-edge", "wardroom-sources"]),
    ("sqlx", &["wardroom-store"]),
    ("deltalake-core", &["wardroom-lake"]),
    ("datafusion", &["wardroom-lake"]),
    ("arrow", &["wardroom-lake"]),
    ("object_store", &["wardroom-executor", "wardroom-lake"]),
    ("parquet", &["wardroom-lake"]),
    ("tantivy", &["wardroom-knowledge"]),
    ("cedar-policy", &["wardroom-policy"]),
    ("snap", &["wardroom-sources"]),
    ("landlock", &["wardroom-process"]),
    ("seccompiler", &["wardroom-process"]),
    ("maud", &["wardroom-api"]),
    ("clap", &["wardroom", "wardroom-cli"]),
    ("kube", &["wardroom-tools"]),
    ("redis", &["wardroom-tools"]),
    ("tokio-postgres", &["wardroom-tools"]),
];
/// Crates without I/O and async code.
const IO_FREE_CRATES: &[&str] = &[
    "wardroom-domain",
    "wardroom-signals",
    "wardroom-head",
    "wardroom-detect",
    "wardroom-correlate",
    "wardroom-diagnose",
    "wardroom-policy",
    "wardroom-respond",
];
/// Crates of the workspace that a crate may use besides `wardroom-domain`.
const ALLOWED_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("wardroom-detect", &["wardroom-signals"]),
    ("wardroom-correlate", &["wardroom-signals"]),
    ("wardroom-diagnose", &["wardroom-signals"]),
    ("wardroom-sources", &["wardroom-edge"]),
    ("wardroom-edge", &["wardroom-identity", "wardroom-traces"]),
    ("wardroom-api", &["wardroom-edge", "wardroom-identity"]),
    ("wardroom-tools", &["wardroom-respond"]),
    ("wardroom-query", &["wardroom-lake", "wardroom-traces"]),
    ("wardroom-cli", &["wardroom-process"]),
];
/// Crates that combine others.
const COMPOSITION_CRATES: &[&str] = &[
    "wardroom-pipeline",
    "wardroom-config",
    "wardroom-data-folder",
    "wardroom-response",
    "wardroom-access",
    "wardroom-roles",
    "wardroom-executor",
    "wardroom",
];
/// Edges that stay forbidden for them.
const FORBIDDEN_DEPENDENCIES: &[(&str, &[&str], &str)] = &[
    (
        "wardroom-pipeline",
        &["wardroom-diagnose", "wardroom-knowledge", "wardroom-respond", "wardroom-tools", "wardroom-executor"],
        "the telemetry path does not depend on incident response",
    ),
    ("wardroom-pipeline", &["wardroom-api"], "queries return plain types; roles converts them to views"),
    ("wardroom-config", &["wardroom-store", "wardroom-executor"], "configuration opens nothing"),
    ("wardroom-executor", &["wardroom-store"], "the executor does not link SQLite"),
];

/// Checks the rule; with `bless` the reviewed graph is written instead of compared.
///
/// # Errors
/// Returns an error if the reviewed graph cannot be written.
pub(super) fn check(packages: &[Package], bless: bool, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let graph = graph(packages);
    let mut text = String::from(
        "# Dependencies between the workspace's crates, written by `cargo xtask tidy --bless`. Review changed lines.\n",
    );
    for (name, dependencies) in &graph {
        writeln!(text, "{name}: {}", dependencies.join(" "))?;
    }
    let path = root().join("docs/reference/crate-graph.txt");
    if bless {
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, &text)?;
    } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
        problems.push("the crate graph has changed: run `cargo xtask tidy --bless` and review the difference".into());
    }
    for (name, dependencies) in &graph {
        problems.extend(dependencies.iter().filter_map(|dependency| refusal(name, dependency)));
    }
    check_external(packages, problems);
    Ok(())
}

fn graph(packages: &[Package]) -> BTreeMap<&str, Vec<&str>> {
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let edges = |package: &'_ Package| -> Vec<usize> {
        package.dependencies.iter().filter_map(|name| names.iter().position(|known| known == name)).collect()
    };
    packages
        .iter()
        .map(|package| {
            let mut dependencies: Vec<&str> = edges(package).into_iter().map(|index| names[index]).collect();
            dependencies.sort_unstable();
            (package.name.as_str(), dependencies)
        })
        .collect()
}

/// Why a crate may not depend on another one of the workspace; `None` if it may.
fn refusal(name: &str, dependency: &str) -> Option<String> {
    if let Some((_, _, reason)) = FORBIDDEN_DEPENDENCIES
        .iter()
        .find(|(crate_name, forbidden, _)| *crate_name == name && forbidden.contains(&dependency))
    {
        return Some(format!("{name} may not depend on {dependency}: {reason}"));
    }
    let allowed =
        ALLOWED_DEPENDENCIES.iter().any(|(crate_name, allowed)| *crate_name == name && allowed.contains(&dependency));
    if dependency == "wardroom-domain"
        || allowed
        || COMPOSITION_CRATES.contains(&name)
        || INTERNAL_PACKAGES.contains(&name)
    {
        return None;
    }
    Some(format!("{name} may not depend on {dependency}: see the layers in ARCHITECTURE.md"))
}

fn check_external(packages: &[Package], problems: &mut Vec<String>) {
    for package in packages.iter().filter(|package| package.is_shipped()) {
        let name = package.name.as_str();
        for dependency in &package.dependencies {
            if let Some((_, owners)) = ALLOWED_DEPENDENTS.iter().find(|(heavy, _)| heavy == dependency)
                && !owners.contains(&name)
            {
                problems.push(format!("{name} may not depend on {dependency}; only {} may", owners.join(", ")));
            }
            if dependency == "tokio" && IO_FREE_CRATES.contains(&name) {
                problems.push(format!("{name} may not depend on tokio: it is free of I/O and async code"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_edges_against_the_layers_and_heavy_crates_outside_their_owner() {
        assert!(refusal("wardroom-head", "wardroom-bus").is_some());
        assert!(refusal("wardroom-pipeline", "wardroom-respond").is_some());
        assert!(refusal("wardroom-pipeline", "wardroom-lake").is_none());
        let package = Package {
            name: "wardroom-head".into(),
            folder: std::path::PathBuf::new(),
            dependencies: vec!["sqlx".into(), "tokio".into()],
        };
        let mut problems = Vec::new();
        check_external(&[package], &mut problems);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
