//! Every change of a signed log is found, also if all hashes are computed again.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::audit::{AuditEntry, chain_hash};
use crate::identity::TenantId;

const KEY: &str = "the executor's key";

type Row = (i64, String, String);

/// Time of an entry: one a second.
fn time(sequence: i64) -> Timestamp {
    Timestamp::from_millis(sequence * 1000)
}

fn text(sequence: i64, action: &str) -> String {
    let entry = AuditEntry {
        at: time(sequence),
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        agent: "resolver".into(),
        incident_id: None,
        action: action.to_owned(),
        decision: json!({ "n": sequence }),
        approved_by: None,
    };
    entry.text().unwrap()
}

/// A valid chain of these texts.
fn chain(texts: impl IntoIterator<Item = String>) -> Vec<Row> {
    let mut previous = GENESIS.to_owned();
    let link = |(index, text): (usize, String)| {
        let sequence = index as i64 + 1;
        previous = chain_hash(&previous, sequence, &text);
        (sequence, text, previous.clone())
    };
    texts.into_iter().enumerate().map(link).collect()
}

fn rows(length: i64) -> Vec<Row> {
    chain((1..=length).map(|sequence| text(sequence, "transition")))
}

/// Stands for an Ed25519 signature.
fn signature(head: &AuditHead, key: &str) -> String {
    sha256_hex(format!("{key} signs {}", head.message().unwrap()).as_bytes())
}

fn is_valid(signed: &SignedHead) -> bool {
    signed.signature == signature(&signed.head, &signed.public_key)
}

fn sign(head: AuditHead, key: &str) -> SignedHead {
    SignedHead { signature: signature(&head, key), public_key: key.to_owned(), head }
}

fn position(rows: &[Row], sequence: i64) -> ChainPosition {
    let (sequence, _, hash) = rows[sequence as usize - 1].clone();
    ChainPosition { sequence, hash }
}

/// Heads at these entries, each signed a second after its entry.
fn heads(rows: &[Row], at: &[i64]) -> Vec<SignedHead> {
    let mut heads: Vec<SignedHead> = Vec::new();
    for sequence in at {
        let head = SignedHead::next(heads.last(), position(rows, *sequence), None, time(sequence + 1)).unwrap();
        heads.push(sign(head, KEY));
    }
    heads
}

fn evidence(heads: Vec<SignedHead>) -> SigningEvidence {
    SigningEvidence {
        noted: heads.last().cloned(),
        heads,
        published: Vec::new(),
        public_key: Some(KEY.to_owned()),
        is_key_given: false,
        signing_since: Some(time(0)),
        is_stopped: false,
    }
}

fn verify_at(rows: &[Row], evidence: SigningEvidence, now: Timestamp) -> LogVerification {
    let mut log = LogVerifier::new(evidence);
    for (sequence, text, hash) in rows {
        log.push(*sequence, text, hash);
    }
    log.finish(now, is_valid)
}

fn verify(rows: &[Row], evidence: SigningEvidence) -> LogVerification {
    verify_at(rows, evidence, time(rows.len() as i64 + 2))
}

fn codes(found: &LogVerification) -> Vec<FaultCode> {
    found.faults.iter().map(|fault| fault.code).collect()
}

#[test]
fn an_unaltered_log_is_accepted_with_its_unsigned_tail() {
    let rows = rows(9);
    let found = verify(&rows, evidence(heads(&rows, &[2, 3, 7])));
    assert!(found.ok, "{found:?}");
    assert_eq!((found.entries, found.signed_entries, found.unsigned_entries), (9, 7, 2));
    assert_eq!((found.signed, found.signed_at, found.key_id), (true, Some(time(8)), Some(key_id(KEY))));
    assert_eq!((found.signed_as_found, found.signed_late, found.first_broken), (0, 0, None));
}

