//! `cargo xtask tidy`: the house rules that a machine can hold.
//!
//! 1. The crate graph is the reviewed one (`docs/reference/crate-graph.txt`), without cycles.
//! 2. Heavy crates are named by their one owner only.
//! 3. Files, functions and crates stay within their sizes; the allow-list may only shrink.
//! 4. Every crate opens with a doc of at least ten lines, inherits lints and versions; runbooks and
//!    registry are one to one.
//! 5. Unsafe code stands in listed files only.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use lexopt::prelude::Long;
use serde_json::Value;

use crate::build::{command, root};

/// Heavy crate → who may name it. Never-shipped crates may name anything.
const OWNERS: &[(&str, &[&str])] = &[
    ("axum", &["wardroom-api", "wardroom-edge", "wardroom-sources"]),
    ("sqlx", &["wardroom-store"]),
    ("deltalake-core", &["wardroom-lake"]),
    ("datafusion", &["wardroom-lake"]),
    ("arrow", &["wardroom-lake"]),
    ("object_store", &["wardroom-lake"]),
    ("parquet", &["wardroom-lake"]),
    ("tantivy", &["wardroom-knowledge"]),
    ("snap", &["wardroom-sources"]),
    ("landlock", &["wardroom-process"]),
    ("maud", &["wardroom-api"]),
    ("clap", &["wardroom"]),
];
/// Crates that may not know tokio.
const PURE: &[&str] = &[
    "wardroom-domain",
    "wardroom-head",
    "wardroom-detect",
    "wardroom-correlate",
    "wardroom-diagnose",
    "wardroom-respond",
];
/// Where unsafe code may stand; all other crates forbid it (RELIABILITY 9d).
const UNSAFE: &[&str] = &["crates/process/src/heap.rs"];
const NEVER_SHIPPED: &[&str] = &["shop", "wardroom-testing", "wardroom-evals", "xtask"];
/// Lines of product code (tests not counted).
const FILE_LINES: usize = 600;
const CRATE_LINES: &[(&str, usize)] =
    &[("wardroom-domain", 6000), ("wardroom-pipeline", 4000), ("wardroom-roles", 4000), ("wardroom", 2500)];
/// What telemetry's way may not know of: whatever is done about an incident.
const BEYOND_PIPELINE: &[&str] =
    &["wardroom-diagnose", "wardroom-knowledge", "wardroom-respond", "wardroom-tools", "wardroom-executor"];
const ANY_CRATE_LINES: usize = 12_000;

/// Runs the command.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut bless = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("bless") => bless = true,
            other => return Err(other.unexpected().into()),
        }
    }
    check(bless)?;
    anstream::eprintln!("tidy");
    Ok(ExitCode::SUCCESS)
}

/// Checks all rules; with `bless` the crate graph is written instead of compared.
pub(crate) fn check(bless: bool) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    let packages = packages()?;
    graph(&packages, bless, &mut problems)?;
    owners(&packages, &mut problems);
    sizes(&packages, &mut problems)?;
    manifests(&packages, &mut problems)?;
    runbooks(&mut problems)?;
    own_words(&mut problems)?;
    metric_names(&packages, &mut problems)?;
    unsafe_code(&packages, &mut problems)?;
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        anstream::eprintln!("tidy: {problem}");
    }
    bail!("{} house rules broken", problems.len())
}

struct Package {
    name: String,
    folder: PathBuf,
    /// Normal dependencies.
    needs: Vec<String>,
}

fn packages() -> anyhow::Result<Vec<Package>> {
    let output = command("cargo").args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let list = metadata["packages"].as_array().context("no packages")?;
    let package = |value: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let needs = value["dependencies"].as_array().into_iter().flatten();
        let folder = PathBuf::from(text(&value["manifest_path"])).parent().map(Path::to_owned).unwrap_or_default();
        let mut needs: Vec<String> =
            needs.filter(|need| need["kind"].is_null()).map(|need| text(&need["name"])).collect();
        needs.sort();
        Package { name: text(&value["name"]), folder, needs }
    };
    Ok(list.iter().map(package).collect())
}

fn graph(packages: &[Package], bless: bool, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let inside = package.needs.iter().map(String::as_str).filter(|need| names.contains(need));
        edges.insert(&package.name, inside.collect());
    }
    let mut text = String::from(
        "# Which crate uses which. `cargo xtask tidy --bless` writes it; a changed line wants a reviewer.\n",
    );
    for (name, needs) in &edges {
        writeln!(text, "{name}: {}", needs.join(" "))?;
    }
    let path = root().join("docs/reference/crate-graph.txt");
    if bless {
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, &text)?;
    } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
        problems.push("the crate graph changed: look at it, then `cargo xtask tidy --bless`".into());
    }
    for (name, needs) in &edges {
        let allowed =
            matches!(*name, "wardroom-roles" | "wardroom-executor" | "wardroom") || NEVER_SHIPPED.contains(name);
        let extra = needs.iter().filter(|need| {
            let edge = matches!(*name, "wardroom-sources" | "wardroom-api") && **need == "wardroom-edge";
            let respond = *name == "wardroom-tools" && **need == "wardroom-respond";
            let pipeline = *name == "wardroom-pipeline" && !BEYOND_PIPELINE.contains(need);
            **need != "wardroom-domain" && !edge && !respond && !pipeline && !allowed
        });
        problems.extend(extra.map(|need| format!("{name} may not use {need}: see STYLE, direction")));
    }
    Ok(())
}

