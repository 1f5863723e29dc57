//! `bench layout FILE`: which functions of the program a question from the command line goes through, for the linker, which puts
//! them side by side (ADR 035). Callgrind knows them all; a sampling profiler would miss those that run once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use lexopt::prelude::Value;
use wardroom_lake::{Config, Lake};
use wardroom_testing::server;

use super::read::{self, Day, Options};
use crate::tell;

/// Runs it.
pub(super) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let Some(Value(file)) = arguments.next()? else { anyhow::bail!("layout FILE: where does the list go?") };
    // Its folder goes with the target.
    let Day { target: _target, data } = read::day()?;
    let options = Options { series: 100_000, step_ms: 15_000, lines: 0, repeat: 5 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { read::samples(&Lake::open(&Config::default(), &data).await?, &options).await })?;
    let (profile, program) = (data.with_file_name("callgrind.out"), server::program("WARDROOM_BIN").canonicalize()?);
    let mut names = BTreeSet::new();
    for at in 0..options.repeat as i64 {
        // How a page is unpacked depends on what it holds.
        valgrind(&profile, &read::question(&data, options.series / options.repeat as i64 * at + at))?;
        names.extend(functions(&std::fs::read_to_string(&profile)?, &program));
    }
    ensure!(names.len() > 500, "only {} functions: the program has no symbols", names.len());
    let text: Vec<&str> = names.iter().map(String::as_str).chain([""]).collect();
    std::fs::write(&file, text.join("\n"))?;
    tell(format!("{} functions", names.len()));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the profiler is a program of its own")]
fn valgrind(profile: &Path, question: &[String]) -> anyhow::Result<()> {
    let valgrind = server::program("VALGRIND_BIN");
    let usr = valgrind.parent().and_then(Path::parent).context("VALGRIND_BIN lies in no bin folder")?;
    let mut command = Command::new(&valgrind);
    // It looks for its parts where its package would have put them.
    command.env("VALGRIND_LIB", usr.join("libexec/valgrind"));
    command.args(["--tool=callgrind", "--demangle=no"]);
    command.arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(server::program("WARDROOM_BIN")).args(question);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "valgrind ended with {status}");
    Ok(())
}

/// The functions of a program that a profile of callgrind tells of, by the names that the linker knows. A name is written out where
/// it first occurs, and is a number from then on.
fn functions(profile: &str, program: &Path) -> BTreeSet<String> {
    let (mut known, mut run, mut inside) = (BTreeMap::new(), BTreeSet::new(), false);
    let mut objects: BTreeMap<&str, PathBuf> = BTreeMap::new();
    for line in profile.lines() {
        let Some((what, (number, name))) = line.split_once('=').and_then(|(what, rest)| {
            let (number, name) = rest.strip_prefix('(')?.split_once(')')?;
            Some((what, (number, name.trim_start())))
        }) else {
            continue;
        };
        match what {
            "ob" | "cob" => {
                if !name.is_empty() {
                    objects.insert(number, name.into());
                }
                if what == "ob" {
                    inside = objects.get(number).is_some_and(|object| object == program);
                }
            }
            "fn" | "cfn" => {
                if !name.is_empty() {
                    known.insert(number, name);
                }
                if what == "fn" && inside {
                    run.insert(number);
                }
            }
            _ => {}
        }
    }
    // One that calls itself is told apart by depth (f, f'2), and what has no name by its address.
    let names = run.iter().filter_map(|number| known.get(number)?.split('\'').next());
    names.filter(|name| !name.starts_with("0x") && !name.contains(['(', '@'])).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_program_are_told_from_those_of_libraries() {
        let profile = "ob=(1) /bin/w\nfl=(1) a.rs\nfn=(1) main\n1 2\ncfn=(2) helper\ncalls=1 3\n1 5\n\
                       cob=(2) /lib/libc.so.6\ncfn=(3) read\ncalls=1 4\n1 5\n\nfn=(2)\n1 2\n\nfn=(4) helper'2\n1 2\n\n\
                       ob=(2)\nfn=(3)\n1 9\n\nob=(1)\nfn=(5) 0x0000000000401000\n1 1\n";
        let found = functions(profile, Path::new("/bin/w"));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["helper", "main"]);
    }
}
