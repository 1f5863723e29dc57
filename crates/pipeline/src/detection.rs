//! Detection: reads every batch in bus order, evaluates it, and reports anomalies and incident decisions.

pub mod bus_records;
pub mod detector_loop;
pub mod detector_output;
pub mod evaluate;
