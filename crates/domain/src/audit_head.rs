//! Signed heads of the audit log, and what they prove.
//!
//! Problem: a process that can write the database can cut entries off the end of the audit log, or compute the hashes
//! of a whole new one. Model: the executor, whose files the server cannot read, signs the position that the chain has
//! reached (its *head*) and writes it to its ledger; each head extends the one before it by entries that the executor
//! has hashed itself, and contains its hash, so that the signature of the last head proves all of them. Guarantee:
//! every entry up to the last head is the one that was signed, unless the key is stolen; and a log that is shorter than
//! its last head is incomplete. Entries after the last head are not proven yet.
//!
//! A head may also *accept* a log that does not extend the one before it (a restored backup). Only a person can have
//! that done, with the server stopped, and every verification lists it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::audit::{ChainVerifier, GENESIS};
use crate::canonical::{canonical_json, sha256_hex};
use crate::identity::Principal;
use crate::mutant;
use crate::time::Timestamp;

/// Time within which an entry is signed. An older entry without a signature is a fault.
pub const MAX_SIGNING_DELAY: Duration = Duration::from_secs(60);
/// First line of every signed message, so that a signature cannot be taken for one of something else.
const MESSAGE_CONTEXT: &str = "wardroom audit head v1";
/// Hexadecimal digits of a key's id.
const KEY_ID_DIGITS: usize = 16;
/// Actions of which commands write the entries, also while no server runs.
const COMMAND_ACTIONS: [&str; 3] = ["create_token", "revoke_token", "bus_new_epoch"];

/// A position in the chain: an entry and the hash of the chain up to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPosition {
    /// Sequence number of the entry; 0 before the first.
    pub sequence: i64,
    /// Hash of the entry.
    pub hash: String,
}

impl ChainPosition {
    /// The position before the first entry.
    pub fn genesis() -> Self {
        Self { sequence: 0, hash: GENESIS.to_owned() }
    }
}

/// Why a log is accepted that does not extend the signed one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// Who accepted it.
    pub principal: Principal,
    /// Their reason.
    pub reason: String,
}

/// What is signed: that the audit log has reached a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Time of the signature.
    pub at: Timestamp,
    /// The position of the previous head.
    pub previous: ChainPosition,
    /// SHA-256 of the previous head, see [`SignedHead::sha256`]; `None` in the first.
    pub previous_head: Option<String>,
    /// The position that the chain has reached.
    pub position: ChainPosition,
    /// Set if the log does not extend the previous head, and was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Acceptance>,
}

impl AuditHead {
    /// Returns the signed message: a line with the context, then the head's canonical JSON.
    ///
    /// # Errors
    /// Returns an error if a value cannot be represented in JSON.
    pub fn message(&self) -> Result<String, String> {
        Ok(format!("{MESSAGE_CONTEXT}\n{}", canonical_json(self)?))
    }
}

/// A head with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// The head.
    pub head: AuditHead,
    /// The Ed25519 public key: its DER `SubjectPublicKeyInfo` in Base64, the text between the lines of a PEM file.
    pub public_key: String,
    /// The Ed25519 signature of [`AuditHead::message`], in Base64.
    pub signature: String,
}

impl SignedHead {
    /// Returns the SHA-256 of the canonical JSON, in hex.
    ///
    /// # Errors
    /// Returns an error if a value cannot be represented in JSON.
    pub fn sha256(&self) -> Result<String, String> {
        canonical_json(self).map(|text| sha256_hex(text.as_bytes()))
    }

    /// Builds the head that follows `last`, to be signed.
    ///
    /// # Errors
    /// Returns an error if a value cannot be represented in JSON.
    pub fn next(
        last: Option<&Self>,
        position: ChainPosition,
        accepted: Option<Acceptance>,
        at: Timestamp,
    ) -> Result<AuditHead, String> {
        let previous = last.map_or_else(ChainPosition::genesis, |last| last.head.position.clone());
        Ok(AuditHead { at, previous, previous_head: last.map(Self::sha256).transpose()?, position, accepted })
    }
}

