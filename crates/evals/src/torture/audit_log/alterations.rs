//! The alterations of an exported log.

use std::path::PathBuf;

use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use wardroom_domain::audit::{GENESIS, chain_hash};

/// An alteration that leaves a whole chain: only signed heads tell.
pub(super) const NEW_LOG: &str = "a new log with right hashes";

/// An exported log with what was published of it.
pub(super) struct ExportedLog {
    /// Lines of the export.
    pub(super) lines: Vec<String>,
    /// Number of entries.
    pub(super) entries: usize,
    /// Entry of the last head that was published.
    pub(super) published_entry: i64,
    pub(super) public_key: PathBuf,
    pub(super) published: PathBuf,
}

impl ExportedLog {
    /// Alters a copy. Returns it with what was done and the first entry that is not the original.
    pub(super) fn alter(&self, random: &mut StdRng, trial: u64) -> (Vec<String>, &'static str, i64) {
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
            _ => (rewrite(lines, at), NEW_LOG, first),
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
