//! Signs how far the audit log has come.
//!
//! ```text
//! server: entries after the last head ─► hash them onto the last head ─► same hash? ─► sign ─► ledger
//! ```
//!
//! Problem: the server that writes the audit log may be in an attacker's hands. Model: the executor keeps the key and
//! the last head; it signs only a log that extends that head by entries whose hashes it has computed itself. Guarantee:
//! what has been signed once cannot be changed or removed by the server without being noticed; see
//! [`wardroom_domain::audit_head`].

use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

use wardroom_domain::Timestamp;
use wardroom_domain::audit::chain_hash;
use wardroom_domain::audit_head::{Acceptance, ChainPosition, SignedHead, key_id};
use wardroom_domain::executor::{RefusalCode, Response};
use wardroom_process::clock;

use crate::audit_key::{AuditKey, PRIVATE_KEY_FILE, folder_public_key, public_key_path};
use crate::ledger::{Entry, FORMAT_VERSION, Ledger, read_audit_heads};
use crate::protocol::executor_folder;
use crate::refusal::Refusal;

/// Signs heads of the audit log.
#[derive(Debug)]
pub(crate) struct AuditSigning {
    /// The key, or why there is none.
    key: std::result::Result<AuditKey, String>,
}

impl AuditSigning {
    /// Reads the key of the executor's folder; creates one if nothing is signed yet. The executor works without a key;
    /// signing is then refused.
    pub(crate) fn open(folder: &Path, last: Option<&SignedHead>) -> Self {
        let key = find_key(folder, last);
        if let Err(reason) = &key {
            tracing::error!(reason, "the audit log cannot be signed");
        }
        Self { key }
    }

    /// Returns the last signed head.
    pub(crate) fn head(&self, ledger: &Ledger) -> std::result::Result<Response, Refusal> {
        self.key()?;
        Ok(Response::AuditHead { head: ledger.audit_head().cloned().map(Box::new) })
    }

    /// Signs the position after the last of these entries, if they extend the last head.
    pub(crate) fn sign(
        &self,
        ledger: &mut Ledger,
        first: i64,
        texts: &[String],
        hash: String,
    ) -> std::result::Result<Response, Refusal> {
        let key = self.key()?;
        let invalid = |detail: String| (RefusalCode::Invalid, detail);
        let last = ledger.audit_head();
        let mut position = last.map_or_else(ChainPosition::genesis, |last| last.head.position.clone());
        if texts.is_empty() || first != position.sequence + 1 {
            return Err(invalid(format!("the next entry to sign is {}, not {first}", position.sequence + 1)));
        }
        for text in texts {
            let sequence = position.sequence + 1;
            position = ChainPosition { hash: chain_hash(&position.hash, sequence, text), sequence };
        }
        if position.hash != hash {
            let detail = format!("the audit log does not extend the one that was signed up to entry {}", first - 1);
            return Err(invalid(detail));
        }
        let signed = SignedHead::next(last, position, None, clock::now()).and_then(|head| key.sign(head));
        let signed = Box::new(signed.map_err(invalid)?);
        let entry = Entry::AuditHead { version: FORMAT_VERSION, signed: signed.clone() };
        let failed = |error: Error| (RefusalCode::Unavailable, format!("the ledger cannot be written: {error}"));
        ledger.append(entry).map_err(failed)?;
        Ok(Response::AuditHead { head: Some(signed) })
    }

    fn key(&self) -> std::result::Result<&AuditKey, Refusal> {
        self.key.as_ref().map_err(|reason| (RefusalCode::Unavailable, reason.clone()))
    }
}

/// Reads the key with which the next head is signed; creates one if nothing is signed yet.
fn find_key(folder: &Path, last: Option<&SignedHead>) -> std::result::Result<AuditKey, String> {
    let remedy = "put it back, or stop the server and run `wardroom audit accept-restore`, which creates another";
    match (AuditKey::read(folder).map_err(|error| error.to_string())?, last) {
        (Some(key), Some(last)) if last.public_key != key.public_key() => {
            let (found, expected) = (key_id(key.public_key()), key_id(&last.public_key));
            Err(format!("{PRIVATE_KEY_FILE} has the key {found}, and the log is signed with {expected}: {remedy}"))
        }
        (Some(key), _) => Ok(key),
        (None, Some(_)) => Err(format!("{PRIVATE_KEY_FILE} is missing, and the log is signed with it: {remedy}")),
        (None, None) => create_key(folder).map_err(|error| error.to_string()),
    }
}

