//! What is kept of spans and native histograms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::points::{PartHandle, StreamHandle};
use crate::traces::{Call, Traces};

/// The metric family of span durations.
pub(super) const SPANS: &str = "spans";

/// Entity, and the called one for calls.
pub(super) type FamilyKey = (u32, Option<u32>);

/// Span and native histogram state of one tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct SpanState {
    pub(super) traces: Traces,
    /// Reused buffer for the calls that a span completes.
    #[serde(skip)]
    pub(super) calls: Vec<Call>,
    pub(super) families: BTreeMap<FamilyKey, SpanFamily>,
    /// What is known of the senders, by the number of the entity.
    pub(super) senders: BTreeMap<u32, Sender>,
    /// Series id of a native histogram → its parts and its unit in seconds.
    pub(super) natives: BTreeMap<u32, (Vec<PartHandle>, f64)>,
}

/// The sender of spans.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Sender {
    pub(super) version: String,
    pub(super) observed_ms: i64,
}

/// The requests of one service, or its calls to another, as spans show them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SpanFamily {
    pub(super) stream: StreamHandle,
    pub(super) newest_ms: i64,
    /// When its relation was reported to the graph.
    pub(super) related_ms: i64,
}

impl SpanState {
    /// Removes families without a span since a time; returns their streams.
    pub(super) fn evict_before(&mut self, oldest_ms: i64) -> Vec<StreamHandle> {
        let mut removed = Vec::new();
        self.families.retain(|_, family| {
            let is_kept = family.newest_ms >= oldest_ms;
            if !is_kept {
                removed.push(family.stream);
            }
            is_kept
        });
        removed
    }

    /// Maps entities to their new numbers; what belongs to an evicted one is dropped.
    pub(super) fn renumber_entities(&mut self, new_id: impl Fn(u32) -> Option<u32>) {
        let families = std::mem::take(&mut self.families).into_iter();
        let renumbered = families.filter_map(|((entity, peer), family)| {
            let peer = match peer {
                Some(peer) => Some(new_id(peer)?),
                None => None,
            };
            Some(((new_id(entity)?, peer), family))
        });
        self.families = renumbered.collect();
        let senders = std::mem::take(&mut self.senders).into_iter();
        self.senders = senders.filter_map(|(entity, sender)| Some((new_id(entity)?, sender))).collect();
        self.traces.renumber_services(new_id);
    }

    /// Maps series to their new ids; returns the parts of evicted ones.
    pub(super) fn renumber_series(&mut self, new_id: impl Fn(u32) -> Option<u32>) -> Vec<PartHandle> {
        let mut removed = Vec::new();
        let natives = std::mem::take(&mut self.natives).into_iter();
        self.natives = natives
            .filter_map(|(id, (parts, unit))| match new_id(id) {
                Some(id) => Some((id, (parts, unit))),
                None => {
                    removed.extend(parts);
                    None
                }
            })
            .collect();
        removed
    }

    /// Returns whether an entity is one of a span family.
    pub(super) fn entities(&self) -> impl Iterator<Item = u32> {
        self.families.keys().flat_map(|(entity, peer)| std::iter::once(*entity).chain(*peer))
    }
}
