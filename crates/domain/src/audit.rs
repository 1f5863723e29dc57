//! The audit book: entries chained by SHA-256, in seed 004's fields.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical::{canonical_json, sha256_hex};
use crate::identity::{Principal, TenantId};
use crate::time::Timestamp;

/// The hash that the first entry links to.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One thing that was decided or done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// When.
    #[serde(rename = "@timestamp")]
    pub at: Timestamp,
    /// Whose.
    pub tenant: TenantId,
    /// Who did it.
    pub principal: Principal,
    /// Which part of Wardroom wrote it: seed 004's `agent` (`sentinel`, `analyst`, `resolver`, `edge`).
    pub agent: String,
    /// `INC-…`, if it belongs to one.
    pub incident_id: Option<String>,
    /// What: `transition`, `approve_refused`, …
    pub action: String,
    /// The details.
    pub decision: Value,
    /// Whose approval it rests on, if any.
    pub approved_by: Option<Principal>,
}

impl AuditEntry {
    /// The entry's canonical text: exactly what is stored and hashed.
    ///
    /// # Errors
    /// Only for values JSON cannot hold.
    pub fn text(&self) -> Result<String, String> {
        canonical_json(self)
    }
}

/// The hash of an entry: SHA-256 over the previous hash, its sequence number and its text.
pub fn link(previous: &str, sequence: i64, text: &str) -> String {
    sha256_hex(format!("{previous}\n{sequence}\n{text}").as_bytes())
}

/// What a check of the chain found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Entries read.
    pub entries: i64,
    /// Whether all of them hold.
    pub ok: bool,
    /// The sequence number of the first that does not.
    pub first_broken: Option<i64>,
}

/// Recomputes a chain of (sequence, text, hash) rows, in order.
pub fn verify(rows: impl IntoIterator<Item = (i64, String, String)>) -> Verdict {
    let mut previous = GENESIS.to_owned();
    let mut entries = 0;
    for (sequence, text, hash) in rows {
        let expected = entries + 1;
        let canonical = serde_json::from_str::<AuditEntry>(&text).ok().and_then(|entry| entry.text().ok());
        if sequence != expected
            || canonical.as_deref() != Some(text.as_str())
            || link(&previous, sequence, &text) != hash
        {
            return Verdict { entries: expected, ok: false, first_broken: Some(expected) };
        }
        previous = hash;
        entries = expected;
    }
    Verdict { entries, ok: true, first_broken: None }
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
                previous = link(&previous, sequence, &text);
                (sequence, text, previous.clone())
            })
            .collect()
    }

    /// What is hashed is persisted: another text or hash for the same entry would break every chain there is.
    #[test]
    fn version_1_of_text_and_hash_stays() {
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
        insta::assert_snapshot!(format!("{text}\n{}", link(GENESIS, 1, &text)));
    }

    /// Whoever can write the book can compute hashes, too: a gap and a text in another form are found all the same.
    #[test]
    fn a_rewritten_chain_must_still_count_and_be_canonical() {
        let relinked = |sequence: i64, text: String| {
            let hash = link(GENESIS, sequence, &text);
            verify([(sequence, text, hash)])
        };
        let text = chain(1)[0].1.clone();
        assert!(relinked(1, text.clone()).ok);
        assert_eq!(relinked(2, text.clone()).first_broken, Some(1), "a gap");
        assert_eq!(relinked(1, format!("{text} ")).first_broken, Some(1), "another form");
        assert_eq!(relinked(1, "{}".to_owned()).first_broken, Some(1), "no entry");
    }

    #[test]
    fn an_untouched_chain_holds() {
        assert_eq!(verify(chain(9)), Verdict { entries: 9, ok: true, first_broken: None });
    }

    proptest! {
        #[test]
        fn any_altered_byte_is_found(row in 0_usize..9, at in 0_usize..1000, bit in 0_u8..7, in_hash: bool) {
            let mut rows = chain(9);
            let text = if in_hash { &mut rows[row].2 } else { &mut rows[row].1 };
            let mut bytes = text.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            *text = String::from_utf8_lossy(&bytes).into_owned();
            let verdict = verify(rows);
            prop_assert!(!verdict.ok);
            prop_assert_eq!(verdict.first_broken, Some(row as i64 + 1));
        }

        #[test]
        fn a_deleted_or_swapped_row_is_found(row in 0_usize..8) {
            let mut deleted = chain(9);
            deleted.remove(row);
            prop_assert!(!verify(deleted).ok);
            let mut swapped = chain(9);
            swapped.swap(row, row + 1);
            prop_assert!(!verify(swapped).ok);
        }
    }
}
