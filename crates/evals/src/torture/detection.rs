//! Bars of the detection pipeline.

pub(super) mod poison_record;
pub(super) mod stalled_detector;
