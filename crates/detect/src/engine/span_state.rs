//! State of span durations and native histograms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::durations::Durations;
use crate::traces::{Call, Traces};

/// Service, callee (`None` for requests the service handles), and whether the requests failed.
pub(super) type FamilyKey = (u32, Option<String>, bool);

/// Span and native histogram state of one tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SpanState {
    pub(super) traces: Traces,
    /// Reused buffer for the calls that a span completes.
    pub(super) calls: Vec<Call>,
    pub(super) families: BTreeMap<FamilyKey, SpanFamily>,
    /// Families with new durations in this batch.
    pub(super) updated: Vec<FamilyKey>,
    /// Series id of a native histogram → its buckets.
    pub(super) natives: BTreeMap<u32, Vec<u32>>,
}

/// Span durations and the buckets they are written to.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SpanFamily {
    pub(super) durations: Durations,
    pub(super) buckets: Vec<u32>,
    pub(super) dirty: bool,
}

impl SpanState {
    /// Maps services to their new ids; what belongs to an evicted service is dropped.
    pub(super) fn renumber_services(&mut self, new_id: impl Fn(u32) -> Option<u32>) {
        let families = std::mem::take(&mut self.families).into_iter();
        self.families = families
            .filter_map(|((service, peer, failed), family)| Some(((new_id(service)?, peer, failed), family)))
            .collect();
        let updated = std::mem::take(&mut self.updated).into_iter();
        self.updated = updated.filter_map(|(service, peer, failed)| Some((new_id(service)?, peer, failed))).collect();
        self.traces.renumber_services(new_id);
    }

    /// Maps series and bucket ids to their new values.
    pub(super) fn renumber(&mut self, series: &[Option<u32>], buckets: &[Option<u32>]) {
        let renumbered = |bucket_ids: &[u32]| {
            bucket_ids.iter().filter_map(|index| buckets.get(*index as usize).copied().flatten()).collect()
        };
        let natives = std::mem::take(&mut self.natives).into_iter();
        let new_series_id = |id: u32| series.get(id as usize).copied().flatten();
        self.natives =
            natives.filter_map(|(id, bucket_ids)| Some((new_series_id(id)?, renumbered(&bucket_ids)))).collect();
        self.families.values_mut().for_each(|family| family.buckets = renumbered(&family.buckets));
    }
}