/// Returns the id of a public key: the first digits of the SHA-256 of its Base64 text.
pub fn key_id(public_key: &str) -> String {
    let mut id = sha256_hex(public_key.as_bytes());
    id.truncate(KEY_ID_DIGITS);
    id
}

/// A kind of fault of the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// An entry was changed, moved, inserted or removed.
    ChainBroken,
    /// The log is valid in itself, but not the one that was signed.
    Rewritten,
    /// Signed entries are missing at the end.
    EntriesMissing,
    /// The database is missing or cannot be read.
    Unreadable,
    /// The ledger's heads are missing, older than the log, damaged, or do not follow each other.
    LedgerDamaged,
    /// A signature is not valid.
    BadSignature,
    /// The log is signed with another key than the expected one.
    WrongKey,
    /// Entries have had no signature for longer than [`MAX_SIGNING_DELAY`].
    SigningBehind,
    /// A key was given, but nothing is signed.
    NotSigned,
}

/// A fault of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The kind.
    pub code: FaultCode,
    /// What was found, and the remedy.
    pub detail: String,
    /// Sequence number of the first entry that is missing or may not be the original because of it.
    pub first_broken: Option<i64>,
}

/// An acceptance that the ledger records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AcceptedLog {
    /// Time of the acceptance.
    pub at: Timestamp,
    /// Who accepted the log.
    pub principal: Principal,
    /// Their reason.
    pub reason: String,
    /// The last entry that was signed before.
    pub signed_before: i64,
    /// The entry of the log that records the acceptance.
    pub sequence: i64,
}

/// The result of verifying the audit log against its signed heads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogVerification {
    /// Number of entries read.
    pub entries: i64,
    /// Whether no fault was found.
    pub ok: bool,
    /// Sequence number of the first entry that is missing or may not be the original.
    pub first_broken: Option<i64>,
    /// Whether the log is signed at all. Without an executor it is not.
    pub signed: bool,
    /// The last entry that is signed.
    pub signed_entries: i64,
    /// Number of entries after it.
    pub unsigned_entries: i64,
    /// Time of the last signature.
    pub signed_at: Option<Timestamp>,
    /// Id of the key of the last signature.
    pub key_id: Option<String>,
    /// The last of the entries from the first that are older than the signatures: they were signed as found.
    pub signed_as_found: i64,
    /// Number of other entries that were signed later than [`MAX_SIGNING_DELAY`] after they were written.
    pub signed_late: i64,
    /// Logs that were accepted although they did not extend the signed one.
    pub accepted: Vec<AcceptedLog>,
    /// The faults.
    pub faults: Vec<Fault>,
}

/// What is known about the signatures from outside the log.
#[derive(Clone, Debug, Default)]
pub struct SigningEvidence {
    /// The heads of the executor's ledger, in order.
    pub heads: Vec<SignedHead>,
    /// The last head, as the server noted it in the database.
    pub noted: Option<SignedHead>,
    /// Heads that were published outside of the data folder, in order: they tell that log and ledger were put back
    /// together to an earlier state.
    pub published: Vec<SignedHead>,
    /// The public key that must have signed, if one is known.
    pub public_key: Option<String>,
    /// Whether the caller gave that key, so that an unsigned log is a fault.
    pub is_key_given: bool,
    /// Time since which the executor has a key; `None` if it has none.
    pub signing_since: Option<Timestamp>,
    /// Whether no server runs, so that what a command writes is signed after the next start only.
    pub is_stopped: bool,
}

/// Verifies the audit log against its signed heads, entry by entry.
#[derive(Debug)]
pub struct LogVerifier {
    evidence: SigningEvidence,
    chain: ChainVerifier,
    /// Hashes of the entries at which a head ends.
    hashes: BTreeMap<i64, String>,
    /// Times of the first entries that a head signs.
    times: BTreeMap<i64, Timestamp>,
    /// Whether all entries after the last head are of commands.
    is_rest_of_commands: bool,
}

