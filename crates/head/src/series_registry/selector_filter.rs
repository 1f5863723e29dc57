//! The matchers of a selector, applied to many series.

use std::collections::HashMap;

use wardroom_domain::{Labels, Matcher};

/// Values of one label whose result is remembered.
const MAX_REMEMBERED_VALUES: usize = 65_536;

/// Applies the matchers of a selector. Many series share the values of a label, so the result of a pattern is
/// remembered for each value.
#[derive(Debug)]
pub struct SelectorFilter<'a> {
    matchers: Vec<(&'a Matcher, HashMap<Box<str>, bool>)>,
}

impl<'a> SelectorFilter<'a> {
    /// Creates a filter; without matchers it accepts every series.
    pub fn new(matchers: &'a [Matcher]) -> Self {
        Self { matchers: matchers.iter().map(|matcher| (matcher, HashMap::new())).collect() }
    }

    /// Returns whether a series satisfies all matchers.
    pub fn matches(&mut self, labels: &Labels) -> bool {
        self.matchers.iter_mut().all(|(matcher, known)| {
            let value = labels.get(&matcher.name).unwrap_or_default();
            if matcher.only_value().is_some() {
                return matcher.accepts(value);
            }
            if let Some(accepted) = known.get(value) {
                return *accepted;
            }
            let accepted = matcher.accepts(value);
            if known.len() < MAX_REMEMBERED_VALUES {
                known.insert(value.into(), accepted);
            }
            accepted
        })
    }
}
