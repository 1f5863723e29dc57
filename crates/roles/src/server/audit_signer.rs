//! Has the executor sign the audit log: after every commit, at most once a second.
//!
//! The log is read from the database, so entries of other processes (`wardroom token create`) are signed, too. A log
//! that does not extend what is signed stays unsigned; `/readyz` and a metric say so, and telemetry is still accepted.
//! That also holds without newer entries: a log that was cut has none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use wardroom_domain::audit_head::{ChainPosition, SignedHead};
use wardroom_domain::executor::{Request, Response};
use wardroom_executor::ExecutorClient;
use wardroom_store::Store;

use crate::metrics as names;
use wardroom_response::OTHER_ANSWER;

/// Shortest interval between two signatures, and longest between two looks for entries of other processes.
const SIGNING_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between attempts while signing fails.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Time for which signing may fail before that is logged: the executor may be starting.
const MAX_SILENT_FAILURE: Duration = Duration::from_secs(5);
/// Maximum time for signing at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of entries in one request to the executor; a longer entry is sent by itself.
const MAX_BATCH_BYTES: usize = 256 << 10;

/// Why the log is not signed.
#[derive(Clone, Debug)]
struct Unsigned {
    reason: String,
    /// Whether the executor was asked: an executor that does not respond is reported as such.
    was_asked: bool,
}

/// How far signing has come, for readiness.
#[derive(Debug, Default)]
pub(super) struct SigningStatus(Mutex<Option<Unsigned>>);

impl SigningStatus {
    /// Returns `signed`, or why not all entries are.
    pub(super) fn describe(&self, executor: &ExecutorClient) -> String {
        if !executor.configured() {
            return "not signed: no executor is configured".to_owned();
        }
        self.get().map_or_else(|| "signed".to_owned(), |unsigned| unsigned.reason)
    }

    /// Returns whether the log is known not to be signed as it is.
    pub(super) fn has_failed(&self, executor: &ExecutorClient) -> bool {
        executor.configured() && self.get().is_some_and(|unsigned| unsigned.was_asked)
    }

    fn get(&self) -> Option<Unsigned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, unsigned: Option<Unsigned>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = unsigned;
    }
}

/// Has the executor sign the audit log.
pub(super) struct AuditSigner {
    store: Store,
    executor: ExecutorClient,
    status: Arc<SigningStatus>,
    /// The last signed head, once it is known and compared with the database.
    last: Option<SignedHead>,
    /// Whether the executor has responded to the last request.
    was_asked: bool,
}

impl AuditSigner {
    pub(super) fn new(store: Store, executor: ExecutorClient, status: Arc<SigningStatus>) -> Self {
        status.set(Some(Unsigned { reason: "not signed yet".to_owned(), was_asked: false }));
        Self { store, executor, status, last: None, was_asked: false }
    }