impl LogVerifier {
    /// Begins a verification.
    pub fn new(evidence: SigningEvidence) -> Self {
        let position = |signed: &SignedHead| (signed.head.position.sequence, String::new());
        let hashes = evidence.heads.iter().chain(&evidence.published).map(position).collect();
        let times = evidence.heads.iter().map(|signed| (signed.head.previous.sequence + 1, Timestamp::default()));
        let mut times: BTreeMap<i64, Timestamp> = times.collect();
        let signed_entries = evidence.heads.last().map_or(0, |signed| signed.head.position.sequence);
        times.insert(signed_entries + 1, Timestamp::default());
        Self { evidence, chain: ChainVerifier::default(), hashes, times, is_rest_of_commands: true }
    }

    /// Sets the last head that the server noted in the database.
    pub fn set_noted(&mut self, noted: Option<SignedHead>) {
        self.evidence.noted = noted;
    }

    /// Verifies the next row. Returns `false` if the chain is broken at or before it; further rows change nothing.
    pub fn push(&mut self, sequence: i64, text: &str, hash: &str) -> bool {
        let Some(entry) = self.chain.push(sequence, text, hash) else { return false };
        if let Some(known) = self.hashes.get_mut(&sequence) {
            hash.clone_into(known);
        }
        if let Some(at) = self.times.get_mut(&sequence) {
            *at = entry.at;
        }
        let is_signed = self.evidence.heads.last().is_some_and(|last| sequence <= last.head.position.sequence);
        self.is_rest_of_commands &= is_signed || COMMAND_ACTIONS.contains(&entry.action.as_str());
        true
    }

    /// Returns the result. `is_valid` verifies the signature of a head with the public key in it.
    pub fn finish(self, now: Timestamp, is_valid: impl Fn(&SignedHead) -> bool) -> LogVerification {
        let chain = self.chain.finish();
        let last = self.evidence.heads.last();
        let signed_entries = last.map_or(0, |signed| signed.head.position.sequence);
        let unsigned_entries = (self.chain.entries() - signed_entries).max(0);
        let mut faults = Vec::new();
        if let Some(first) = chain.first_broken {
            let detail = "it was changed, moved, inserted, or the one before it was removed; restore a backup";
            let detail = format!("the chain is broken at entry {first}: {detail}");
            faults.push(fault(FaultCode::ChainBroken, Some(first), detail));
        }
        faults.extend(self.check_heads(&is_valid));
        faults
            .extend(self.check_published(&is_valid, chain.ok).filter(|_| !mutant::is_enabled("skip-published-heads")));
        faults.extend(self.compare_with_heads(chain.ok).filter(|_| !mutant::is_enabled("skip-signed-heads")));
        faults.extend(self.check_unsigned(unsigned_entries, now));
        let (signed_as_found, signed_late) = self.late_entries();
        LogVerification {
            entries: chain.entries,
            ok: faults.is_empty(),
            first_broken: faults.iter().filter_map(|fault| fault.first_broken).min(),
            signed: last.is_some(),
            signed_entries,
            unsigned_entries,
            signed_at: last.map(|signed| signed.head.at),
            key_id: last.map(|signed| key_id(&signed.public_key)),
            signed_as_found,
            signed_late,
            accepted: self.evidence.heads.iter().filter_map(accepted_log).collect(),
            faults,
        }
    }

    /// The heads that must hold: from the last accepted one on. It replaces all before it.
    fn heads_in_force(&self) -> &[SignedHead] {
        let heads = &self.evidence.heads;
        let first = heads.iter().rposition(|signed| signed.head.accepted.is_some()).unwrap_or_default();
        heads.get(first..).unwrap_or_default()
    }

    /// Checks that the heads are genuine and follow each other.
    fn check_heads(&self, is_valid: impl Fn(&SignedHead) -> bool) -> Option<Fault> {
        if let Some(last) = self.evidence.heads.last() {
            let what = format!("the last head in the executor's ledger (entry {})", last.head.position.sequence);
            if !is_valid(last) {
                let detail = "has no valid signature: the ledger was changed; restore it from a backup";
                return Some(fault(FaultCode::BadSignature, Some(1), format!("{what} {detail}")));
            }
            if let Some(key) = self.evidence.public_key.as_ref().filter(|key| **key != last.public_key) {
                let (found, key) = (key_id(&last.public_key), key_id(key));
                let detail = format!(
                    "{what} is signed with the key {found}, expected {key}: after a restore give the new public key, \
                     otherwise the ledger was replaced"
                );
                return Some(fault(FaultCode::WrongKey, Some(1), detail));
            }
        }
        self.check_links().or_else(|| self.check_noted())
    }

