//! Alterations of the audit log, each of which must be found, with the first entry that is not the original.
//!
//! A server with its executor writes and signs a log, which is exported. Each trial alters a copy of the export: a bit,
//! a field, an entry removed, swapped or inserted, the end cut off, log and heads rolled back together, keys of a
//! document in another order, the hashes of a whole new log. Two verifiers look at it: Wardroom's own, and
//! `docs/verify_audit.py`, which shares no code with it. An alteration that is not found, or named at an entry that
//! comes later than the altered one, is `corrupted`; verdicts that differ are `spurious`. `kills` is the number of
//! alterations.

mod alterations;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lexopt::prelude::{Long, Value as Positional};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use wardroom_roles::audit_log::{export_audit_log, verify_audit_export};
use wardroom_testing::Server;

use crate::bar::{BarOptions, BarResult};
use crate::client_python::python;
use crate::progress::print_progress;
use alterations::{ExportedLog, NEW_LOG};

/// Hidden subcommand that verifies exports with Wardroom's own code.
pub(crate) const AUDIT_VERDICTS_COMMAND: &str = "audit-verdicts";
/// Entries of the log: a tenth of the alterations, and within these bounds.
const ENTRIES: (usize, usize) = (120, 1000);
/// Maximum time until all entries are signed.
const SIGNING_TIMEOUT: Duration = Duration::from_secs(60);
/// Files that a verifier checks in one process.
const BATCH: u64 = 100;
/// Batches that are verified at the same time.
const WORKERS: usize = 2;
/// What was done to the original.
const UNALTERED: &str = "unaltered";
/// The separate verifier.
const VERIFIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verify_audit.py");

/// Runs the alterations.
pub(super) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("7h")?;
    let entries = (options.kills as usize / 10).clamp(ENTRIES.0, ENTRIES.1);
    let log = write_log(&dir, entries)?;
    print_progress(format!("a log of {} entries", log.entries));
    let run = Mutex::new(Run { next: 0, result: BarResult { kills: options.kills, ..BarResult::default() } });
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(&run, &log, &dir, options))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    let mut result = run.into_inner().unwrap_or_else(PoisonError::into_inner).result;
    result.acked = result.issued;
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// A run, shared by its workers.
struct Run {
    /// Number of the next alteration.
    next: u64,
    result: BarResult,
}

/// One altered copy.
struct Trial {
    path: PathBuf,
    what: &'static str,
    /// The first entry that is not the original.
    first: i64,
}

/// Takes batches until there are no more, or a mutant is caught.
fn work(run: &Mutex<Run>, log: &ExportedLog, dir: &Path, options: &BarOptions) -> anyhow::Result<()> {
    let lock = || run.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let (first, end) = {
            let mut run = lock();
            let first = run.next;
            if first >= options.kills || options.mutant.is_some() && !run.result.is_clean() {
                return Ok(());
            }
            run.next = options.kills.min(first + BATCH);
            (first, run.next)
        };
        let mut random = StdRng::seed_from_u64(options.seed.wrapping_mul(1 << 32).wrapping_add(first));
        let trials = (first..end).map(|trial| log.alter(&mut random, trial)).collect();
        let folder = dir.join(format!("batch-{first}"));
        let batch = write_batch(&folder, log, trials)?;
        let published = Some(log.published.as_path());
        let (own, separate) = (verify_own(&batch, log, published, options)?, verify_separately(&batch, log)?);
        // Who has no copy of the published heads has those of the ledger, which the export holds.
        let by_ledger = verify_own(&batch, log, None, options)?;
        let mut run = lock();
        for (trial, own) in batch.iter().zip(by_ledger) {
            check_by_ledger(trial, &own, &mut run.result);
        }
        for ((trial, own), separate) in batch.iter().zip(own).zip(separate) {
            check(trial, &own, &separate, &mut run.result);
        }
        run.result.issued += batch.len() as u64 - 1;
        if (first / BATCH + 1).is_multiple_of(10) {
            print_progress(format!("{} of {} alterations", run.result.issued, options.kills));
        }
        drop(run);
        std::fs::remove_dir_all(folder)?;
    }
}