fn create_key(folder: &Path) -> Result<AuditKey> {
    AuditKey::create(folder)?;
    // Read like at the next start, which would find that it is not private.
    let key = AuditKey::read(folder)?.ok_or_else(|| Error::other(format!("{PRIVATE_KEY_FILE} was removed")))?;
    tracing::info!(
        key_id = key_id(key.public_key()),
        public_key = key.public_key(),
        file = %public_key_path(folder).display(),
        "created the key that signs the audit log; keep a copy of the public key on another machine"
    );
    Ok(key)
}

/// What the executor's folder says about the audit log.
#[derive(Clone, Debug)]
pub struct AuditEvidence {
    /// The signed heads of the ledger, in order.
    pub heads: Vec<SignedHead>,
    /// The public key, with the time of its file; `None` if there is none.
    pub public_key: Option<(String, Timestamp)>,
}

/// Returns the path of the public key of a data folder.
pub fn public_key_file(data: &Path) -> PathBuf {
    public_key_path(&executor_folder(data))
}

/// Reads what the executor's folder says about the audit log; the executor may be running.
///
/// # Errors
/// Returns an error if a file cannot be read or is damaged.
pub fn audit_evidence(data: &Path) -> Result<AuditEvidence> {
    let folder = executor_folder(data);
    Ok(AuditEvidence { heads: read_audit_heads(&folder)?, public_key: folder_public_key(&folder)? })
}

/// Returns whether the executor's folder has the key with which the last head is signed, or nothing is signed yet.
///
/// # Errors
/// Returns an error if ledger or key cannot be read.
pub fn has_signing_key(data: &Path) -> Result<bool> {
    let folder = executor_folder(data);
    let Some(last) = read_audit_heads(&folder)?.pop() else { return Ok(true) };
    Ok(AuditKey::read(&folder)?.is_some_and(|key| key.public_key() == last.public_key))
}