    /// Signs until it is cancelled.
    pub(super) async fn run(mut self) {
        let mut failing: Option<(Instant, Option<String>)> = None;
        loop {
            match self.sign_pending().await {
                Ok(signed) => {
                    failing = None;
                    if signed {
                        tokio::time::sleep(SIGNING_INTERVAL).await;
                    }
                    // It may end before there is a commit: other processes write entries, too.
                    drop(tokio::time::timeout(SIGNING_INTERVAL, self.store.wait_for_commit()).await);
                }
                Err(reason) => {
                    let (since, logged) = failing.get_or_insert((Instant::now(), None));
                    if since.elapsed() >= MAX_SILENT_FAILURE && logged.as_ref() != Some(&reason) {
                        tracing::error!(reason, "the audit log cannot be signed; retrying");
                        *logged = Some(reason);
                    }
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Signs what was written last, when the other tasks have ended.
    pub(super) async fn finish(store: Store, executor: ExecutorClient) {
        if !executor.configured() {
            return;
        }
        let mut signer = Self::new(store, executor, Arc::default());
        let signed = tokio::time::timeout(SHUTDOWN_TIMEOUT, signer.sign_pending()).await;
        if let Ok(Err(reason)) = signed {
            tracing::warn!(reason, "the last entries of the audit log are not signed");
        }
    }

    /// Has all entries signed that are not yet, and updates the status. Returns whether there were any.
    async fn sign_pending(&mut self) -> Result<bool, String> {
        let result = self.sign_entries().await;
        let unsigned = match &result {
            Ok(_) => 0,
            Err(_) => {
                let noted = self.store.noted_audit_head().await.unwrap_or_default();
                let signed = self.last.take().or(noted).map_or(0, |last| last.head.position.sequence);
                self.store.audit_entries_after(signed).await.unwrap_or_default()
            }
        };
        metrics::gauge!(names::AUDIT_UNSIGNED_ENTRIES).set(unsigned as f64);
        metrics::gauge!(names::AUDIT_SIGNING_UP).set(if result.is_ok() { 1.0 } else { 0.0 });
        let was_asked = self.was_asked;
        let describe = |reason: &String| Unsigned { reason: describe_failure(unsigned, reason), was_asked };
        self.status.set(result.as_ref().err().map(describe));
        result
    }

    async fn sign_entries(&mut self) -> Result<bool, String> {
        let mut position = self.signed_position().await?;
        let mut signed_any = false;
        loop {
            let first = position.sequence + 1;
            let entries =
                self.store.audit_entries_from(first, MAX_BATCH_BYTES).await.map_err(|error| error.to_string())?;
            let Some((_, hash)) = entries.last().cloned() else { return Ok(signed_any) };
            let texts = entries.into_iter().map(|(text, _)| text).collect();
            let signed = self.request(Request::SignAudit { first, texts, hash }).await?;
            let signed = signed.ok_or("the executor did not return the signed head")?;
            self.store.note_audit_head(&signed).await.map_err(|error| error.to_string())?;
            position = signed.head.position.clone();
            self.last = Some(signed);
            signed_any = true;
        }
    }

    /// Returns the position of the last signed head, after checking that the database has it.
    async fn signed_position(&mut self) -> Result<ChainPosition, String> {
        let last = match self.last.take() {
            Some(last) => last,
            None => {
                let (last, noted) = (self.request(Request::AuditHead).await?, self.store.noted_audit_head().await);
                let noted = noted.map_err(|error| error.to_string())?;
                check_noted(last.as_ref(), noted.as_ref())?;
                let Some(last) = last else { return Ok(ChainPosition::genesis()) };
                if noted.as_ref() != Some(&last) {
                    // The server ended before it could note it.
                    self.store.note_audit_head(&last).await.map_err(|error| error.to_string())?;
                }
                last
            }
        };
        let position = last.head.position.clone();
        let found = self.store.audit_hash(position.sequence).await.map_err(|error| error.to_string())?;
        self.last = Some(last);
        if found.as_ref() == Some(&position.hash) {
            return Ok(position);
        }
        let what = if found.is_some() { "another one is in the database" } else { "it is missing in the database" };
        Err(format!("entry {} is signed, and {what}; run `wardroom audit verify`", position.sequence))
    }

    async fn request(&mut self, request: Request) -> Result<Option<SignedHead>, String> {
        let response = self.executor.request(&request).await;
        self.was_asked = response.is_ok();
        match response.map_err(|error| error.to_string())? {
            Response::AuditHead { head } => Ok(head.map(|head| *head)),
            Response::Refused { detail, .. } => Err(detail),
            _ => Err(OTHER_ANSWER.to_owned()),
        }
    }
}

/// Why the log is not signed as it is, with the number of entries that wait for that.
fn describe_failure(unsigned: i64, reason: &str) -> String {
    match unsigned {
        0 => format!("the log cannot be signed: {reason}"),
        1 => format!("1 entry is not signed: {reason}"),
        _ => format!("{unsigned} entries are not signed: {reason}"),
    }
}

/// Checks that the executor's ledger is not older than the database.
fn check_noted(last: Option<&SignedHead>, noted: Option<&SignedHead>) -> Result<(), String> {
    let sequence = |signed: &SignedHead| signed.head.position.sequence;
    match noted.map(sequence) {
        Some(noted) if last.map_or(0, sequence) < noted => Err(format!(
            "entry {noted} was signed, which the executor's ledger does not have: it was cut, removed, or restored \
             from an older copy; run `wardroom audit verify`"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_only_entries_that_wait() {
        let cut = describe_failure(0, "entry 13 is signed, and it is missing in the database");
        assert!(!cut.contains("0 entries") && cut.ends_with("missing in the database"), "{cut}");
        assert_eq!(describe_failure(1, "no key"), "1 entry is not signed: no key");
        assert_eq!(describe_failure(2, "no key"), "2 entries are not signed: no key");
    }
}