/// Log and ledger are put back together: both are valid in themselves.
#[test]
fn a_published_head_tells_that_log_and_ledger_were_put_back() {
    let all = rows(9);
    let published = heads(&all, &[2, 7]);
    let check = |rows: &[Row], ledger: &[i64], published: &[SignedHead]| {
        let evidence = SigningEvidence { published: published.to_vec(), ..evidence(heads(rows, ledger)) };
        let found = verify(rows, evidence);
        (codes(&found), found.first_broken)
    };
    assert_eq!(check(&all, &[2, 7, 9], &published), (vec![], None));
    assert_eq!(check(&all[..5], &[2, 5], &published), (vec![FaultCode::EntriesMissing], Some(3)));
    assert_eq!(check(&all[..5], &[2, 5], &published[..1]), (vec![], None), "not known outside");
    let mut forged = published.clone();
    forged[1].head.position.hash = "other".into();
    assert_eq!(check(&all, &[2, 7], &forged).0, [FaultCode::BadSignature]);
    let other =
        sign(SignedHead::next(None, ChainPosition { sequence: 7, hash: "x".into() }, None, time(8)).unwrap(), KEY);
    assert_eq!(check(&all, &[2, 9], &[published[0].clone(), other]), (vec![FaultCode::Rewritten], Some(3)));
}

#[test]
fn an_old_entry_without_a_signature_is_a_fault() {
    let rows = rows(9);
    let at = |seconds| verify_at(&rows, evidence(heads(&rows, &[2, 7])), time(seconds));
    assert!(at(8 + 60).ok);
    let found = at(8 + 61);
    assert_eq!((codes(&found), found.first_broken), (vec![FaultCode::SigningBehind], Some(8)));
    // Written before there was a key: a minute after the executor has it.
    let started = |now| {
        let evidence = SigningEvidence { signing_since: Some(time(1000)), ..SigningEvidence::default() };
        verify_at(&rows, evidence, time(now))
    };
    assert!(started(1060).ok);
    assert_eq!(codes(&started(1061)), [FaultCode::SigningBehind]);
}

#[test]
fn what_commands_write_while_no_server_runs_waits_for_the_next_start() {
    let found = |actions: &[&str], is_stopped| {
        let before = (1..=7).map(|sequence| text(sequence, "transition"));
        let after = (8..).zip(actions).map(|(sequence, action)| text(sequence, action));
        let rows = chain(before.chain(after));
        let evidence = SigningEvidence { is_stopped, ..evidence(heads(&rows, &[2, 7])) };
        let found = verify_at(&rows, evidence, time(100));
        assert_eq!(found.unsigned_entries, actions.len() as i64);
        codes(&found)
    };
    let commands = ["create_token", "bus_new_epoch", "revoke_token"];
    assert_eq!(found(&commands, true), []);
    assert_eq!(found(&commands, false), [FaultCode::SigningBehind], "a server signs them at once");
    for actions in [["transition", "create_token"], ["create_token", "transition"]] {
        assert_eq!(found(&actions, true), [FaultCode::SigningBehind], "a server wrote that, and signs when it stops");
    }
    let never_signed = SigningEvidence { is_stopped: true, noted: None, ..evidence(Vec::new()) };
    let rows = chain([text(1, "create_token")]);
    assert_eq!(codes(&verify_at(&rows, never_signed, time(100))), [FaultCode::SigningBehind]);
}

#[test]
fn a_log_without_an_executor_is_not_signed() {
    let rows = rows(9);
    let found = verify_at(&rows, SigningEvidence::default(), time(1_000_000));
    assert_eq!((found.ok, found.signed, found.unsigned_entries), (true, false, 9));
    let given = SigningEvidence { public_key: Some(KEY.into()), is_key_given: true, ..SigningEvidence::default() };
    assert_eq!(codes(&verify(&rows, given)), [FaultCode::NotSigned]);
    // The ledger was removed, the database knows of it.
    let noted = SigningEvidence { heads: Vec::new(), ..evidence(heads(&rows, &[9])) };
    let found = verify(&rows, noted);
    assert_eq!((codes(&found), found.first_broken), (vec![FaultCode::LedgerDamaged], Some(1)));
}

