//! Load generators that record what was acknowledged, and comparisons with what is read back.

pub(crate) mod event_load;
pub(crate) mod lake_contents;
pub(crate) mod sample_load;
