//! Ids of a tenant's series in the lake.
//!
//! The head renumbers its series after evictions, so the tables have ids of their own: dense and never reused. After a
//! crash the tables may hold series that no checkpoint has; their ids take precedence.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Labels, SeriesId};

/// Ids of a tenant's series in the lake.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SeriesIds {
    /// Lake ids by head id; 0 if the series is not in the lake.
    ids: Vec<i64>,
    /// Highest id in use.
    highest: i64,
    /// Series that the tables have and no checkpoint does.
    #[serde(skip)]
    written: HashMap<Labels, i64>,
}

impl SeriesIds {
    /// Keeps the ids of these series, in their order, after head renumbered its series.
    pub fn retain(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.ids.retain(|_| keep.next().copied().unwrap_or_default());
    }

    /// Adds the series that the tables have.
    pub fn load_known(&mut self, written: HashMap<Labels, i64>, highest: i64) {
        self.highest = self.highest.max(highest);
        self.written = written;
    }

    /// Returns the id of a series, and whether the series is new to the tables.
    pub fn assign(&mut self, id: SeriesId, labels: &Labels) -> (i64, bool) {
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

    /// Returns the id of a series that [`assign`](Self::assign) was called for.
    pub fn get(&self, id: SeriesId) -> i64 {
        self.ids.get(id.index()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_ids_across_renumbering_and_prefers_ids_of_the_tables() {
        let labels_named = |name: &str| Labels::of(&[("__name__", name)]);
        let mut lake_ids = SeriesIds::default();
        assert_eq!(lake_ids.assign(SeriesId(2), &labels_named("c")), (1, true));
        assert_eq!(lake_ids.assign(SeriesId(0), &labels_named("a")), (2, true));
        assert_eq!(lake_ids.assign(SeriesId(2), &labels_named("c")), (1, false));
        lake_ids.retain(&[true, false, true]);
        assert_eq!(lake_ids.assign(SeriesId(1), &labels_named("c")), (1, false), "same lake id after renumbering");
        let mut after: SeriesIds = serde_json::from_str(&serde_json::to_string(&lake_ids).unwrap()).unwrap();
        after.load_known(HashMap::from([(labels_named("d"), 3)]), 3);
        assert_eq!(after.assign(SeriesId(2), &labels_named("d")), (3, false), "written before the crash");
        assert_eq!(after.assign(SeriesId(3), &labels_named("e")), (4, true));
    }
}
