//! Verifies the audit log of a data folder against what the executor has signed, exports it, and accepts a restored
//! one.

mod export;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wardroom_domain::audit::{AuditEntry, ChainVerifier};
use wardroom_domain::audit_head::{
    Acceptance, ChainPosition, FaultCode, LogVerification, LogVerifier, SignedHead, SigningEvidence, key_id,
};
use wardroom_domain::{Principal, TenantId, visible_line};
use wardroom_executor::{
    AuditEvidence, accept_audit_log, audit_evidence, has_signing_key, is_signature_valid, public_key_file,
    read_public_key,
};
use wardroom_process::clock;
use wardroom_process::data_lock::DataLock;
use wardroom_store::Store;

use crate::state_database::{RequiredState, StateDatabaseError, has_state, open_state};

pub use export::{export_audit_log, verify_audit_export};

/// Bytes of entries that are read at a time.
const LIST_BATCH_BYTES: usize = 1 << 20;

/// Why an audit log cannot be verified or accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuditLogError {
    /// The data folder has neither a database nor a ledger.
    #[error("there is no audit log in {}", .0.display())]
    NoLog(PathBuf),
    /// The given public key cannot be read.
    #[error("--public-key {}: {error}", .path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: std::io::Error,
    },
    /// The file of published heads cannot be read.
    #[error("--heads {}: {error}", .path.display())]
    Heads {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The file is no export, or damaged.
    #[error("{}: {error}", .path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The executor's folder cannot be read or written.
    #[error("the executor's folder")]
    Executor(#[from] std::io::Error),
    /// The database is missing, empty or another folder's.
    #[error(transparent)]
    State(#[from] StateDatabaseError),
    /// The database cannot be read or written.
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
    /// A chain that is broken in itself cannot be accepted.
    #[error("the chain is broken at entry {0}, which no acceptance can mend; restore a database from a backup")]
    ChainBroken(i64),
}

/// Verifies the audit log of a data folder; a server may be running on it. `published` is a file of heads that were
/// published outside. Faults are reported in the result.
///
/// # Errors
/// Returns an error if there is no audit log, or if the given public key or heads cannot be read.
pub async fn verify_audit_log(
    data: &Path,
    public_key: Option<&Path>,
    published: Option<&Path>,
) -> Result<LogVerification, AuditLogError> {
    let given = public_key.map(read_given_key).transpose()?;
    let (read, ledger_error) = match audit_evidence(data) {
        Ok(read) => (read, None),
        Err(error) => (AuditEvidence { heads: Vec::new(), public_key: None }, Some(error.to_string())),
    };
    if !has_state(data) && read.heads.is_empty() && read.public_key.is_none() && ledger_error.is_none() {
        return Err(AuditLogError::NoLog(data.to_owned()));
    }
    let is_key_given = given.is_some();
    let (folder_key, signing_since) = read.public_key.unzip();
    let public_key = given.or(folder_key);
    let (heads, is_stopped) = (read.heads, !DataLock::is_served(data));
    let published = published.map_or_else(|| Ok(Vec::new()), read_published_heads)?;
    let evidence =
        SigningEvidence { heads, noted: None, published, public_key, is_key_given, signing_since, is_stopped };
    let mut log = LogVerifier::new(evidence);
    let database_error = read_log(data, &mut log).await.err();
    let mut found = log.finish(clock::now(), is_signature_valid);
    if let Some(error) = ledger_error {
        let detail = format!("the executor's folder cannot be read: {error}; restore it from a backup");
        found.add_fault(FaultCode::LedgerDamaged, Some(1), detail);
    }
    if let Some(error) = database_error {
        // What was not read is not missing.
        found.faults.retain(|fault| ![FaultCode::EntriesMissing, FaultCode::SigningBehind].contains(&fault.code));
        found.add_fault(FaultCode::Unreadable, Some(1), error.to_string());
    }
    Ok(found)
}

fn read_given_key(path: &Path) -> Result<String, AuditLogError> {
    read_public_key(path).map_err(|error| AuditLogError::PublicKey { path: path.to_owned(), error })
}

/// Reads published heads: one JSON document a line.
fn read_published_heads(path: &Path) -> Result<Vec<SignedHead>, AuditLogError> {
    let failed = |error: String| AuditLogError::Heads { path: path.to_owned(), error };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let mut heads = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let head = serde_json::from_str(line).map_err(|error| failed(format!("line {}: {error}", index + 1)))?;
        heads.push(head);
    }
    Ok(heads)
}

async fn read_log(data: &Path, log: &mut LogVerifier) -> Result<(), AuditLogError> {
    let store = open_state(data, RequiredState::Entries).await?;
    let noted = store.read_audit(&mut |sequence, text, hash| log.push(sequence, text, hash)).await;
    store.close().await;
    // A running server may have noted a head that was signed after the ledger was read.
    let heads = audit_evidence(data).map(|read| read.heads).unwrap_or_default();
    log.set_noted(noted?.filter(|noted| !heads.contains(noted)));
    Ok(())
}

/// Returns entries with their sequence numbers and hashes, oldest first: from one on, or the last ones.
///
/// # Errors
/// Returns an error if the database cannot be read.
pub async fn read_entries(data: &Path, from: Option<i64>, limit: u32) -> Result<Vec<Value>, AuditLogError> {
    let store = open_state(data, RequiredState::Entries).await?;
    let from = match from {
        Some(from) => from,
        None => 1 + (store.audit_entries_after(0).await? - i64::from(limit)).max(0),
    };
    let mut entries: Vec<Value> = Vec::new();
    let mut next = from.max(1);
    while entries.len() < limit as usize {
        let read = store.audit_entries_from(next, LIST_BATCH_BYTES).await?;
        if read.is_empty() {
            break;
        }
        for (text, hash) in read.into_iter().take(limit as usize - entries.len()) {
            let mut entry: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "unreadable": text }));
            entry["sequence"] = json!(next);
            entry["hash"] = json!(hash);
            entries.push(entry);
            next += 1;
        }
    }
    store.close().await;
    Ok(entries)
}

