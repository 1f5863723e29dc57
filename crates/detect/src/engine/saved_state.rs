//! Saves and loads the state of an engine (ADR 008). A loaded engine continues exactly like the saved one.
//!
//! The labels of the series are not part of the state: they are stored in the registry that assigns series ids.

use std::collections::BTreeMap;
use std::io::Write;

use wardroom_domain::{Entity, Labels, SignalId};
use wardroom_signals::{Catalog, EntityGraph, GraphLimits, GraphState};

use super::batch_findings::LimitedRecords;
use super::entities::{Entities, KnownEntity};
use super::series::{Counter, Series, SeriesRole, Usage};
use super::span_state::SpanState;
use super::stalls::Stalls;
use super::state::{Engine, LogResources};
use crate::budget::Budget;
use crate::dedup::DedupCache;
use crate::evaluation::Signal;
use crate::events::{Events, Inferred};
use crate::logs::Logs;
use crate::points::{PartHandle, PointMaker};
use crate::{Config, SeriesDetector};

/// State by series.
type SeriesParts = (Vec<Usage>, Vec<SeriesDetector>, Vec<Counter>, Vec<PartHandle>, Inferred);
/// State of signals.
type SignalParts = (PointMaker, BTreeMap<SignalId, Signal>, BTreeMap<(Entity, Option<Entity>), i64>, Budget, Budget);
/// State by entity and tenant.
type TenantParts = (Vec<KnownEntity>, GraphState, SpanState, Logs, Events, Stalls, DedupCache);

impl Engine {
    /// Writes the state. Call between batches: pending results of [`Engine::finish_batch`] are not included.
    ///
    /// # Errors
    /// Returns an error if the writer fails.
    pub fn save(&self, out: impl Write) -> Result<(), postcard::Error> {
        let usages: Vec<Usage> = self.series.iter().map(|series| series.usage).collect();
        let series = (&usages, &self.gauges, &self.counters, &self.parts, &self.inferred);
        let signals = (&self.points, &self.signals, &self.measured, &self.point_budget, &self.shift_budget);
        let tenant = (
            self.entities.list(),
            self.graph.state(),
            &self.spans,
            &self.logs,
            &self.events,
            &self.stalls,
            &self.dedup,
        );
        postcard::to_io(&(series, signals, tenant, self.watermark_ms), out).map(drop)
    }

    /// Loads the output of [`Engine::save`], given the labels of the series in id order. Also returns the bytes that
    /// follow it. Configuration and catalog must be those it was saved with.
    ///
    /// # Errors
    /// Returns an error if the bytes are truncated or corrupt, or belong to more series than `labels`.
    pub fn load<'a>(
        config: Config,
        catalog: Catalog,
        labels: &[Labels],
        bytes: &'a [u8],
    ) -> Result<(Self, &'a [u8]), postcard::Error> {
        let (loaded, after): ((SeriesParts, SignalParts, TenantParts, i64), _) = postcard::take_from_bytes(bytes)?;
        let ((usages, gauges, counters, parts, inferred), signals, tenant, watermark_ms) = loaded;
        let (mut points, signals, measured, point_budget, shift_budget) = signals;
        let (entities, graph, spans, logs, events, stalls, dedup) = tenant;
        let known = [entities.len(), parts.len(), gauges.len(), counters.len()];
        if labels.len() < usages.len() || !usages.iter().all(|usage| usage.is_within(&known)) {
            return Err(postcard::Error::DeserializeBadEncoding);
        }
        points.restore(&config);
        let labelled = usages.into_iter().zip(labels);
        let engine = Self {
            series: labelled.map(|(usage, labels)| Series { labels: labels.clone(), usage }).collect(),
            points,
            config,
            graph: EntityGraph::from_state(GraphLimits::default(), &catalog.entity_rules().aliases, &graph),
            catalog,
            gauges,
            counters,
            parts,
            entities: Entities::from_list(entities),
            unusual_points: Vec::new(),
            watched: Vec::new(),
            point_budget,
            shift_budget,
            signals: signals.into(),
            feeds: BTreeMap::new(),
            measured,
            spans,
            logs,
            log_resources: LogResources::default(),
            events,
            inferred,
            stalls,
            limited: LimitedRecords::default(),
            dedup,
            cap_ms: i64::MAX,
            arrived_ms: None,
            watermark_ms,
            finished_ms: watermark_ms,
        };
        Ok((engine, after))
    }
}

impl Usage {
    /// Returns whether its numbers are those of something that exists: entities, parts, gauges and counters.
    const fn is_within(&self, [entities, parts, gauges, counters]: &[usize; 4]) -> bool {
        let has_detector = match self.role {
            SeriesRole::Gauge(index) => (index as usize) < *gauges,
            SeriesRole::Counter(index) => (index as usize) < *counters,
            SeriesRole::None => true,
        };
        let end = self.first_part as usize + self.parts as usize;
        has_detector && (self.entity as usize) < *entities && end <= *parts
    }
}
