//! What the lake calls the series of a tenant.
//!
//! Head numbers its series anew when many have left, so the tables carry numbers of their own: dense, never used again.
//! After a crash the lake may know series that no checkpoint does; what it knows goes before.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Labels, SeriesId};

/// What the lake calls the series of a tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Numbers {
    /// By id; 0 for a series that the lake has not seen.
    ids: Vec<i64>,
    /// The highest in use.
    highest: i64,
    /// Series that the lake knows and no checkpoint does.
    #[serde(skip)]
    written: HashMap<Labels, i64>,
}

impl Numbers {
    /// Keeps these of the series, in their order.
    pub fn renumber(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.ids.retain(|_| keep.next().copied().unwrap_or_default());
    }

    /// Takes what the lake knows.
    pub fn learn(&mut self, written: HashMap<Labels, i64>, highest: i64) {
        self.highest = self.highest.max(highest);
        self.written = written;
    }

    /// The number of a series, and whether the lake has yet to hear of it.
    pub fn of(&mut self, id: SeriesId, labels: &Labels) -> (i64, bool) {
        if self.ids.len() <= id.index() {
            self.ids.resize(id.index() + 1, 0);
        }
        let slot = &mut self.ids[id.index()];
        if *slot != 0 {
            return (*slot, false);
        }
        if let Some(known) = self.written.remove(labels) {
            *slot = known;
            return (known, false);
        }
        self.highest += 1;
        *slot = self.highest;
        (self.highest, true)
    }

    /// The number of a series that was asked for before.
    pub fn get(&self, id: SeriesId) -> i64 {
        self.ids.get(id.index()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outlive_ids_and_what_the_lake_knows_goes_before() {
        let named = |name: &str| Labels::of(&[("__name__", name)]);
        let mut numbers = Numbers::default();
        assert_eq!(numbers.of(SeriesId(2), &named("c")), (1, true));
        assert_eq!(numbers.of(SeriesId(0), &named("a")), (2, true));
        assert_eq!(numbers.of(SeriesId(2), &named("c")), (1, false));
        numbers.renumber(&[true, false, true]);
        assert_eq!(numbers.of(SeriesId(1), &named("c")), (1, false), "the same under another id");
        let mut after: Numbers = serde_json::from_str(&serde_json::to_string(&numbers).unwrap()).unwrap();
        after.learn(HashMap::from([(named("d"), 3)]), 3);
        assert_eq!(after.of(SeriesId(2), &named("d")), (3, false), "written before the crash");
        assert_eq!(after.of(SeriesId(3), &named("e")), (4, true));
    }
}