/// Signs that the audit log at this position is accepted although it does not extend the last head. Creates a key if
/// there is none. The caller has locked the data folder, so that no executor runs.
///
/// # Errors
/// Returns an error if ledger or key cannot be read or written.
pub fn accept_audit_log(data: &Path, position: ChainPosition, acceptance: Acceptance) -> Result<SignedHead> {
    let folder = executor_folder(data);
    let mut ledger = Ledger::open(&folder)?;
    let key = AuditKey::read(&folder)?.map_or_else(|| AuditKey::create(&folder), Ok)?;
    let head = SignedHead::next(ledger.audit_head(), position, Some(acceptance), clock::now());
    let signed = head.and_then(|head| key.sign(head)).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    ledger.append(Entry::AuditHead { version: FORMAT_VERSION, signed: Box::new(signed.clone()) })?;
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use wardroom_domain::Principal;

    use super::*;
    use crate::audit_key::is_signature_valid;

    /// An executor's folder and what it has signed.
    struct TestFolder {
        data: tempfile::TempDir,
        last: ChainPosition,
    }

    impl TestFolder {
        fn new() -> Self {
            Self { data: tempfile::tempdir().unwrap(), last: ChainPosition::genesis() }
        }

        /// Asks a newly started executor to sign these entries, whose hashes follow `after`.
        fn sign(&mut self, after: &ChainPosition, texts: &[&str]) -> std::result::Result<SignedHead, String> {
            let folder = executor_folder(self.data.path());
            let mut ledger = Ledger::open(&folder).unwrap();
            let signing = AuditSigning::open(&folder, ledger.audit_head());
            let mut position = after.clone();
            for text in texts {
                let sequence = position.sequence + 1;
                position = ChainPosition { hash: chain_hash(&position.hash, sequence, text), sequence };
            }
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            match signing.sign(&mut ledger, after.sequence + 1, &texts, position.hash.clone()) {
                Ok(Response::AuditHead { head: Some(signed) }) => {
                    assert_eq!(signed.head.position, position);
                    assert_eq!(ledger.audit_head(), Some(&*signed));
                    self.last = position;
                    Ok(*signed)
                }
                Ok(other) => panic!("{other:?}"),
                Err((_, detail)) => Err(detail),
            }
        }

        fn evidence(&self) -> AuditEvidence {
            audit_evidence(self.data.path()).unwrap()
        }
    }

    #[test]
    fn only_a_log_that_extends_the_signed_one_is_signed() {
        let mut folder = TestFolder::new();
        let genesis = ChainPosition::genesis();
        let one = folder.sign(&genesis, &["a", "b"]).unwrap();
        let two = folder.sign(&one.head.position, &["c"]).unwrap();
        assert_eq!((two.head.previous.clone(), two.public_key == one.public_key), (one.head.position.clone(), true));
        let last = folder.last.clone();
        let other = ChainPosition { sequence: last.sequence, hash: genesis.hash.clone() };
        for (after, texts, expected) in [
            (&genesis, vec!["a", "b", "c", "d"], "the next entry to sign is 4, not 1"),
            (&one.head.position, vec!["x", "d"], "the next entry to sign is 4, not 3"),
            (&other, vec!["d"], "does not extend"),
            (&last, vec![], "the next entry"),
        ] {
            let refused = folder.sign(after, &texts).unwrap_err();
            assert!(refused.contains(expected), "{texts:?}: {refused}");
        }
        folder.sign(&last, &["d"]).unwrap();
        let AuditEvidence { heads, public_key } = folder.evidence();
        assert_eq!(heads.iter().map(|signed| signed.head.position.sequence).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(heads.iter().all(is_signature_valid));
        assert_eq!(public_key.unwrap().0, one.public_key);
    }

    #[test]
    fn nothing_is_signed_with_another_key_until_that_is_accepted() {
        let mut folder = TestFolder::new();
        let one = folder.sign(&ChainPosition::genesis(), &["a"]).unwrap();
        let key_file = executor_folder(folder.data.path()).join(PRIVATE_KEY_FILE);
        std::fs::remove_file(&key_file).unwrap();
        let last = folder.last.clone();
        assert!(folder.sign(&last, &["b"]).unwrap_err().contains("is missing"));
        assert!(!key_file.exists(), "no other key is created");
        AuditKey::create(&executor_folder(folder.data.path())).unwrap();
        assert!(folder.sign(&last, &["b"]).unwrap_err().contains("is signed with"));

        std::fs::remove_file(&key_file).unwrap();
        let restored = ChainPosition { sequence: 1, hash: "ab".into() };
        let acceptance = Acceptance { principal: Principal::new("uid-0").unwrap(), reason: "restored".into() };
        let accepted = accept_audit_log(folder.data.path(), restored.clone(), acceptance.clone()).unwrap();
        assert!(is_signature_valid(&accepted) && accepted.public_key != one.public_key);
        assert_eq!(accepted.head.previous_head, Some(one.sha256().unwrap()));
        assert_eq!((accepted.head.accepted, accepted.head.position), (Some(acceptance), restored.clone()));
        let next = folder.sign(&restored, &["b"]).unwrap();
        assert_eq!(next.public_key, accepted.public_key);
        assert_eq!(folder.evidence().public_key.unwrap().0, accepted.public_key);
    }

    #[test]
    fn an_empty_folder_has_no_evidence_and_a_damaged_ledger_is_an_error() {
        let folder = TestFolder::new();
        let AuditEvidence { heads, public_key } = folder.evidence();
        assert!(heads.is_empty() && public_key.is_none());
        std::fs::create_dir(executor_folder(folder.data.path())).unwrap();
        let ledger = executor_folder(folder.data.path()).join("ledger.jsonl");
        std::fs::write(&ledger, "{\"step\":\"audit_head\",\"v\":2}\n").unwrap();
        assert!(audit_evidence(folder.data.path()).unwrap_err().to_string().contains("damaged line"));
    }
}
