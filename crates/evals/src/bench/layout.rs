//! `bench layout FILE`: which functions of the program run, for the linker, which puts them side by side (ADR 035): first those that
//! a server goes through for every request, then those of a question from the command line, then what else a server does. Callgrind
//! knows them all; a sampling profiler would miss those that run once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use lexopt::prelude::Value;
use wardroom_lake::{Config, Lake};
use wardroom_testing::{Server, server};

use super::bodies::Bodies;
use super::otlp;
use super::read::{self, Day, Options};
use crate::tell;

/// Series, and samples of each, that a server is sent: a hundred requests, and enough for its detectors to have learned.
const SENT: (usize, usize) = (2000, 100);
/// Requests of log records and of spans.
const REQUESTS: usize = 20;
/// Calls of what a server goes through for every request.
const OFTEN: u64 = SENT.1 as u64;
/// How long it has, once it was sent everything, to write its tables and to look at what it does by the minute.
const AT_REST: Duration = Duration::from_secs(90);

/// Runs it.
pub(super) fn run(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let Some(Value(file)) = arguments.next()? else { anyhow::bail!("layout FILE: where does the list go?") };
    // Its folder goes with the target.
    let Day { target: _target, data } = read::day()?;
    let program = server::program("WARDROOM_BIN").canonicalize()?;
    let asked = of_a_question(&data, &program)?;
    let mut serving = of_a_server(&data.with_file_name("watched"), &program)?;
    for (what, names) in [("a question", &asked), ("a server", &serving)] {
        ensure!(names.len() > 500, "only {} functions of {what}: the program has no symbols", names.len());
        tell(format!("{} functions of {what}", names.len()));
    }
    let symbols = symbols(&program)?;
    let faster = faster(&symbols, &serving);
    tell(format!("{} functions for more able processors", faster.len()));
    serving.extend(faster.into_iter().map(|name| (name.to_owned(), OFTEN)));
    let often = |name: &str| serving.get(name).copied().filter(|calls| *calls >= OFTEN);
    let mut names: Vec<&String> = serving.keys().filter(|name| often(name).is_some()).collect();
    names.sort_by_key(|name| Reverse(often(name)));
    let seldom = asked.keys().chain(serving.keys().filter(|name| !asked.contains_key(*name)));
    names.extend(seldom.filter(|name| often(name).is_none()));
    tell(format!("{} functions", names.len()));
    let text: String = names.into_iter().flat_map(|name| [name, "\n"]).collect();
    Ok(std::fs::write(&file, text)?)
}

/// Functions, by the names that the linker knows, and how often each was called.
type Calls = BTreeMap<String, u64>;

fn of_a_question(data: &Path, program: &Path) -> anyhow::Result<Calls> {
    let options = Options { series: 100_000, step_ms: 15_000, lines: 0, repeat: 5 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { read::samples(&Lake::open(&Config::default(), data).await?, &options).await })?;
    let (profile, mut all) = (data.with_file_name("callgrind.out"), Calls::new());
    for at in 0..options.repeat as i64 {
        // How a page is unpacked depends on what it holds.
        let question = read::question(data, options.series / options.repeat as i64 * at + at);
        ask(&profile, &question)?;
        add(&mut all, functions(&std::fs::read_to_string(&profile)?, program));
    }
    Ok(all)
}

#[expect(clippy::disallowed_methods, reason = "the profiler is a program of its own")]
fn ask(profile: &Path, question: &[String]) -> anyhow::Result<()> {
    let words = callgrind(profile);
    let mut command = Command::new(&words[0]);
    command.env("VALGRIND_LIB", parts()?).args(&words[1..]).arg(server::program("WARDROOM_BIN")).args(question);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "valgrind ended with {status}");
    Ok(())
}

/// Supervisor and server; the executor's environment is empty, and the profiler needs one.
fn of_a_server(dir: &Path, program: &Path) -> anyhow::Result<Calls> {
    let parts = parts()?;
    let environment = [("VALGRIND_LIB", parts.as_str()), ("WARDROOM_LAKE__FLUSH_SECONDS", "20")];
    let mut words = callgrind(&dir.join("callgrind.out.%p"));
    words.extend(["--trace-children=yes", "--trace-children-skip-by-arg=executor"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut server = Server::start_in(dir, "", &environment, &words)?;
    let (series, steps) = SENT;
    for body in Bodies::build(series, steps, 0, false).saturated {
        let status = server.write(&body)?;
        ensure!(status < 300, "a request was answered {status}");
    }
    for (path, bodies) in [("/v1/logs", otlp::logs(REQUESTS)), ("/v1/traces", otlp::traces(REQUESTS))] {
        for body in bodies {
            let (status, _, text) = server.post(path, &server.sender, otlp::HEADERS, &body)?;
            ensure!(status < 300, "{path}: {status} {text}");
        }
    }
    std::thread::sleep(AT_REST);
    for path in ["/readyz", "/metrics", "/api/v1/anomalies?since=0", "/api/v1/incidents"] {
        let (status, text) = server.get(path, &server.responder)?;
        ensure!(status == 200, "{path}: {status} {text}");
    }
    server.stop()?;
    let mut all = Calls::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("callgrind.out.")) {
            add(&mut all, functions(&std::fs::read_to_string(&path)?, program));
        }
    }
    Ok(all)
}

