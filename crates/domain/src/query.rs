//! How recent or stored samples are asked for (decision D4).

use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::time::Timestamp;

/// One question about samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesQuery {
    /// A series is selected if all matchers of one selector hold; without a selector, every series is.
    pub selectors: Vec<Vec<Matcher>>,
    /// From this moment on.
    pub start: Timestamp,
    /// Up to and including this moment.
    pub end: Timestamp,
}

impl SeriesQuery {
    /// Whether a label set is asked for.
    pub fn selects(&self, labels: &Labels) -> bool {
        let all = |selector: &Vec<Matcher>| selector.iter().all(|matcher| matcher.matches(labels));
        self.selectors.is_empty() || self.selectors.iter().any(all)
    }
}
