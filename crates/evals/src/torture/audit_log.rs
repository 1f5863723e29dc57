//! Alterations of the audit log, each of which must be found, with the first entry that is not the original.
//!
//! A server with its executor writes and signs a log, which is exported. Each trial alters a copy of the export: a bit,
//! a field, an entry removed, swapped or inserted, the end cut off, log and heads rolled back together, keys of a
//! document in another order, the hashes of a whole new log. Two verifiers look at it: Wardroom's own, and
//! `docs/verify_audit.py`, which shares no code with it. An alteration that is not found, or named at an entry that
//! comes later than the altered one, is `corrupted`; verdicts that differ are `spurious`. `kills` is the number of
//! alterations.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use wardroom_domain::audit::{GENESIS, chain_hash};
use wardroom_roles::audit_log::{export_audit_log, verify_audit_export};
use wardroom_testing::{Server, server};

use crate::bar::{BarOptions, BarResult};

/// Entries of the log, at least.
const ENTRIES: usize = 120;
/// Maximum time until all entries are signed.
const SIGNING_TIMEOUT: Duration = Duration::from_secs(60);
/// Files that the separate verifier checks in one process.
const BATCH: usize = 50;
/// The separate verifier.
const VERIFIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verify_audit.py");

pub(super) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("7h")?;
    let log = write_log(&dir)?;
    let mut result = BarResult { issued: options.kills, kills: options.kills, ..BarResult::default() };
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut files = vec![(dir.join("unaltered.jsonl"), "unaltered", i64::MAX)];
    std::fs::write(&files[0].0, log.lines.join("\n") + "\n")?;
    for trial in 0..options.kills {
        let (altered, what, first) = log.alter(&mut random, trial);
        let path = dir.join(format!("altered-{trial}.jsonl"));
        std::fs::write(&path, altered.join("\n") + "\n")?;
        files.push((path, what, first));
    }
    for batch in files.chunks(BATCH) {
        let separate = verify_separately(batch, &log)?;
        for ((path, what, first), separate) in batch.iter().zip(separate) {
            check(&log, (path, what, *first), &separate, &mut result);
        }
    }
    result.acked = result.issued;
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// Compares both verdicts with what was done.
fn check(log: &ExportedLog, (path, what, first): (&Path, &str, i64), separate: &Value, result: &mut BarResult) {
    let own = match verify_audit_export(path, Some(&log.public_key), Some(&log.published)) {
        Ok(found) => json!({ "ok": found.ok, "first_broken": found.first_broken }),
        Err(error) => json!({ "ok": false, "error": error.to_string() }),
    };
    let is_altered = what != "unaltered";
    let found_first = own["first_broken"].as_i64();
    if own["ok"] == json!(is_altered) || found_first.is_some_and(|found| found > first) {
        result.corrupted += 1;
        result.faults.push(format!("{}: {what} at {first}: {own}", path.display()));
    }
    if own["ok"] != separate["ok"] || found_first != separate["first_broken"].as_i64() {
        result.spurious += 1;
        result.faults.push(format!("{}: {what} at {first}: own {own}, separate {separate}", path.display()));
    }
}

fn verify_separately(batch: &[(PathBuf, &str, i64)], log: &ExportedLog) -> anyhow::Result<Vec<Value>> {
    #[expect(clippy::disallowed_methods, reason = "the separate verifier is a program")]
    let mut verifier = Command::new(server::program("CLIENT_PYTHON"));
    verifier.env("PYTHONHOME", server::program("CLIENT_PYTHON_HOME"));
    verifier.env("LD_LIBRARY_PATH", server::program("CLIENT_LIBRARIES"));
    verifier.arg(VERIFIER).arg("--public-key").arg(&log.public_key).arg("--heads").arg(&log.published).arg("--file");
    let output = verifier.args(batch.iter().map(|(path, ..)| path)).output().context("CLIENT_PYTHON")?;
    let text = String::from_utf8(output.stdout)?;
    let verdicts: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(verdicts.len() == batch.len(), "{} verdicts for {} files: {error}", verdicts.len(), batch.len());
    Ok(verdicts)
}

/// An exported log with what was published of it.
struct ExportedLog {
    /// Lines of the export.
    lines: Vec<String>,
    /// Number of entries.
    entries: usize,
    /// Entry of the last head that was published.
    published_entry: i64,
    public_key: PathBuf,
    published: PathBuf,
}

