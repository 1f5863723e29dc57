//! The state of an engine: what it holds for one tenant.

use std::collections::{BTreeMap, HashMap};

use wardroom_domain::{Entity, Labels};
use wardroom_signals::{Catalog, EntityGraph, GraphLimits};

use super::batch_findings::LimitedRecords;
use super::entities::Entities;
use super::feed::Feed;
use super::series::{Counter, Series};
use super::span_state::SpanState;
use super::stalls::Stalls;
use crate::Config;
use crate::budget::Budget;
use crate::dedup::DedupCache;
use crate::events::{Events, Inferred};
use crate::logs::Logs;
use crate::points::{GroupIndex, PartHandle, PointMaker, SignalSlot};
use crate::series_detector::{SeriesDetector, ZScore};
use crate::signals::Signals;

/// What is known of the attributes of log lines: the entity, and when it was last reported to the graph.
pub(super) type LogResources = HashMap<(String, Labels), (Entity, i64)>;

/// The detection engine of one tenant.
#[derive(Debug)]
pub struct Engine {
    pub(super) config: Config,
    pub(super) catalog: Catalog,
    pub(super) graph: EntityGraph,
    pub(super) series: Vec<Series>,
    pub(super) gauges: Vec<SeriesDetector>,
    pub(super) counters: Vec<Counter>,
    /// Parts of all series, each series' in a row.
    pub(super) parts: Vec<PartHandle>,
    pub(super) entities: Entities,
    pub(super) points: PointMaker,
    /// Anomalous points of this batch.
    pub(super) unusual_points: Vec<UnusualPoint>,
    /// Newest samples of this batch of series that are watched: index of the watch, time in ms, value.
    pub(super) watched: Vec<(u32, i64, f64)>,
    pub(super) point_budget: Budget,
    pub(super) shift_budget: Budget,
    pub(super) signals: Signals,
    /// The signals that points were made for, by group and slot; found again after an eviction.
    pub(super) feeds: BTreeMap<(GroupIndex, SignalSlot), Feed>,
    /// Entities whose requests, or calls to another one, metrics count, with the newest point in ms: their spans are
    /// sampled, and no measure.
    pub(super) measured: BTreeMap<(Entity, Option<Entity>), i64>,
    pub(super) spans: SpanState,
    pub(super) logs: Logs,
    pub(super) log_resources: LogResources,
    pub(super) events: Events,
    pub(super) inferred: Inferred,
    pub(super) stalls: Stalls,
    pub(super) limited: LimitedRecords,
    pub(super) dedup: DedupCache,
    /// Telemetry's times are capped by this time of arrival, in ms.
    pub(super) cap_ms: i64,
    /// Arrival of this batch, in ms, until it has something new.
    pub(super) arrived_ms: Option<i64>,
    pub(super) watermark_ms: i64,
    /// The watermark at the end of the last batch.
    pub(super) finished_ms: i64,
}

/// Numbers of what the engine holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineSize {
    /// Series.
    pub series: usize,
    /// Signals.
    pub signals: usize,
    /// Entities of series and spans.
    pub entities: usize,
}

/// An unusual point of one series.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnusualPoint {
    pub(super) series: u32,
    pub(super) at_ms: i64,
    pub(super) value: f64,
    pub(super) score: ZScore,
}

impl Engine {
    /// Creates an empty engine.
    pub fn new(config: Config, catalog: Catalog) -> Self {
        Self {
            point_budget: Budget::new(config.points_per_second),
            shift_budget: Budget::new(config.shifts_per_second),
            points: PointMaker::new(&config),
            config,
            graph: EntityGraph::new(GraphLimits::default(), &catalog.entity_rules().aliases),
            catalog,
            series: Vec::new(),
            gauges: Vec::new(),
            counters: Vec::new(),
            parts: Vec::new(),
            entities: Entities::default(),
            unusual_points: Vec::new(),
            watched: Vec::new(),
            signals: Signals::default(),
            feeds: BTreeMap::new(),
            measured: BTreeMap::new(),
            spans: SpanState::default(),
            logs: Logs::default(),
            log_resources: LogResources::default(),
            events: Events::default(),
            inferred: Inferred::default(),
            stalls: Stalls::default(),
            limited: LimitedRecords::default(),
            dedup: DedupCache::default(),
            cap_ms: i64::MAX,
            arrived_ms: None,
            watermark_ms: i64::MIN,
            finished_ms: i64::MIN,
        }
    }
}