/// Writes the copies of a batch, and the original beside them.
fn write_batch(
    folder: &Path,
    log: &ExportedLog,
    trials: Vec<(Vec<String>, &'static str, i64)>,
) -> anyhow::Result<Vec<Trial>> {
    std::fs::create_dir_all(folder)?;
    let all = trials.into_iter().chain([(log.lines.clone(), UNALTERED, i64::MAX)]);
    let mut batch = Vec::new();
    for (number, (lines, what, first)) in all.enumerate() {
        let path = folder.join(format!("{number}.jsonl"));
        std::fs::write(&path, lines.join("\n") + "\n")?;
        batch.push(Trial { path, what, first });
    }
    Ok(batch)
}

/// Compares both verdicts with what was done.
fn check(Trial { path, what, first }: &Trial, own: &Value, separate: &Value, result: &mut BarResult) {
    let is_altered = *what != UNALTERED;
    let found_first = own["first_broken"].as_i64();
    let name = path.display();
    if own["ok"] == json!(is_altered) || found_first.is_some_and(|found| found > *first) {
        result.corrupted += 1;
        result.faults.push(format!("{name}: {what} at {first}: {own}"));
    }
    if own["ok"] != separate["ok"] || found_first != separate["first_broken"].as_i64() {
        result.spurious += 1;
        result.faults.push(format!("{name}: {what} at {first}: own {own}, separate {separate}"));
    }
}

/// Judges the verdict by the ledger's heads alone of what only signed heads can tell.
fn check_by_ledger(Trial { path, what, first }: &Trial, own: &Value, result: &mut BarResult) {
    let is_altered = *what == NEW_LOG;
    if (is_altered || *what == UNALTERED) && own["ok"] == json!(is_altered) {
        result.corrupted += 1;
        result.faults.push(format!("{}: {what} at {first}, by the ledger alone: {own}", path.display()));
    }
}

/// Wardroom's own verdicts, in a process in which a mutant may be enabled.
#[expect(clippy::disallowed_methods, reason = "only the verifier has the deliberate fault")]
fn verify_own(
    batch: &[Trial],
    log: &ExportedLog,
    published: Option<&Path>,
    options: &BarOptions,
) -> anyhow::Result<Vec<Value>> {
    let mut verifier = Command::new(std::env::current_exe()?);
    verifier.arg(AUDIT_VERDICTS_COMMAND).arg("--public-key").arg(&log.public_key);
    if let Some(published) = published {
        verifier.arg("--heads").arg(published);
    }
    verdicts_of(verifier.env("WARDROOM_MUTANT", options.mutant_name()), batch)
}

/// The verdicts of the separate program.
fn verify_separately(batch: &[Trial], log: &ExportedLog) -> anyhow::Result<Vec<Value>> {
    let mut verifier = python();
    verifier.arg(VERIFIER).arg("--public-key").arg(&log.public_key).arg("--heads").arg(&log.published).arg("--file");
    verdicts_of(&mut verifier, batch)
}

/// Runs a verifier over the files of a batch; it prints one verdict a line.
fn verdicts_of(verifier: &mut Command, batch: &[Trial]) -> anyhow::Result<Vec<Value>> {
    let output = verifier.args(batch.iter().map(|trial| &trial.path)).output().context("a verifier does not run")?;
    let text = String::from_utf8(output.stdout)?;
    let verdicts: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(verdicts.len() == batch.len(), "{} verdicts for {} files: {error}", verdicts.len(), batch.len());
    Ok(verdicts)
}

/// Verifies exports and prints a verdict for each.
///
/// # Errors
/// Returns an error if an argument is missing or the output cannot be written.
pub(crate) fn print_verdicts(mut arguments: lexopt::Parser) -> anyhow::Result<()> {
    let (mut public_key, mut heads, mut files) = (None, None, Vec::<PathBuf>::new());
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("public-key") => public_key = Some(PathBuf::from(arguments.value()?)),
            Long("heads") => heads = Some(PathBuf::from(arguments.value()?)),
            Positional(file) => files.push(file.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut out = std::io::stdout().lock();
    for file in files {
        let verdict = match verify_audit_export(&file, public_key.as_deref(), heads.as_deref()) {
            Ok(found) => json!({ "ok": found.ok, "first_broken": found.first_broken }),
            Err(error) => json!({ "ok": false, "error": error.to_string() }),
        };
        writeln!(out, "{verdict}")?;
    }
    Ok(())
}

/// Runs a server that writes a log, and exports it.
fn write_log(dir: &Path, entries: usize) -> anyhow::Result<ExportedLog> {
    let published = dir.join("published/heads.jsonl");
    std::fs::create_dir_all(dir.join("published"))?;
    let settings = format!("  []\naudit-heads:\n  - file: {}\n", published.display());
    let mut server = Server::start(dir, &settings, &[])?;
    let token = server.responder_token.clone();
    for number in 0..entries {
        let body = json!({ "reason": format!("alteration test {number}") });
        // Each is an entry.
        let (status, answer) = server.post_json("/api/v1/stop-all", &token, &body)?;
        ensure!(status == 200, "{answer}");
    }
    let data = dir.join("data");
    let deadline = Instant::now() + SIGNING_TIMEOUT;
    loop {
        let (_, ready) = server.get("/readyz", "")?;
        let ready: Value = serde_json::from_str(&ready)?;
        let is_published = std::fs::read_to_string(&published).is_ok_and(|text| text.lines().count() >= 2);
        if ready["audit"] == "signed" && is_published {
            break;
        }
        ensure!(Instant::now() < deadline, "the log is not signed and published: {ready}");
        std::thread::sleep(Duration::from_millis(200));
    }
    server.stop()?;
    let (export, public_key) = (dir.join("export.jsonl"), dir.join("key.pem"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(export_audit_log(&data, &export))?;
    std::fs::copy(data.join("executor/audit-public-key.pem"), &public_key)?;
    let lines: Vec<String> = std::fs::read_to_string(&export)?.lines().map(str::to_owned).collect();
    let written = lines.iter().filter(|line| line.starts_with("{\"sequence\"")).count();
    ensure!(written >= entries, "{written} entries");
    let last = std::fs::read_to_string(&published)?.lines().last().map(serde_json::from_str::<Value>);
    let published_entry = last.transpose()?.context("no head")?["head"]["position"]["sequence"].as_i64().unwrap_or(0);
    Ok(ExportedLog { lines, entries: written, published_entry, public_key, published })
}
