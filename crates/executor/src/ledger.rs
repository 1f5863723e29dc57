//! The ledger of the executor: one JSON line per step, synced before the step has any effect.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wardroom_domain::audit_head::SignedHead;
use wardroom_domain::executor::Stopped;
use wardroom_domain::{Outcome, Plan, Principal, TenantId, Timestamp, ToolCall};

use wardroom_files::rewrite_prefix;
use wardroom_process::crash;

use crate::plan_record::{PlanRecord, RecordedApproval, StepRecord, index};

/// Format version of the lines that this build writes. Later versions have the lines and fields that say so.
pub(crate) const FORMAT_VERSION: u8 = 4;

/// A line of the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A person approved a plan; one line for each.
    Authorized {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan: Box<Plan>,
        plan_sha256: String,
        principal: Principal,
        /// SHA-256 of the secret that proves an undo. Since version 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        undo_sha256: Option<String>,
        /// Fingerprint of the key that signed, or `passkey:ID`, or `oidc:ISSUER SUBJECT`; absent if a token proved
        /// it. Since version 3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// The signature, assertion or ID token with its time, which can be verified again; absent for a token. Since
        /// version 3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<String>,
        /// Why the plan could not wait, if it was approved by break-glass. Since version 3.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        break_glass: Option<String>,
        /// Whether another approval is missing. Since version 3.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_partial: bool,
    },
    /// The adapter is about to be called.
    Started {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
        /// The step of the plan, counted from 0. Since version 4.
        #[serde(default, skip_serializing_if = "is_first")]
        plan_step: u32,
        key: String,
    },
    /// The adapter responded, or was probed.
    Finished {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
        /// The step of the plan, counted from 0. Since version 4.
        #[serde(default, skip_serializing_if = "is_first")]
        plan_step: u32,
        outcome: Outcome,
        detail: String,
        /// State of the target after the action, as far as the undo is concerned. Since version 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<String>,
    },
    /// The undo is about to be called.
    UndoStarted {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
        /// The step of the plan, counted from 0. Since version 4.
        #[serde(default, skip_serializing_if = "is_first")]
        plan_step: u32,
        key: String,
        precondition: String,
        /// The approver who requested it; absent if the approval itself was the authority. Since version 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        principal: Option<Principal>,
    },
    /// The undo responded, or was probed.
    Undone {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
        /// The step of the plan, counted from 0. Since version 4.
        #[serde(default, skip_serializing_if = "is_first")]
        plan_step: u32,
        outcome: Outcome,
        detail: String,
    },
    /// The incident is settled: the plan can no longer be undone. Since version 2.
    Settled {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
    },
    /// Another person has reviewed an execution by break-glass. Since version 3.
    Reviewed {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        plan_sha256: String,
        principal: Principal,
    },
    /// All actions are stopped. Since version 3.
    Stopped {
        #[serde(rename = "v")]
        version: u8,
        stopped: Stopped,
    },
    /// A stop has ended. Since version 3.
    Resumed {
        #[serde(rename = "v")]
        version: u8,
        at: Timestamp,
        stop: String,
        principal: Principal,
    },
    /// The audit log has reached a position. Since version 2.
    AuditHead {
        #[serde(rename = "v")]
        version: u8,
        signed: Box<SignedHead>,
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

/// Skips the number of the first step, which earlier versions did not write.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_first(step: &u32) -> bool {
    *step == 0
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
    /// The stop in force.
    stopped: Option<Stopped>,
    /// The last signed head of the audit log.
    audit_head: Option<SignedHead>,
}

/// Returns the path of the ledger in the executor's folder.
fn ledger_path(folder: &Path) -> PathBuf {
    folder.join("ledger.jsonl")
}

/// Reads the signed heads of the audit log from the ledger in an executor's folder; the executor may be running. There
/// are none without a ledger.
pub(crate) fn read_audit_heads(folder: &Path) -> std::io::Result<Vec<SignedHead>> {
    let path = ledger_path(folder);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let mut heads = Vec::new();
    // A line without an end is still being written.
    for line in text.lines().take(text.matches('\n').count()) {
        match Entry::decode(line) {
            Ok(Entry::AuditHead { signed, .. }) => heads.push(*signed),
            Ok(_) => {}
            Err(error) => return Err(std::io::Error::other(format!("{}: {error}", path.display()))),
        }
    }
    Ok(heads)
}