    /// Checks that each head follows the one before it. The signature of the last one then proves them all.
    fn check_links(&self) -> Option<Fault> {
        let heads = self.heads_in_force();
        let mut last = None;
        for (index, signed) in heads.iter().enumerate() {
            let AuditHead { previous, previous_head, position, accepted, .. } = &signed.head;
            let follows = SignedHead::next(last, position.clone(), None, signed.head.at)
                .is_ok_and(|next| next.previous == *previous && next.previous_head == *previous_head);
            let is_accepted = index == 0 && accepted.is_some();
            if !is_accepted && (!follows || position.sequence <= previous.sequence) {
                let detail = format!(
                    "the head of entry {} does not follow the one before it: lines of the executor's ledger were \
                     changed, removed or inserted; restore it from a backup",
                    position.sequence
                );
                return Some(fault(FaultCode::LedgerDamaged, Some(previous.sequence + 1), detail));
            }
            last = Some(signed);
        }
        None
    }

    /// Checks that the ledger has the head that the server has noted in the database.
    fn check_noted(&self) -> Option<Fault> {
        let noted = self.evidence.noted.as_ref().filter(|noted| !self.evidence.heads.contains(noted))?;
        let detail = format!(
            "the database notes that entry {} was signed ({}), which the executor's ledger does not have: the ledger \
             was cut, removed, or restored from an older copy. Put it back, or accept the state as found with \
             `wardroom audit accept-restore`",
            noted.head.position.sequence, noted.head.at
        );
        let first = self.evidence.heads.last().map_or(1, |signed| signed.head.position.sequence + 1);
        Some(fault(FaultCode::LedgerDamaged, Some(first), detail))
    }

    /// Compares the log with the heads that were published. Those from before the last acceptance say nothing any more.
    fn check_published(&self, is_valid: impl Fn(&SignedHead) -> bool, is_chain_ok: bool) -> Option<Fault> {
        let accepted = self.evidence.heads.iter().rev().find(|signed| signed.head.accepted.is_some());
        let since = accepted.map_or(Timestamp::from_nanos(i64::MIN), |signed| signed.head.at);
        let mut proven = 0;
        for signed in self.evidence.published.iter().filter(|signed| signed.head.at >= since) {
            let ChainPosition { sequence, hash } = &signed.head.position;
            let key = &signed.public_key;
            if !is_valid(signed) || self.evidence.public_key.as_ref().is_some_and(|expected| expected != key) {
                let detail = format!("a published head (entry {sequence}) is not signed with the expected key");
                return Some(fault(FaultCode::BadSignature, Some(proven + 1), detail));
            }
            if *sequence > self.chain.entries() {
                let detail = format!(
                    "the log ends at entry {}, but a published head says that entry {sequence} was signed at {}: the \
                     end was cut, or log and ledger were put back to an earlier state; restore a newer backup",
                    self.chain.entries(),
                    signed.head.at
                );
                return is_chain_ok.then(|| fault(FaultCode::EntriesMissing, Some(proven + 1), detail));
            }
            if self.hashes.get(sequence) != Some(hash) {
                let detail = format!(
                    "the log is not the one of a published head: it differs within the entries {} to {sequence}",
                    proven + 1
                );
                return Some(fault(FaultCode::Rewritten, Some(proven + 1), detail));
            }
            proven = *sequence;
        }
        None
    }