#[test]
fn entries_that_were_signed_late_are_counted() {
    let rows = rows(9);
    let mut late = heads(&rows, &[4, 6]);
    for (sequence, at) in [(7, time(500)), (9, time(501))] {
        let head = SignedHead::next(late.last(), position(&rows, sequence), None, at).unwrap();
        late.push(sign(head, KEY));
    }
    let found = verify_at(&rows, evidence(late), time(502));
    assert_eq!((found.ok, found.signed_as_found, found.signed_late), (true, 0, 3));
    let mut as_found: Vec<SignedHead> = Vec::new();
    for sequence in [4, 8] {
        let head = SignedHead::next(as_found.last(), position(&rows, sequence), None, time(500)).unwrap();
        as_found.push(sign(head, KEY));
    }
    let found = verify_at(&rows, evidence(as_found), time(502));
    assert_eq!((found.signed_as_found, found.signed_late), (8, 0));
}

#[test]
fn an_accepted_log_is_valid_and_listed() {
    // A backup with six entries is restored after nine were signed.
    let old = rows(9);
    let signed = heads(&old, &[3, 6, 9]);
    let kept = (1..=6).map(|sequence| text(sequence, "transition"));
    let restored = chain(kept.chain([text(7, "accept_restore")]));
    assert_eq!(codes(&verify(&restored, evidence(signed.clone()))), [FaultCode::EntriesMissing]);
    let acceptance = Acceptance { principal: Principal::new("uid-1000").unwrap(), reason: "disk lost".into() };
    let accept = |key: &str| {
        let head = SignedHead::next(signed.last(), position(&restored, 7), Some(acceptance.clone()), time(20));
        [signed.clone(), vec![sign(head.unwrap(), key)]].concat()
    };
    let found = verify(&restored, evidence(accept(KEY)));
    assert!(found.ok, "{found:?}");
    let accepted = AcceptedLog {
        at: time(20),
        principal: acceptance.principal.clone(),
        reason: "disk lost".into(),
        signed_before: 9,
        sequence: 7,
    };
    assert_eq!(found.accepted, [accepted]);
    // With a new key, which the caller has to know.
    let other = SigningEvidence { public_key: Some("new".into()), ..evidence(accept("new")) };
    assert!(verify(&restored, other).ok);
    assert_eq!(codes(&verify(&restored, evidence(accept("new")))), [FaultCode::WrongKey]);
    // What follows is protected like any log, and so is what was accepted.
    let accepted_heads = accept(KEY);
    let mut texts: Vec<String> = restored.iter().map(|(_, text, _)| text.clone()).collect();
    texts[2] = text(3, "other");
    let rewritten = chain(texts);
    assert_eq!(codes(&verify(&rewritten, evidence(accepted_heads.clone()))), [FaultCode::Rewritten]);
    // The acceptance cannot be hidden.
    let hidden = accepted_heads.iter().filter(|signed| signed.head.accepted.is_none()).cloned().collect();
    assert!(!verify(&restored, evidence(hidden)).ok);
}

#[test]
fn changes_of_the_ledger_are_found() {
    let rows = rows(9);
    let signed = heads(&rows, &[2, 4, 6, 9]);
    let noted = signed.last().cloned();
    let check = |change: &dyn Fn(&mut Vec<SignedHead>)| {
        let mut changed = signed.clone();
        change(&mut changed);
        let found = verify(&rows, SigningEvidence { noted: noted.clone(), ..evidence(changed) });
        (codes(&found), found.first_broken)
    };
    assert_eq!(check(&|_| {}), (vec![], None));
    assert_eq!(check(&|heads| drop(heads.pop())), (vec![FaultCode::LedgerDamaged], Some(7)), "the end is cut off");
    assert_eq!(check(&|heads| drop(heads.remove(0))), (vec![FaultCode::LedgerDamaged], Some(3)));
    assert_eq!(check(&|heads| drop(heads.remove(2))), (vec![FaultCode::LedgerDamaged], Some(7)));
    assert_eq!(check(&|heads| heads.swap(1, 2)).0, [FaultCode::LedgerDamaged]);
    assert_eq!(check(&|heads| heads[1].head.at = time(1)).0, [FaultCode::LedgerDamaged]);
    assert_eq!(check(&|heads| heads[3].head.at = time(1)).0[0], FaultCode::BadSignature);
    assert_eq!(check(&|heads| heads[3].public_key = "other".into()).0[0], FaultCode::BadSignature);
    // Signed again with another key.
    let replaced = |heads: &mut Vec<SignedHead>| heads[3] = sign(heads[3].head.clone(), "other");
    assert_eq!(check(&replaced).0[0], FaultCode::WrongKey);
    assert_eq!(check(&Vec::clear).0, [FaultCode::LedgerDamaged]);
}