impl Ledger {
    /// Opens or creates the ledger. A torn last line is cut off: its step had no effect.
    pub(crate) fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = ledger_path(folder);
        let file = OpenOptions::new().create(true).append(true).read(true).open(&path)?;
        let text = std::fs::read_to_string(&path)?;
        let complete = text.rfind('\n').map_or(0, |newline| newline + 1);
        file.set_len(complete as u64)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        let (len, plans) = (complete as u64, BTreeMap::new());
        let mut ledger = Self { path, file, len, write_failed: false, plans, stopped: None, audit_head: None };
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
            Entry::Authorized { .. } => Some("ledger:authorized"),
            Entry::Started { .. } | Entry::UndoStarted { .. } => Some("ledger:started"),
            Entry::Finished { .. } => Some("ledger:finished"),
            Entry::Undone { .. } => Some("ledger:undone"),
            Entry::Settled { .. } => Some("ledger:settled"),
            // No step of a plan.
            Entry::AuditHead { .. } | Entry::Reviewed { .. } | Entry::Stopped { .. } | Entry::Resumed { .. } => None,
        };
        let crash_point = |when| step.into_iter().for_each(|step| crash::maybe_crash(step, when));
        crash_point("before");
        let mut line = serde_json::to_string(&entry)?;
        line.push('\n');
        if self.write_failed {
            self.file = rewrite_prefix(&self.path, self.len)?;
        }
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        self.write_failed = written.is_err();
        written?;
        self.len += line.len() as u64;
        crash_point("after");
        self.apply(entry);
        Ok(())
    }

    /// Returns the state of a plan.
    pub(crate) fn plan(&self, plan_sha256: &str) -> Option<&PlanRecord> {
        self.plans.get(plan_sha256)
    }

    /// Returns all plans.
    pub(crate) fn plans(&self) -> impl Iterator<Item = &PlanRecord> {
        self.plans.values()
    }

    /// Returns the stop in force.
    pub(crate) const fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// Returns the last signed head of the audit log.
    pub(crate) fn audit_head(&self) -> Option<&SignedHead> {
        self.audit_head.as_ref()
    }

    /// Returns how many actions and undos were started on the target of a call since a time.
    pub(crate) fn actions_since(&self, tenant: &TenantId, call: &ToolCall, since: Timestamp) -> usize {
        let of_tenant = self.plans.values().filter(|record| record.plan.tenant == *tenant);
        let steps = of_tenant.flat_map(PlanRecord::numbered);
        let same_target = steps.filter(|(_, _, other)| (&other.tool, &other.target) == (&call.tool, &call.target));
        let times = same_target.flat_map(|(_, step, _)| [step.started_at, step.undo_started_at]).flatten();
        times.filter(|started_at| *started_at > since).count()
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Authorized { plan, plan_sha256, principal, undo_sha256, key, break_glass, is_partial, .. } => {
                let new = || PlanRecord::new(*plan, plan_sha256.clone(), undo_sha256);
                let record = self.plans.entry(plan_sha256.clone()).or_insert_with(new);
                record.add_approval(RecordedApproval { principal, key }, break_glass, is_partial);
            }
            Entry::Reviewed { plan_sha256, .. } => {
                self.update(&plan_sha256, |record| record.status.review_due = false);
            }
            Entry::Stopped { stopped, .. } => self.stopped = Some(stopped),
            Entry::Resumed { stop, .. } => {
                self.stopped.take_if(|stopped| stopped.id == stop);
            }
            Entry::Started { at, plan_sha256, plan_step, key, .. } => {
                self.update_step(&plan_sha256, plan_step, |step| {
                    step.started_at = Some(at);
                    step.key = Some(key);
                });
            }
            Entry::Finished { at, plan_sha256, plan_step, outcome, detail, state, .. } => {
                self.update_step(&plan_sha256, plan_step, |step| {
                    step.executed = Some(outcome);
                    step.detail = detail;
                    step.finished_at = Some(at);
                    step.state_after = state;
                });
            }
            Entry::UndoStarted { at, plan_sha256, plan_step, precondition, .. } => {
                self.update_step(&plan_sha256, plan_step, |step| {
                    step.undo_started_at = Some(at);
                    step.undo_started = Some(precondition);
                });
            }
            Entry::Settled { plan_sha256, .. } => self.update(&plan_sha256, |record| record.settled = true),
            Entry::AuditHead { signed, .. } => self.audit_head = Some(*signed),
            Entry::Undone { plan_sha256, plan_step, outcome, detail, .. } => {
                self.update_step(&plan_sha256, plan_step, |step| {
                    step.undone = Some(outcome);
                    step.detail = detail;
                });
            }
        }
    }

    fn update_step(&mut self, plan_sha256: &str, step: u32, change: impl FnOnce(&mut StepRecord)) {
        self.update(plan_sha256, |record| {
            if let Some(step) = record.steps.get_mut(index(step)) {
                change(step);
            }
        });
    }

    fn update(&mut self, plan_sha256: &str, change: impl FnOnce(&mut PlanRecord)) {
        if let Some(record) = self.plans.get_mut(plan_sha256) {
            change(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::executor::ProofKind;

    use super::*;
    use crate::audit_key::is_signature_valid;

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
            (record.steps[0].started_at.is_some(), record.steps[0].executed, record.steps[0].undone),
            (true, Some(Outcome::Applied), Some(Outcome::Applied))
        );
        assert_eq!((&record.steps[0].state_after, &record.undo_sha256, record.settled), (&None, &None, false));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "the torn line is cut off");
        std::fs::write(&path, text.replacen("\"v\":1", "\"v\":5", 1)).unwrap();
        assert!(Ledger::open(dir.path()).unwrap_err().to_string().contains("newer Wardroom"));
    }

    #[test]
    fn reads_format_version_2() {
        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../tests/formats/ledger-v2.jsonl");
        std::fs::write(dir.path().join("ledger.jsonl"), text).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let (hash, record) = ledger.plans.iter().next().unwrap();
        assert_eq!(&record.plan.sha256().unwrap(), hash);
        assert_eq!(record.undo_sha256.as_deref(), Some("a".repeat(64).as_str()));
        assert_eq!(record.steps[0].state_after.as_deref(), Some("3.13.8 previous=3.14.0 after=key"));
        assert_eq!((record.steps[0].undone, record.settled), (Some(Outcome::Applied), true));
        let call = &record.plan.call;
        let actions = |tenant: &str, call: &ToolCall, since: &str| {
            ledger.actions_since(&TenantId::new(tenant).unwrap(), call, Timestamp::parse(since).unwrap())
        };
        assert_eq!(actions("main", call, "2026-11-21T14:00:00Z"), 2, "the action and its undo");
        assert_eq!(actions("main", call, "2026-11-21T14:51:00Z"), 1);
        assert_eq!(actions("main", call, "2026-11-21T15:00:00Z"), 0);
        assert_eq!(actions("other", call, "2026-11-21T14:00:00Z"), 0);
        let other = ToolCall { target: "mail".into(), ..call.clone() };
        assert_eq!(actions("main", &other, "2026-11-21T14:00:00Z"), 0);
        let heads = read_audit_heads(dir.path()).unwrap();
        assert!(heads.iter().all(is_signature_valid), "signed by another program with the documented format");
        assert_eq!(heads[1].head.previous_head, Some(heads[0].sha256().unwrap()));
        assert_eq!((heads.len(), ledger.audit_head()), (2, heads.last()));
        let lines: Vec<Entry> = text.lines().map(|line| Entry::decode(line).unwrap()).collect();
        let written: Vec<String> = lines.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        assert_eq!(written, text.lines().collect::<Vec<_>>());
    }

    #[test]
    fn reads_format_version_3() {
        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../tests/formats/ledger-v3.jsonl");
        std::fs::write(dir.path().join("ledger.jsonl"), text).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let record = ledger.plans().next().unwrap();
        let names: Vec<&str> = record.status.approvals.iter().map(Principal::as_str).collect();
        assert_eq!((names, record.status.proof), (vec!["carol", "you"], Some(ProofKind::Ssh)));
        assert_eq!(record.status.approved_by, Some(Principal::new("carol").unwrap()), "the first of several");
        assert_eq!((record.break_glass.as_deref(), record.status.review_due), (Some("no one else is awake"), false));
        assert_eq!(ledger.stopped().map(|stopped| stopped.id.as_str()), Some("18f2b"), "the second one is in force");
        let lines: Vec<Entry> = text.lines().map(|line| Entry::decode(line).unwrap()).collect();
        let written: Vec<String> = lines.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        let as_value = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        for (written, read) in written.iter().zip(text.lines()) {
            assert_eq!(as_value(written), as_value(read));
        }
    }

    /// A plan of two steps, of which the second one was refused, so that the first one was taken back.
    #[test]
    fn reads_format_version_4() {
        let dir = tempfile::tempdir().unwrap();
        let text = include_str!("../tests/formats/ledger-v4.jsonl");
        std::fs::write(dir.path().join("ledger.jsonl"), text).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let record = ledger.plans().next().unwrap();
        assert_eq!(record.plan.sha256().unwrap(), record.plan_sha256);
        let keys: Vec<_> = record.steps.iter().map(|step| step.key.clone().unwrap()).collect();
        assert_eq!(keys, [0, 1].map(|step| record.plan.step_key(step).unwrap()));
        let outcomes: Vec<_> = record.steps.iter().map(|step| (step.executed, step.undone)).collect();
        let (applied, not_applied) = (Some(Outcome::Applied), Some(Outcome::NotApplied));
        assert_eq!(outcomes, [(applied, applied), (not_applied, None)]);
        assert!(record.settled && record.check_order(1).is_err() && record.check_undo_order(0).is_ok());
        let since = Timestamp::parse("2026-11-21T14:00:00Z").unwrap();
        let actions = record.plan.steps().map(|(call, _)| ledger.actions_since(&TenantId::main(), call, since));
        assert_eq!(actions.collect::<Vec<_>>(), [2, 1]);
        let lines: Vec<Entry> = text.lines().map(|line| Entry::decode(line).unwrap()).collect();
        let written: Vec<String> = lines.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        assert_eq!(written, text.lines().collect::<Vec<_>>());
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
            plan_step: 0,
            key: "k".into(),
        };
        ledger.file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        assert!(ledger.append(entry()).is_err());
        // The remains of a partial write.
        std::fs::write(&path, format!("{text}{{\"step\":")).unwrap();
        ledger.append(entry()).unwrap();
        drop(ledger);
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.plan(&plan_sha256).unwrap().steps[0].key.as_deref(), Some("k"));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), text.lines().count() + 1);
    }
}
