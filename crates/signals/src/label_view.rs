//! The labels of one series, decoded once.

use wardroom_domain::{LabelLookup, Labels};

/// Decoded labels, sorted by name.
#[derive(Debug)]
pub(crate) struct LabelView<'a> {
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> LabelView<'a> {
    pub(crate) fn new(labels: &'a Labels) -> Self {
        let mut pairs = Vec::with_capacity(24);
        pairs.extend(labels.iter());
        Self { pairs }
    }

    /// Returns the value of a label.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.pairs.iter().find_map(|(known, value)| (*known == name).then_some(*value))
    }

    /// Returns the first label that is present, with its name.
    pub(crate) fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &'a str)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    /// Returns the value of the first label that is present.
    pub(crate) fn value(&self, names: &[&str]) -> Option<&'a str> {
        self.first(names).map(|(_, value)| value)
    }
}

impl<'a> LabelLookup<'a> for &LabelView<'a> {
    fn label(self, name: &str) -> Option<&'a str> {
        self.get(name)
    }
}