/// Runs a server that writes a log, and exports it.
fn write_log(dir: &Path) -> anyhow::Result<ExportedLog> {
    let published = dir.join("published/heads.jsonl");
    std::fs::create_dir_all(dir.join("published"))?;
    let settings = format!("  []\naudit-heads:\n  - file: {}\n", published.display());
    let mut server = Server::start(dir, &settings, &[])?;
    let token = server.responder_token.clone();
    for number in 0..ENTRIES {
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
    let entries = lines.iter().filter(|line| line.starts_with("{\"sequence\"")).count();
    ensure!(entries >= ENTRIES, "{entries} entries");
    let last = std::fs::read_to_string(&published)?.lines().last().map(serde_json::from_str::<Value>);
    let published_entry = last.transpose()?.context("no head")?["head"]["position"]["sequence"].as_i64().unwrap_or(0);
    Ok(ExportedLog { lines, entries, published_entry, public_key, published })
}

impl ExportedLog {
    /// Alters a copy. Returns it with what was done and the first entry that is not the original.
    fn alter(&self, random: &mut StdRng, trial: u64) -> (Vec<String>, &'static str, i64) {
        // Entries are the lines from the second on.
        let at = random.random_range(1..=self.entries);
        let mut lines = self.lines.clone();
        let first = at as i64;
        match trial % 9 {
            0 => {
                lines[at] = flip_bit(&lines[at], random);
                (lines, "a bit of an entry", first)
            }
            1 => {
                lines[at] = change_entry(&lines[at], |entry| entry["principal"] = json!("mallory"));
                (lines, "a field of an entry", first)
            }
            2 => {
                lines.remove(at);
                (fix_end(lines), "an entry removed", first)
            }
            3 => {
                let other = random.random_range(1..=self.entries);
                lines.swap(at, if other == at { 1 + at % self.entries } else { other });
                (lines, "two entries swapped", self.entries as i64)
            }
            4 => {
                let copy = lines[at].clone();
                lines.insert(at, copy);
                (fix_end(lines), "an entry inserted", first + 1)
            }
            5 => {
                // Also the heads that would tell, with the end of the file mended.
                let kept = random.random_range(0..self.published_entry.max(1)) as usize;
                lines.retain(|line| sequence_of(line).is_none_or(|sequence| sequence <= kept as i64));
                lines.retain(|line| head_of(line).is_none_or(|sequence| sequence <= kept as i64));
                (fix_end(lines), "log and heads rolled back", kept as i64 + 1)
            }
            6 => {
                let kept = random.random_range(0..self.entries) as i64;
                lines.retain(|line| sequence_of(line).is_none_or(|sequence| sequence <= kept));
                (fix_end(lines), "the end cut off", kept + 1)
            }
            7 => {
                lines[at] = change_entry(&lines[at], |entry| {
                    let fields = entry.as_object().cloned().unwrap_or_default();
                    *entry = fields.into_iter().rev().collect::<serde_json::Map<_, _>>().into();
                });
                (lines, "the order of keys", first)
            }
            _ => (rewrite(lines, at), "a new log with right hashes", first),
        }
    }
}

/// Flips one bit of a line, such that it stays text.
fn flip_bit(line: &str, random: &mut StdRng) -> String {
    let mut bytes = line.as_bytes().to_vec();
    loop {
        let (at, bit) = (random.random_range(0..bytes.len()), 1 << random.random_range(0..7));
        bytes[at] ^= bit;
        match String::from_utf8(bytes.clone()) {
            Ok(text) if !text.contains('\n') => return text,
            _ => bytes[at] ^= bit,
        }
    }
}

/// Changes the document of an entry, and leaves its hash.
fn change_entry(line: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut row: Value = serde_json::from_str(line).unwrap_or_default();
    let mut entry: Value = serde_json::from_str(row["text"].as_str().unwrap_or_default()).unwrap_or_default();
    change(&mut entry);
    row["text"] = json!(entry.to_string());
    row.to_string()
}

/// Changes an entry and computes all hashes again.
fn rewrite(mut lines: Vec<String>, at: usize) -> Vec<String> {
    lines[at] = change_entry(&lines[at], |entry| entry["agent"] = json!("mallory"));
    let mut previous = GENESIS.to_owned();
    for line in &mut lines {
        let Some(sequence) = sequence_of(line) else { continue };
        let mut row: Value = serde_json::from_str(line).unwrap_or_default();
        previous = chain_hash(&previous, sequence, row["text"].as_str().unwrap_or_default());
        row["hash"] = json!(previous);
        *line = row.to_string();
    }
    lines
}

/// Makes the last line fit the others, as an attacker would.
fn fix_end(mut lines: Vec<String>) -> Vec<String> {
    let entries = lines.iter().filter(|line| sequence_of(line).is_some()).count();
    let heads = lines.iter().filter(|line| head_of(line).is_some()).count();
    if let Some(last) = lines.last_mut() {
        *last = json!({ "entries": entries, "heads": heads }).to_string();
    }
    lines
}

fn sequence_of(line: &str) -> Option<i64> {
    serde_json::from_str::<Value>(line).ok()?["sequence"].as_i64()
}

fn head_of(line: &str) -> Option<i64> {
    serde_json::from_str::<Value>(line).ok()?["head"]["head"]["position"]["sequence"].as_i64()
}