fn owners(packages: &[Package], problems: &mut Vec<String>) {
    for package in packages.iter().filter(|package| !NEVER_SHIPPED.contains(&package.name.as_str())) {
        for need in &package.needs {
            let owner = OWNERS.iter().find(|(heavy, _)| heavy == need);
            if owner.is_some_and(|(_, owners)| !owners.contains(&package.name.as_str())) {
                problems.push(format!("{} names {need}, which is not its to name", package.name));
            }
            if need == "tokio" && PURE.contains(&package.name.as_str()) {
                problems.push(format!("{} is pure and may not know tokio", package.name));
            }
        }
    }
}

fn sizes(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages {
        let mut all = 0;
        for file in rust_files(&package.folder.join("src"))? {
            if file.iter().any(|part| part == "tests" || part == "tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&file)?;
            let product = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let lines = product.lines().count();
            all += lines;
            if lines > FILE_LINES {
                problems.push(format!("{} has {lines} lines of product code, more than {FILE_LINES}", file.display()));
            }
        }
        let limit =
            CRATE_LINES.iter().find(|(name, _)| *name == package.name).map_or(ANY_CRATE_LINES, |(_, limit)| *limit);
        if all > limit {
            problems.push(format!("{} has {all} lines, more than {limit}", package.name));
        }
    }
    Ok(())
}

fn manifests(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages {
        let manifest = std::fs::read_to_string(package.folder.join("Cargo.toml"))?;
        for wanted in ["[lints]\nworkspace = true", "version.workspace = true", "license.workspace = true"] {
            if !manifest.contains(wanted) {
                problems.push(format!("{}: Cargo.toml lacks `{}`", package.name, wanted.replace('\n', " ")));
            }
        }
        if let Some(line) = manifest.lines().find(|line| line.contains("version = \"")) {
            problems.push(format!("{}: `{line}` must come from the workspace", package.name));
        }
        let library = package.folder.join("src/lib.rs");
        if let Ok(text) = std::fs::read_to_string(&library) {
            let doc = text.lines().take_while(|line| line.starts_with("//!")).count();
            if doc < 10 {
                problems.push(format!("{} opens with {doc} lines of doc; ten say what it is for", library.display()));
            }
        }
    }
    Ok(())
}

/// Files of `runbooks/` and the built-in list are one to one.
fn runbooks(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let list = std::fs::read_to_string(root().join("crates/knowledge/src/builtin.rs"))?;
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("runbooks"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        count += 1;
        if !list.contains(&format!("runbooks/{name}\"")) {
            problems.push(format!("runbooks/{name} is not in crates/knowledge/src/builtin.rs"));
        }
    }
    if list.matches("include_str!").count() != count {
        problems.push("crates/knowledge/src/builtin.rs lists a runbook that is not in runbooks/".into());
    }
    Ok(())
}

/// Nothing of the product lives off the shop's vocabulary.
fn own_words(problems: &mut Vec<String>) -> anyhow::Result<()> {
    let names = [
        "storefront",
        "payments",
        "catalogue",
        "fulfilment",
        "newsletter",
        "client_timeout_ms",
        "max_requests_per_second",
        "shop_",
    ];
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join("crates"))? {
        let folder = entry?.path();
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !["shop", "testing", "evals", "xtask"].contains(&name.as_str()) {
            files.extend(rust_files(&folder.join("src"))?);
        }
    }
    for entry in std::fs::read_dir(root().join("runbooks"))? {
        files.push(entry?.path());
    }
    for file in files {
        let text = std::fs::read_to_string(&file)?.to_lowercase();
        problems.extend(
            names
                .iter()
                .filter(|name| text.contains(**name))
                .map(|name| format!("{} knows the shop's word {name:?}", file.display())),
        );
    }
    Ok(())
}

/// Crates forbid unsafe code, but for those with a listed file.
fn unsafe_code(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages {
        let mut forbidden = false;
        for file in rust_files(&package.folder.join("src"))? {
            let text = std::fs::read_to_string(&file)?;
            forbidden |= text.contains("\n#![forbid(unsafe_code)]\n");
            let listed = UNSAFE.iter().any(|listed| file.ends_with(listed));
            let excepted = text.lines().any(|line| line.trim_start().starts_with("#[expect(unsafe_code"));
            if excepted && !listed {
                problems.push(format!("{} has unsafe code and is not listed", file.display()));
            }
        }
        let listed = UNSAFE.iter().any(|listed| root().join(listed).starts_with(&package.folder));
        if forbidden == listed {
            problems
                .push(format!("{} must forbid unsafe code at its root, unless a file of it is listed", package.name));
        }
    }
    Ok(())
}

/// A metric's name is a documented constant, so that the reference knows it.
fn metric_names(packages: &[Package], problems: &mut Vec<String>) -> anyhow::Result<()> {
    for package in packages.iter().filter(|package| !NEVER_SHIPPED.contains(&package.name.as_str())) {
        for file in rust_files(&package.folder.join("src"))? {
            let text = std::fs::read_to_string(&file)?;
            if ["counter!(\"", "gauge!(\"", "histogram!(\""].iter().any(|literal| text.contains(literal)) {
                problems.push(format!("{} names a metric in place; name it in metrics.rs", file.display()));
            }
        }
    }
    Ok(())
}

/// Every Rust file below a folder, sorted.
fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