/// What was accepted.
#[derive(Clone, Debug)]
pub struct AcceptedRestore {
    /// The signed head that accepts the log.
    pub signed: SignedHead,
    /// The faults that it settles.
    pub settled: LogVerification,
}

impl AcceptedRestore {
    /// Returns the line for people that reports it.
    pub fn describe(&self, data: &Path) -> String {
        let head = &self.signed.head;
        format!(
            "accepted as found with {} entries, {} were signed before; from now on signed with key {}, keep a copy of \
             {} on another machine",
            head.position.sequence,
            head.previous.sequence,
            key_id(&self.signed.public_key),
            public_key_file(data).display()
        )
    }
}

/// Accepts the audit log of a data folder as found, although it is not the one that was signed: a restored backup.
/// Records that in the log and in the executor's ledger. Returns `None` if there is nothing to accept. The caller has
/// locked the data folder.
///
/// # Errors
/// Returns an error if the chain itself is broken, or if database, ledger or key cannot be read or written.
pub async fn accept_restored_log(
    data: &Path,
    principal: Principal,
    reason: &str,
) -> Result<Option<AcceptedRestore>, AuditLogError> {
    let found = verify_audit_log(data, None, None).await?;
    let differs = found.faults.iter().any(|fault| fault.code != FaultCode::SigningBehind);
    if !differs && has_signing_key(data)? {
        return Ok(None);
    }
    let store = open_state(data, RequiredState::Entries).await?;
    let before = last_position(&store).await?;
    let entry = AuditEntry {
        at: clock::now(),
        tenant: TenantId::main(),
        principal: principal.clone(),
        agent: "operator".to_owned(),
        incident_id: None,
        action: "accept_restore".to_owned(),
        decision: json!({ "reason": reason, "entries": before.sequence, "signed_entries": found.signed_entries }),
        approved_by: None,
    };
    store.append_audit(&entry).await?;
    let position = last_position(&store).await?;
    let signed = accept_audit_log(data, position, Acceptance { principal, reason: reason.to_owned() })?;
    store.note_audit_head(&signed).await?;
    store.close().await;
    Ok(Some(AcceptedRestore { signed, settled: found }))
}

/// Returns the position of the last entry.
async fn last_position(store: &Store) -> Result<ChainPosition, AuditLogError> {
    let (mut chain, mut position) = (ChainVerifier::default(), ChainPosition::genesis());
    let mut on_row = |sequence: i64, text: &str, hash: &str| {
        let is_valid = chain.push(sequence, text, hash).is_some();
        if is_valid {
            position = ChainPosition { sequence, hash: hash.to_owned() };
        }
        is_valid
    };
    store.read_audit(&mut on_row).await?;
    chain.finish().first_broken.map_or(Ok(position), |broken| Err(AuditLogError::ChainBroken(broken)))
}

/// Returns the lines for people that report a verification.
pub fn describe(found: &LogVerification) -> Vec<String> {
    let entries = found.entries;
    let is_behind = found.faults.iter().all(|fault| fault.code == FaultCode::SigningBehind);
    let mut lines: Vec<String> = match found.first_broken {
        Some(first) if is_behind => vec![format!("{entries} entries, not proven from entry {first} on")],
        Some(first) if !found.ok => vec![format!("not intact from entry {first} on")],
        _ if !found.ok => vec!["not intact".to_owned()],
        _ => vec![format!("{entries} entries, chain intact")],
    };
    lines.extend(found.faults.iter().map(|fault| format!("fault: {}", visible_line(&fault.detail))));
    match (&found.signed_at, &found.key_id) {
        (Some(at), Some(key)) => {
            lines.push(format!("signed up to entry {} at {at} with key {key}", found.signed_entries));
            if found.unsigned_entries > 0 {
                let number = found.unsigned_entries;
                lines.push(format!("newer entries that are not signed yet: {number}; a running executor signs them"));
            }
        }
        _ if !found.ok => {}
        _ => lines.push(
            "not signed: an entry that was removed at the end, or a log that was rewritten, cannot be detected; the \
             executor signs (`wardroom serve --executor-config`)"
                .to_owned(),
        ),
    }
    if found.signed_as_found > 0 {
        lines.push(format!("entries 1 to {} are older than the signatures: signed as found", found.signed_as_found));
    }
    if found.signed_late > 0 {
        lines.push(format!("entries signed more than a minute after they were written: {}", found.signed_late));
    }
    lines.extend(found.accepted.iter().map(|accepted| {
        let (principal, reason) = (&accepted.principal, visible_line(&accepted.reason));
        let (sequence, before) = (accepted.sequence, accepted.signed_before);
        format!(
            "accepted by {principal} at {} as found with {sequence} entries, {before} were signed before: {reason}",
            accepted.at
        )
    }));
    lines
}
