//! What the executor remembers: one JSON line a step, synced before anything follows from it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wardroom_domain::executor::PlanStatus;
use wardroom_domain::{Outcome, Plan, Principal, Timestamp};

use wardroom_process::crash;

/// Format version of the lines this build writes.
pub(super) const V: u8 = 1;

/// One line of the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A person approved a plan.
    Authorized { v: u8, at: Timestamp, plan: Box<Plan>, plan_sha256: String, principal: Principal },
    /// The adapter is about to be called.
    Started { v: u8, at: Timestamp, plan_sha256: String, key: String },
    /// The adapter answered, or was probed.
    Finished { v: u8, at: Timestamp, plan_sha256: String, outcome: Outcome, detail: String },
    /// The undo is about to be called.
    UndoStarted { v: u8, at: Timestamp, plan_sha256: String, key: String, precondition: String },
    /// The undo answered, or was probed.
    Undone { v: u8, at: Timestamp, plan_sha256: String, outcome: Outcome, detail: String },
}

impl Entry {
    /// Reads a line of this format or an older one.
    fn read(line: &str) -> Result<Self, String> {
        let damaged = |error: serde_json::Error| format!("damaged line: {error}");
        let document: serde_json::Value = serde_json::from_str(line).map_err(damaged)?;
        match document["v"].as_u64() {
            Some(version) if version > u64::from(V) => {
                Err(format!("a line has format {version}; this build reads up to {V}: run the newer Wardroom"))
            }
            _ => serde_json::from_value(document).map_err(damaged),
        }
    }
}

/// What is known of one plan.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) plan: Plan,
    pub(crate) status: PlanStatus,
    pub(crate) started: bool,
    /// The target's state when the undo was started.
    pub(crate) undo_started: Option<String>,
}

/// The ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    file: File,
    /// Bytes that are whole and on the disk.
    len: u64,
    /// A write or a sync has failed: behind `len` stands something that nobody was promised.
    distrusted: bool,
    plans: BTreeMap<String, Known>,
}

impl Ledger {
    /// Opens or creates it; a torn last line was never acted on and is cut off.
    pub(crate) fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join("ledger.jsonl");
        let file = OpenOptions::new().create(true).append(true).read(true).open(&path)?;
        let text = std::fs::read_to_string(&path)?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        let mut ledger = Self { path, file, len: whole as u64, distrusted: false, plans: BTreeMap::new() };
        for line in text.lines().take(text.matches('\n').count()) {
            let entry = Entry::read(line)
                .map_err(|error| std::io::Error::other(format!("{}: {error}", ledger.path.display())))?;
            ledger.apply(entry);
        }
        Ok(ledger)
    }

    /// Makes a step durable, then remembers it. After a failure the file is written anew up to the last good step.
    pub(crate) fn write(&mut self, entry: Entry) -> std::io::Result<()> {
        let step = match &entry {
            Entry::Authorized { .. } => "ledger:authorized",
            Entry::Started { .. } | Entry::UndoStarted { .. } => "ledger:started",
            Entry::Finished { .. } => "ledger:finished",
            Entry::Undone { .. } => "ledger:undone",
        };
        crash::reach(step, "before");
        let mut line = serde_json::to_string(&entry)?;
        line.push('\n');
        if self.distrusted {
            self.file = wardroom_store::renew(&self.path, self.len)?;
        }
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        self.distrusted = written.is_err();
        written?;
        self.len += line.len() as u64;
        crash::reach(step, "after");
        self.apply(entry);
        Ok(())
    }

    pub(crate) fn plan(&self, plan_sha256: &str) -> Option<&Known> {
        self.plans.get(plan_sha256)
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Authorized { plan, plan_sha256, principal, .. } => {
                let status = PlanStatus { approved_by: Some(principal), ..PlanStatus::default() };
                let known = Known { plan: *plan, status, started: false, undo_started: None };
                self.plans.entry(plan_sha256).or_insert(known);
            }
            Entry::Started { plan_sha256, key, .. } => self.update(&plan_sha256, |known| {
                known.started = true;
                known.status.idempotency_key = Some(key);
            }),
            Entry::Finished { plan_sha256, outcome, detail, .. } => self.update(&plan_sha256, |known| {
                known.status.executed = Some(outcome);
                known.status.detail = detail;
            }),
            Entry::UndoStarted { plan_sha256, precondition, .. } => {
                self.update(&plan_sha256, |known| known.undo_started = Some(precondition));
            }
            Entry::Undone { plan_sha256, outcome, detail, .. } => self.update(&plan_sha256, |known| {
                known.status.undone = Some(outcome);
                known.status.detail = detail;
            }),
        }
    }

    fn update(&mut self, plan_sha256: &str, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.plans.get_mut(plan_sha256) {
            change(known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger of every format version ever released stays readable.
    #[test]
    fn version_1_stays_readable() {
        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../tests/formats/ledger-v1.jsonl");
        let path = dir.path().join("ledger.jsonl");
        // The last line is torn: it was never acted on.
        std::fs::write(&path, format!("{text}{{\"step\":\"fini")).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let (hash, known) = ledger.plans.iter().next().unwrap();
        assert_eq!(&known.plan.sha256().unwrap(), hash);
        assert_eq!(
            (known.started, known.status.executed, known.status.undone),
            (true, Some(Outcome::Applied), Some(Outcome::Applied))
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "the torn line is cut off");
        std::fs::write(&path, text.replacen("\"v\":1", "\"v\":2", 1)).unwrap();
        assert!(Ledger::open(dir.path()).unwrap_err().to_string().contains("newer Wardroom"));
    }

    #[test]
    fn a_step_that_failed_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../tests/formats/ledger-v1.jsonl");
        let path = dir.path().join("ledger.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut ledger = Ledger::open(dir.path()).unwrap();
        let plan_sha256 = ledger.plans.keys().next().unwrap().clone();
        let entry = || Entry::Started {
            v: V,
            at: Timestamp::from_millis(0),
            plan_sha256: plan_sha256.clone(),
            key: "k".into(),
        };
        ledger.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        assert!(ledger.write(entry()).is_err());
        // As a write that was cut short leaves it.
        std::fs::write(&path, format!("{text}{{\"step\":")).unwrap();
        ledger.write(entry()).unwrap();
        drop(ledger);
        let known = Ledger::open(dir.path()).unwrap();
        assert_eq!(known.plan(&plan_sha256).unwrap().status.idempotency_key.as_deref(), Some("k"));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), text.lines().count() + 1);
    }
}
