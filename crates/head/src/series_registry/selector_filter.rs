//! The matchers of a selector, applied to many series.

use hashbrown::HashMap;
use wardroom_domain::{Labels, Matcher};

/// Values of one label whose result is remembered.
const MAX_REMEMBERED_VALUES: usize = 65_536;

/// Applies the matchers of a selector, those without a pattern first. Many series share the values of a label, so the
/// result of a pattern is remembered for each value.
#[derive(Debug)]
pub struct SelectorFilter<'a> {
    exact: Vec<&'a Matcher>,
    patterns: Vec<(&'a Matcher, HashMap<Box<str>, bool>)>,
}

impl<'a> SelectorFilter<'a> {
    /// Creates a filter; without matchers it accepts every series.
    pub fn new(matchers: &'a [Matcher]) -> Self {
        let (patterns, exact): (Vec<_>, Vec<_>) = matchers.iter().partition(|matcher| matcher.is_pattern());
        Self { exact, patterns: patterns.into_iter().map(|matcher| (matcher, HashMap::new())).collect() }
    }

    /// Returns whether a series satisfies all matchers.
    pub fn matches(&mut self, labels: &Labels) -> bool {
        let meets = |(matcher, known): &mut (&Matcher, HashMap<Box<str>, bool>)| {
            let value = labels.get(&matcher.name).unwrap_or_default();
            if let Some(accepted) = known.get(value) {
                return *accepted;
            }
            let accepted = matcher.accepts(value);
            if known.len() < MAX_REMEMBERED_VALUES {
                known.insert(value.into(), accepted);
            }
            accepted
        };
        self.exact.iter().all(|matcher| matcher.matches(labels)) && self.patterns.iter_mut().all(meets)
    }
}
