//! Points of signals, and what the series and signals that they are of are called by.

use serde::{Deserialize, Serialize};

use crate::point::Point;

/// One series in one signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PartHandle(pub(super) u32);

/// A source of requests that arrive one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StreamHandle(pub(super) u32);

/// A group of series; valid until the next removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GroupIndex(pub(super) u32);

/// Which signal of its group a point belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum SignalSlot {
    /// Requests per second.
    Traffic,
    /// Share of requests that fail.
    Errors,
    /// Failures per second, where nothing counts all requests.
    Failures,
    /// 99th percentile of the durations; the mean or the sender's quantile where there are no buckets.
    Latency,
    /// Median of the durations: needs fewer requests, and one slow request does not change it.
    Median,
    /// The value, in its unit.
    Value,
    /// The value as a share of its limit.
    Share,
}

/// A point of a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SignalPoint {
    pub(crate) group: GroupIndex,
    pub(crate) slot: SignalSlot,
    pub(crate) point: Point,
}
