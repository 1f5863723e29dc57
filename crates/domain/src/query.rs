//! How recent or stored samples are asked for (decision D4).

use crate::labels::Matcher;
use crate::time::Timestamp;

/// One question about samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesQuery {
    /// All must hold.
    pub matchers: Vec<Matcher>,
    /// From this moment on.
    pub start: Timestamp,
    /// Up to and including this moment.
    pub end: Timestamp,
}
