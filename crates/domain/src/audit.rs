//! The audit log: entries chained by SHA-256.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical::{canonical_json, sha256_hex};
use crate::identity::{Principal, TenantId};
use crate::mutant;
use crate::time::Timestamp;

/// The previous hash of the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One decision or action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Time of the entry.
    #[serde(rename = "@timestamp")]
    pub at: Timestamp,
    /// The tenant.
    pub tenant: TenantId,
    /// Who acted.
    pub principal: Principal,
    /// The part of Wardroom that wrote the entry: `sentinel`, `analyst`, `resolver`, `edge`, or `operator` for what
    /// people do to the system itself.
    pub agent: String,
    /// The incident (`INC-…`), if any.
    pub incident_id: Option<String>,
    /// The action: `transition`, `approve_refused`, …
    pub action: String,
    /// Details of the decision.
    pub decision: Value,
    /// Who approved it, if an approval was needed.
    pub approved_by: Option<Principal>,
}

impl AuditEntry {
    /// Returns the entry's canonical JSON: exactly the text that is stored and hashed.
    ///
    /// # Errors
    /// Returns an error if a value cannot be represented in JSON.
    pub fn text(&self) -> Result<String, String> {
        canonical_json(self)
    }
}

/// Returns the hash of an entry: SHA-256 over the previous hash, its sequence number and its text.
pub fn chain_hash(previous: &str, sequence: i64, text: &str) -> String {
    sha256_hex(format!("{previous}\n{sequence}\n{text}").as_bytes())
}

/// The result of verifying the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainVerification {
    /// Number of entries read.
    pub entries: i64,
    /// Whether all entries are valid.
    pub ok: bool,
    /// Sequence number of the first invalid entry.
    pub first_broken: Option<i64>,
}

/// Verifies a chain of (sequence, text, hash) rows, in order.
pub fn verify(rows: impl IntoIterator<Item = (i64, String, String)>) -> ChainVerification {
    let mut chain = ChainVerifier::default();
    for (sequence, text, hash) in rows {
        if chain.push(sequence, &text, &hash).is_none() {
            break;
        }
    }
    chain.finish()
}

/// Verifies a chain entry by entry.
#[derive(Clone, Debug, Default)]
pub struct ChainVerifier {
    /// Sequence number and hash of the last valid entry.
    last: Option<(i64, String)>,
    is_broken: bool,
}

impl ChainVerifier {
    /// Verifies the next row and returns its entry, or `None` if the chain is broken at or before it.
    pub fn push(&mut self, sequence: i64, text: &str, hash: &str) -> Option<AuditEntry> {
        let previous = self.last.as_ref().map_or(GENESIS, |(_, hash)| hash.as_str());
        let entry = serde_json::from_str::<AuditEntry>(text).ok();
        let entry = entry.filter(|entry| {
            !self.is_broken
                && sequence == self.entries() + 1
                && entry.text().is_ok_and(|canonical| canonical == text)
                && (chain_hash(previous, sequence, text) == hash || mutant::is_enabled("skip-entry-hash"))
        });
        match entry {
            Some(_) => self.last = Some((sequence, hash.to_owned())),
            None => self.is_broken = true,
        }
        entry
    }

    /// Returns the number of valid entries so far.
    pub fn entries(&self) -> i64 {
        self.last.as_ref().map_or(0, |(sequence, _)| *sequence)
    }

    /// Returns the result for the rows so far.
    pub fn finish(&self) -> ChainVerification {
        let expected = self.entries() + 1;
        if self.is_broken {
            ChainVerification { entries: expected, ok: false, first_broken: Some(expected) }
        } else {
            ChainVerification { entries: self.entries(), ok: true, first_broken: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain(length: i64) -> Vec<(i64, String, String)> {
        let mut previous = GENESIS.to_owned();
        (1..=length)
            .map(|sequence| {
                let entry = AuditEntry {
                    at: Timestamp::from_millis(sequence * 1000),
                    tenant: TenantId::main(),
                    principal: Principal::wardroom(),
                    agent: "resolver".into(),
                    incident_id: Some("INC-1".into()),
                    action: "transition".into(),
                    decision: serde_json::json!({ "n": sequence }),
                    approved_by: None,
                };
                let text = entry.text().unwrap();
                previous = chain_hash(&previous, sequence, &text);
                (sequence, text, previous.clone())
            })
            .collect()
    }

    /// Text and hash are persisted: a change of either would break every existing chain.
    #[test]
    fn version_1_of_text_and_hash_is_stable() {
        let entry = AuditEntry {
            at: Timestamp::from_millis(1_795_255_200_000),
            tenant: TenantId::main(),
            principal: Principal::wardroom(),
            agent: "resolver".into(),
            incident_id: Some("INC-1".into()),
            action: "transition".into(),
            decision: serde_json::json!({ "to": "verifying", "from": "mitigating" }),
            approved_by: Some(Principal::new("alice").unwrap()),
        };
        let text = entry.text().unwrap();
        insta::assert_snapshot!(format!("{text}\n{}", chain_hash(GENESIS, 1, &text)));
    }

    /// An attacker with write access can recompute hashes; gaps and non-canonical text are detected nevertheless.
    #[test]
    fn detects_gaps_and_non_canonical_text_despite_valid_hashes() {
        let relinked = |sequence: i64, text: String| {
            let hash = chain_hash(GENESIS, sequence, &text);
            verify([(sequence, text, hash)])
        };
        let text = chain(1)[0].1.clone();
        assert!(relinked(1, text.clone()).ok);
        assert_eq!(relinked(2, text.clone()).first_broken, Some(1), "a gap");
        assert_eq!(relinked(1, format!("{text} ")).first_broken, Some(1), "not canonical");
        assert_eq!(relinked(1, "{}".to_owned()).first_broken, Some(1), "not an entry");
    }

    #[test]
    fn accepts_an_unaltered_chain() {
        assert_eq!(verify(chain(9)), ChainVerification { entries: 9, ok: true, first_broken: None });
    }

    proptest! {
        #[test]
        fn detects_any_altered_byte(row in 0_usize..9, index in 0_usize..1000, bit in 0_u8..7, in_hash: bool) {
            let mut rows = chain(9);
            let text = if in_hash { &mut rows[row].2 } else { &mut rows[row].1 };
            let mut bytes = text.clone().into_bytes();
            let index = index % bytes.len();
            bytes[index] ^= 1 << bit;
            *text = String::from_utf8_lossy(&bytes).into_owned();
            let found = verify(rows);
            prop_assert!(!found.ok);
            prop_assert_eq!(found.first_broken, Some(row as i64 + 1));
        }

        #[test]
        fn detects_deleted_and_swapped_rows(row in 0_usize..8) {
            let mut deleted = chain(9);
            deleted.remove(row);
            prop_assert!(!verify(deleted).ok);
            let mut swapped = chain(9);
            swapped.swap(row, row + 1);
            prop_assert!(!verify(swapped).ok);
        }
    }
}