/// What an attacker does to a log, with the hashes computed again where that helps.
#[derive(Clone, Debug)]
enum Attack {
    /// Removes all entries from one on.
    Cut(usize),
    /// Changes a text, and nothing else.
    Edit(usize),
    /// Changes a text and computes all hashes again.
    Rewrite(usize),
    /// Swaps two neighbours.
    Swap(usize, bool),
    /// Inserts an entry.
    Insert(usize, bool),
    /// Removes an entry.
    Remove(usize, bool),
    /// Replaces the log by another one of any length.
    Replace(usize),
}

impl Attack {
    /// Returns the altered rows and the first sequence number that differs.
    fn apply(&self, rows: &[Row]) -> (Vec<Row>, i64) {
        let mut texts: Vec<String> = rows.iter().map(|(_, text, _)| text.clone()).collect();
        let mut plain = rows.to_vec();
        match *self {
            Self::Cut(index) => (rows[..index].to_vec(), index as i64 + 1),
            Self::Edit(index) => {
                plain[index].1 = text(index as i64 + 1, "other");
                (plain, index as i64 + 1)
            }
            Self::Rewrite(index) => {
                texts[index] = text(index as i64 + 1, "other");
                (chain(texts), index as i64 + 1)
            }
            Self::Swap(index, anew) => {
                texts.swap(index, index + 1);
                plain.swap(index, index + 1);
                (if anew { chain(texts) } else { plain }, index as i64 + 1)
            }
            Self::Insert(index, anew) => {
                texts.insert(index, text(99, "other"));
                let row = (index as i64 + 1, text(99, "other"), plain[index].2.clone());
                plain.insert(index, row);
                (if anew { chain(texts) } else { plain }, index as i64 + 1)
            }
            Self::Remove(index, anew) => {
                texts.remove(index);
                plain.remove(index);
                (if anew { chain(texts) } else { plain }, index as i64 + 1)
            }
            Self::Replace(length) => (chain((0..length as i64).map(|n| text(n, "other"))), 1),
        }
    }
}

/// Length of the attacked log, all of which is signed.
const LENGTH: usize = 12;

fn attack() -> impl Strategy<Value = Attack> {
    prop_oneof![
        (0..LENGTH).prop_map(Attack::Cut),
        (0..LENGTH).prop_map(Attack::Edit),
        (0..LENGTH).prop_map(Attack::Rewrite),
        (0..LENGTH - 1, any::<bool>()).prop_map(|(index, anew)| Attack::Swap(index, anew)),
        (0..LENGTH, any::<bool>()).prop_map(|(index, anew)| Attack::Insert(index, anew)),
        (0..LENGTH, any::<bool>()).prop_map(|(index, anew)| Attack::Remove(index, anew)),
        (0..3 * LENGTH).prop_map(Attack::Replace),
    ]
}

proptest! {
    #[test]
    fn every_change_of_a_signed_log_is_found(
        attack in attack(),
        marks in proptest::collection::btree_set(1..LENGTH as i64, 0..6),
    ) {
        let rows = rows(LENGTH as i64);
        let at: Vec<i64> = marks.into_iter().chain([LENGTH as i64]).collect();
        let (altered, first) = attack.apply(&rows);
        let found = verify(&altered, evidence(heads(&rows, &at)));
        prop_assert!(!found.ok, "{attack:?}");
        // Named no later than the first difference, and no earlier than the last entry that a head proves.
        let proven = at.iter().copied().filter(|sequence| *sequence < first).max().unwrap_or_default();
        let broken = found.first_broken.unwrap();
        prop_assert!((proven + 1..=first).contains(&broken), "{attack:?}: {broken}, expected {proven} to {first}");
    }
}