/// What the linker knows of the program, each in a line: name, kind, address.
#[expect(clippy::disallowed_methods, reason = "a program of the linker's package")]
fn symbols(program: &Path) -> anyhow::Result<String> {
    let listed = Command::new("nm").args(["--format=posix", "--defined-only"]).arg(program).output();
    let listed = listed.context("nm (of binutils) cannot be run")?;
    ensure!(listed.status.success(), "nm ended with {}: {}", listed.status, String::from_utf8_lossy(&listed.stderr));
    Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
}

/// Functions for processors that can do more than callgrind's, of crates that run: where it saw a slower one, a processor of today
/// takes these, and they would be alone in a stretch that is read for them only.
fn faster<'a>(symbols: &'a str, seen: &Calls) -> Vec<&'a str> {
    let run: BTreeSet<&str> = seen.keys().filter_map(|name| crate_of(name)).collect();
    let code = |line: &'a str| match line.split(' ').collect::<Vec<_>>()[..] {
        [name, "T" | "t", ..] => Some(name),
        _ => None,
    };
    let more_able = |name: &&str| ABLE.iter().any(|able| name.contains(able));
    let known = |name: &&str| crate_of(name).is_some_and(|of| run.contains(of));
    symbols.lines().filter_map(code).filter(more_able).filter(known).collect()
}

/// What names say of functions for instructions that callgrind does not know.
const ABLE: [&str; 2] = ["avx512", "x86_sha"];

/// The crate in a name of the linker's: `_ZN9crc32fast11specialized…` is of `crc32fast`.
fn crate_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("_ZN")?;
    let (digits, rest) = rest.split_at(rest.find(|digit: char| !digit.is_ascii_digit())?);
    rest.get(..digits.parse().ok()?)
}

fn add(all: &mut Calls, more: Calls) {
    more.into_iter().for_each(|(name, calls)| *all.entry(name).or_default() += calls);
}

/// Words before a program that is to be watched.
fn callgrind(profile: &Path) -> Vec<String> {
    let valgrind = server::program("VALGRIND_BIN").display().to_string();
    let out = format!("--callgrind-out-file={}", profile.display());
    vec![valgrind, "--tool=callgrind".to_owned(), "--demangle=no".to_owned(), out]
}

/// Where the profiler's parts are: it looks for them where its package would have put them.
fn parts() -> anyhow::Result<String> {
    let valgrind = server::program("VALGRIND_BIN");
    let usr = valgrind.parent().and_then(Path::parent).context("VALGRIND_BIN lies in no bin folder")?;
    Ok(usr.join("libexec/valgrind").display().to_string())
}

/// The functions of a program that a profile of callgrind tells of. A name is written out where it first occurs, and is a number
/// from then on.
fn functions(profile: &str, program: &Path) -> Calls {
    let (mut known, mut run, mut inside, mut called) = (BTreeMap::new(), BTreeSet::new(), false, "");
    let mut objects: BTreeMap<&str, PathBuf> = BTreeMap::new();
    let mut calls: BTreeMap<&str, u64> = BTreeMap::new();
    for line in profile.lines() {
        let Some((what, rest)) = line.split_once('=') else { continue };
        if what == "calls" {
            let count = rest.split(' ').next().and_then(|count| count.parse::<u64>().ok());
            *calls.entry(called).or_default() += count.unwrap_or_default();
        }
        let Some((number, name)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) else { continue };
        let name = name.trim_start();
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
                if what == "cfn" {
                    called = number;
                } else if inside {
                    run.insert(number);
                }
            }
            _ => {}
        }
    }
    let mut all = Calls::new();
    for number in run {
        // One that calls itself is told apart by depth (f, f'2), and what has no name by its address.
        let Some(name) = known.get(number).and_then(|name| name.split('\'').next()) else { continue };
        if !name.starts_with("0x") && !name.contains(['(', '@']) {
            *all.entry(name.to_owned()).or_default() += calls.get(number).copied().unwrap_or_default();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_crates_that_run_are_listed_for_more_able_processors() {
        let seen = Calls::from(["_ZN9crc32fast8baseline17h1E", "main"].map(|name| (name.to_owned(), 1)));
        let symbols = "_ZN9crc32fast11calc_avx51217h2E T 10 8\n_ZN6blake311hash_avx51217h3E t 18 8\n\
                       _ZN9crc32fast4calc17h4E t 20 8\n_ZN9crc32fast10has_avx51217h5E D 28 1\nx_avx512 T 30 8\n";
        assert_eq!(faster(symbols, &seen), ["_ZN9crc32fast11calc_avx51217h2E"]);
    }

    #[test]
    fn functions_of_the_program_are_told_from_those_of_libraries() {
        let profile = "ob=(1) /bin/w\nfl=(1) a.rs\nfn=(1) main\n1 2\ncfn=(2) helper\ncalls=3 3\n1 5\n\
                       cob=(2) /lib/libc.so.6\ncfn=(3) read\ncalls=1 4\n1 5\n\nfn=(2)\n1 2\n\nfn=(4) helper'2\n1 2\n\n\
                       ob=(2)\nfn=(3)\n1 9\n\nob=(1)\nfn=(5) 0x0000000000401000\n1 1\n";
        let found = functions(profile, Path::new("/bin/w"));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("helper".to_owned(), 3), ("main".to_owned(), 0)]);
    }
}