    /// Compares the log with what the heads say about it.
    fn compare_with_heads(&self, is_chain_ok: bool) -> Option<Fault> {
        let mut proven = 0;
        for signed in self.heads_in_force() {
            let ChainPosition { sequence, hash } = &signed.head.position;
            if self.hashes.get(sequence).is_some_and(|found| found == hash) {
                proven = *sequence;
                continue;
            }
            let entries = self.chain.entries();
            if *sequence <= entries {
                let detail = format!(
                    "the log is not the one that was signed: it differs within the entries {} to {sequence}; restore a \
                     backup. If the database itself is a restored copy, accept it with `wardroom audit accept-restore`",
                    proven + 1
                );
                return Some(fault(FaultCode::Rewritten, Some(proven + 1), detail));
            }
            if !is_chain_ok {
                return None; // The entries after the break cannot be compared.
            }
            let signed_entries = self.heads_in_force().last().map_or(0, |signed| signed.head.position.sequence);
            let detail = format!(
                "the log ends at entry {entries}, but entry {signed_entries} is signed: {} entries are missing at the \
                 end. Put the database back or restore a backup. If the database itself is a restored copy, accept it \
                 with `wardroom audit accept-restore`",
                signed_entries - entries
            );
            // The entries between the last head that matches and the end may have been changed, too.
            return Some(fault(FaultCode::EntriesMissing, Some(proven + 1), detail));
        }
        None
    }

    /// Checks that the entries after the last head are recent. While no server runs, those of commands may be older; a
    /// log and a ledger that were cut to hide something would have to end at the same entry for that.
    fn check_unsigned(&self, unsigned_entries: i64, now: Timestamp) -> Option<Fault> {
        let evidence = &self.evidence;
        if evidence.heads.is_empty() && evidence.is_key_given {
            let detail = "a public key was given, but no entry is signed: the executor's ledger is missing, or no \
                          executor has run on this data folder";
            return Some(fault(FaultCode::NotSigned, Some(1), detail.to_owned()));
        }
        let first = self.evidence.heads.last().map_or(1, |signed| signed.head.position.sequence + 1);
        // Before the first head there may be entries from before there was a key.
        let since = if evidence.heads.is_empty() { evidence.signing_since? } else { Timestamp::default() };
        let written = self.times.get(&first).filter(|_| unsigned_entries > 0)?;
        let waits_for_start = evidence.is_stopped && self.is_rest_of_commands && !evidence.heads.is_empty();
        if waits_for_start || now <= (*written).max(since).plus(MAX_SIGNING_DELAY) {
            return None;
        }
        let detail = format!(
            "{unsigned_entries} entries are not signed, the first is entry {first} of {written}: start `wardroom \
             serve` with its executor, which signs them, or see in /readyz why it does not. If it has signed them \
             before, the executor's ledger was cut or restored from an older copy"
        );
        Some(fault(FaultCode::SigningBehind, Some(first), detail))
    }

    /// Returns the last of the first entries that were signed late, and the number of others that were.
    fn late_entries(&self) -> (i64, i64) {
        let (mut as_found, mut late) = (0, 0);
        for signed in self.evidence.heads.iter().filter(|signed| signed.head.accepted.is_none()) {
            let AuditHead { at, previous, position, .. } = &signed.head;
            let written = self.times.get(&(previous.sequence + 1)).filter(|at| **at != Timestamp::default());
            if written.is_none_or(|written| *at <= written.plus(MAX_SIGNING_DELAY)) {
                continue;
            }
            if previous.sequence == as_found {
                as_found = position.sequence;
            } else {
                late += position.sequence - previous.sequence;
            }
        }
        (as_found, late)
    }
}

impl LogVerification {
    /// Adds a fault that was found outside the log.
    pub fn add_fault(&mut self, code: FaultCode, first_broken: Option<i64>, detail: String) {
        self.faults.push(fault(code, first_broken, detail));
        self.ok = false;
        self.first_broken = self.first_broken.into_iter().chain(first_broken).min();
    }
}

fn fault(code: FaultCode, first_broken: Option<i64>, detail: String) -> Fault {
    Fault { code, detail, first_broken }
}

fn accepted_log(signed: &SignedHead) -> Option<AcceptedLog> {
    let Acceptance { principal, reason } = signed.head.accepted.clone()?;
    let AuditHead { at, previous, position, .. } = &signed.head;
    Some(AcceptedLog { at: *at, principal, reason, signed_before: previous.sequence, sequence: position.sequence })
}

#[cfg(test)]
mod tests;
