//! `cargo xtask gen`: references made from code, so that nothing is typed twice.

use std::process::ExitCode;

use anyhow::bail;
use lexopt::prelude::Long;
use serde_json::Value;

use crate::build::{Programs, command, programs, root};

/// Runs the command.
pub(crate) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<ExitCode> {
    let mut only_check = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("check") => only_check = true,
            other => return Err(other.unexpected().into()),
        }
    }
    check(only_check)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the references, or says which are out of date.
pub(crate) fn check(only_check: bool) -> anyhow::Result<()> {
    let programs = programs()?;
    let files = [
        ("docs/reference/configuration.schema.json", output(&programs, &["config", "schema"])?),
        ("docs/reference/configuration.md", configuration(&output(&programs, &["config", "schema"])?)?),
        ("docs/reference/cli.md", cli(&programs)?),
        ("docs/reference/crash-points.txt", output(&programs, &["crash-points"])?),
        ("docs/reference/openapi.json", output(&programs, &["openapi"])?),
        ("docs/reference/metrics.md", metrics()?),
    ];
    let mut stale = Vec::new();
    for (name, text) in files {
        let path = root().join(name);
        if std::fs::read_to_string(&path).unwrap_or_default() == text {
            continue;
        }
        if only_check {
            stale.push(name);
        } else {
            std::fs::write(&path, text)?;
            anstream::eprintln!("wrote {name}");
        }
    }
    if !stale.is_empty() {
        bail!("out of date: {}; run `cargo xtask gen`", stale.join(", "));
    }
    Ok(())
}

fn output(programs: &Programs, arguments: &[&str]) -> anyhow::Result<String> {
    let output = command(&programs.wardroom).args(arguments).env("COLUMNS", "100").output()?;
    Ok(String::from_utf8(output.stdout)?)
}

fn cli(programs: &Programs) -> anyhow::Result<String> {
    let mut text = String::from("# Command line\n\nMade by `cargo xtask gen` from the program's own help.\n");
    let commands: [&[&str]; 8] = [
        &[],
        &["serve"],
        &["token", "create"],
        &["samples", "dump"],
        &["incidents"],
        &["incidents", "approve"],
        &["audit", "verify"],
        &["config"],
    ];
    for command in commands {
        let mut arguments = command.to_vec();
        arguments.push("--help");
        let help = output(programs, &arguments)?;
        text.push_str(&format!("\n## wardroom {}\n\n```text\n{}\n```\n", command.join(" "), help.trim_end()));
    }
    Ok(text)
}

fn configuration(schema: &str) -> anyhow::Result<String> {
    let schema: Value = serde_json::from_str(schema)?;
    let mut text = String::from(
        "# Configuration\n\nMade by `cargo xtask gen` from the code. Defaults are lowest, then the YAML file of `--config`,\n\
         then the environment: `WARDROOM_DETECT__Z_WARNING=3` sets `detect.z-warning`.\n",
    );
    for (section, body) in schema["properties"].as_object().into_iter().flatten() {
        text.push_str(&format!("\n## {section}\n\n| field | meaning |\n|---|---|\n"));
        fields(&schema, section, body, &mut text);
    }
    Ok(text)
}

/// One row for each field below a section, also of sections within it.
fn fields(schema: &Value, section: &str, body: &Value, text: &mut String) {
    let defined = |body: &Value| {
        let name = body["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        schema["$defs"][name]["properties"].as_object().cloned().unwrap_or_default()
    };
    for (field, body) in defined(body) {
        let meaning = body["description"].as_str().unwrap_or_default().replace('\n', " ");
        if defined(&body).is_empty() {
            text.push_str(&format!("| `{section}.{field}` | {meaning} |\n"));
        } else {
            fields(schema, &format!("{section}.{field}"), &body, text);
        }
    }
}

/// Every metric: from the documented constants of each crate's `metrics.rs`.
fn metrics() -> anyhow::Result<String> {
    let mut text = String::from(
        "# Metrics\n\nMade by `cargo xtask gen` from the code; served at `/metrics` in Prometheus' text format.\n\n\
         | metric | meaning |\n|---|---|\n",
    );
    let mut crates: Vec<_> = std::fs::read_dir(root().join("crates"))?.collect::<Result<_, _>>()?;
    crates.sort_by_key(std::fs::DirEntry::file_name);
    for folder in crates {
        let Ok(source) = std::fs::read_to_string(folder.path().join("src/metrics.rs")) else { continue };
        let mut doc = Vec::new();
        for line in source.lines() {
            if let Some(words) = line.strip_prefix("/// ") {
                doc.push(words);
            } else if let Some((_, value)) = line.split_once("&str = \"") {
                text.push_str(&format!("| `{}` | {} |\n", value.trim_end_matches("\";"), doc.join(" ")));
                doc.clear();
            }
        }
    }
    Ok(text)
}
