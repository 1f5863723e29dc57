//! The ledger of the executor: one JSON line per step, synced before the step has any effect.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wardroom_domain::executor::PlanStatus;
use wardroom_domain::{Outcome, Plan, Principal, Timestamp};

use wardroom_files::rewrite_prefix;
use wardroom_process::crash;

/// Format version of the lines that this build writes.
pub(crate) const FORMAT_VERSION: u8 = 1;

/// A line of the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A person approved a plan.
    Authorized {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan: Box<Plan>,
        plan_sha256: String,
        principal: Principal,
    },
    /// The adapter is about to be called.
    Started {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
        key: String,
    },
    /// The adapter responded, or was probed.
    Finished {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
        outcome: Outcome,
        detail: String,
    },
    /// The undo is about to be called.
    UndoStarted {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
        key: String,
        precondition: String,
    },
    /// The undo responded, or was probed.
    Undone {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
        outcome: Outcome,
        detail: String,
    },
}

impl Entry {
    /// Decodes a line of this format version or an older one.
    fn decode(line: &str) -> Result<Self, String> {
        let damaged = |error: serde_json::Error| format!("damaged line: {error}");
        let document: serde_json::Value = serde_json::from_str(line).map_err(damaged)?;
        match document["v"].as_u64() {
            Some(version) if version > u64::from(FORMAT_VERSION) => Err(format!(
                "a line has format {version}; this build reads up to {FORMAT_VERSION}: run the newer Wardroom"
            )),
            _ => serde_json::from_value(document).map_err(damaged),
        }
    }
}

/// The state of a plan.
#[derive(Clone, Debug)]
pub(crate) struct PlanRecord {
    pub(crate) plan: Plan,
    pub(crate) status: PlanStatus,
    pub(crate) started: bool,
    /// State of the target when the undo was started.
    pub(crate) undo_started: Option<String>,
}

/// The ledger file and the state of all plans in it.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    file: File,
    /// Bytes that are complete and synced.
    len: u64,
    /// A write or sync has failed: the file may hold uncommitted bytes beyond `len`.
    write_failed: bool,
    plans: BTreeMap<String, PlanRecord>,
}

impl Ledger {
    /// Opens or creates the ledger. A torn last line is cut off: its step had no effect.
    pub(crate) fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("ledger.jsonl");
        let file = OpenOptions::new().create(true).append(true).read(true).open(&path)?;
        let text = std::fs::read_to_string(&path)?;
        let complete = text.rfind('\n').map_or(0, |newline| newline + 1);
        file.set_len(complete as u64)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        let mut ledger = Self { path, file, len: complete as u64, write_failed: false, plans: BTreeMap::new() };
        for line in text.lines().take(text.matches('\n').count()) {
            let entry = Entry::decode(line)
                .map_err(|error| std::io::Error::other(format!("{}: {error}", ledger.path.display())))?;
            ledger.apply(entry);
        }
        Ok(ledger)
    }

    /// Appends and syncs a step, then applies it. After a failure the file is rewritten up to the last synced step.
    pub(crate) fn append(&mut self, entry: Entry) -> std::io::Result<()> {
        let step = match &entry {
            Entry::Authorized { .. } => "ledger:authorized",
            Entry::Started { .. } | Entry::UndoStarted { .. } => "ledger:started",
            Entry::Finished { .. } => "ledger:finished",
            Entry::Undone { .. } => "ledger:undone",
        };
        crash::maybe_crash(step, "before");
        let mut line = serde_json::to_string(&entry)?;
        line.push('\n');
        if self.write_failed {
            self.file = rewrite_prefix(&self.path, self.len)?;
        }
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        self.write_failed = written.is_err();
        written?;
        self.len += line.len() as u64;
        crash::maybe_crash(step, "after");
        self.apply(entry);
        Ok(())
    }

    /// Returns the state of a plan.
    pub(crate) fn plan(&self, plan_sha256: &str) -> Option<&PlanRecord> {
        self.plans.get(plan_sha256)
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Authorized { plan, plan_sha256, principal, .. } => {
                let status = PlanStatus { approved_by: Some(principal), ..PlanStatus::default() };
                let record = PlanRecord { plan: *plan, status, started: false, undo_started: None };
                self.plans.entry(plan_sha256).or_insert(record);
            }
            Entry::Started { plan_sha256, key, .. } => self.update(&plan_sha256, |record| {
                record.started = true;
                record.status.idempotency_key = Some(key);
            }),
            Entry::Finished { plan_sha256, outcome, detail, .. } => self.update(&plan_sha256, |record| {
                record.status.executed = Some(outcome);
                record.status.detail = detail;
            }),
            Entry::UndoStarted { plan_sha256, precondition, .. } => {
                self.update(&plan_sha256, |record| record.undo_started = Some(precondition));
            }
            Entry::Undone { plan_sha256, outcome, detail, .. } => self.update(&plan_sha256, |record| {
                record.status.undone = Some(outcome);
                record.status.detail = detail;
            }),
        }
    }

    fn update(&mut self, plan_sha256: &str, change: impl FnOnce(&mut PlanRecord)) {
        if let Some(record) = self.plans.get_mut(plan_sha256) {
            change(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ledgers of every released format version must stay readable.
    #[test]
    fn reads_format_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../tests/formats/ledger-v1.jsonl");
        let path = dir.path().join("ledger.jsonl");
        // A torn last line.
        std::fs::write(&path, format!("{text}{{\"step\":\"fini")).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let (hash, record) = ledger.plans.iter().next().unwrap();
        assert_eq!(&record.plan.sha256().unwrap(), hash);
        assert_eq!(
            (record.started, record.status.executed, record.status.undone),
            (true, Some(Outcome::Applied), Some(Outcome::Applied))
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "the torn line is cut off");
        std::fs::write(&path, text.replacen("\"v\":1", "\"v\":2", 1)).unwrap();
        assert!(Ledger::open(dir.path()).unwrap_err().to_string().contains("newer Wardroom"));
    }

    #[test]
    fn failed_append_leaves_no_bytes_behind() {
        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../tests/formats/ledger-v1.jsonl");
        let path = dir.path().join("ledger.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let plan_sha256 = ledger.plans.keys().next().unwrap().clone();
        let entry = || Entry::Started {
            version: FORMAT_VERSION,
            at: Timestamp::from_millis(0),
            plan_sha256: plan_sha256.clone(),
            key: "k".into(),
        };
        ledger.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        assert!(ledger.append(entry()).is_err());
        // The remains of a partial write.
        std::fs::write(&path, format!("{text}{{\"step\":")).unwrap();
        ledger.append(entry()).unwrap();
        drop(ledger);
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.plan(&plan_sha256).unwrap().status.idempotency_key.as_deref(), Some("k"));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), text.lines().count() + 1);
    }
}
