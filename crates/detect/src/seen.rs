//! Requests of logs and spans that came before: senders repeat what they got no answer for, and a line counted
//! twice is an error burst that never was.
//!
//! Problem: a log line has no name that tells it from its twin, so what is recognised is the whole request, by the
//! hash of its body. Guarantee: a request repeated within a day of its first arrival has no second effect, as
//! long as a tenant sends no more than [`ROOM`] such requests a day; beyond that the memory reaches less far back.
//! Two generations are kept, so that forgetting drops one whole. Time is that of arrival, which the bus keeps, so
//! a replay forgets the same.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// How long at least, in ms.
const WINDOW_MS: i64 = 24 * 3600 * 1000;
/// Requests of one generation.
pub(crate) const ROOM: usize = 500_000;

/// The requests of one tenant's last day.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    young: BTreeSet<u64>,
    old: BTreeSet<u64>,
    /// When the young generation began, in ms.
    since_ms: i64,
}

impl Seen {
    /// Whether a request was here before.
    pub fn knows(&self, fingerprint: u64, received_ms: i64) -> bool {
        let outdated = received_ms - self.since_ms >= 2 * WINDOW_MS;
        !outdated && (self.young.contains(&fingerprint) || self.old.contains(&fingerprint))
    }

    /// Remembers a request.
    pub fn note(&mut self, fingerprint: u64, received_ms: i64) {
        if received_ms - self.since_ms >= WINDOW_MS || self.young.len() >= ROOM {
            let gone = received_ms - self.since_ms >= 2 * WINDOW_MS;
            self.old = if gone { BTreeSet::new() } else { std::mem::take(&mut self.young) };
            self.young.clear();
            self.since_ms = received_ms;
        }
        self.young.insert(fingerprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    /// Whether it was not here before; it was from now on.
    fn first(seen: &mut Seen, fingerprint: u64, received_ms: i64) -> bool {
        let known = seen.knows(fingerprint, received_ms);
        seen.note(fingerprint, received_ms);
        !known
    }

    #[test]
    fn a_repetition_is_known_for_a_day_at_least_and_two_at_most() {
        let start = 1_795_255_038_178;
        for at in [0, 1000, 3 * 60_000, 3 * HOUR_MS, 23 * HOUR_MS] {
            let mut seen = Seen::default();
            (0..100).for_each(|other| assert!(first(&mut seen, other, start - HOUR_MS)));
            assert!(first(&mut seen, 1 << 40, start));
            assert!(!first(&mut seen, 1 << 40, start + at), "{at} ms later");
            assert!(first(&mut seen, 1 << 40, start + at + 48 * HOUR_MS));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Seen::default();
        (0..3 * ROOM as u64).for_each(|other| assert!(first(&mut seen, other, 0)));
        assert!(seen.young.len() + seen.old.len() <= 2 * ROOM);
        assert!(!first(&mut seen, 3 * ROOM as u64 - 1, 0));
    }
}
