//! Saves and loads the state of an engine (ADR 008). A loaded engine continues exactly like the saved one.
//!
//! The labels of the series are not part of the state: they are stored in the registry that assigns series ids.

use std::collections::BTreeMap;
use std::io::Write;

use wardroom_domain::{EntityRules, Labels};

use super::span_state::SpanState;
use super::{Bucket, Counter, Engine, LimitedRecords, Series, SeriesRole, Service};
use crate::budget::Budget;
use crate::dedup::DedupCache;
use crate::deployments::Deployments;
use crate::histogram::Increase;
use crate::logs::Logs;
use crate::signal::{Signal, SignalKey};
use crate::{Config, SeriesDetector};

/// State by series.
type SeriesParts<S, G, C, B, I, L> = (S, G, C, B, I, L);
/// State by service and tenant.
type TenantParts<V, P, G, T, L, D> = (V, P, G, T, L, D, DedupCache);

type LoadedState = (
    SeriesParts<Vec<(u32, SeriesRole)>, Vec<SeriesDetector>, Vec<Counter>, Vec<Bucket>, Vec<Increase>, Vec<f64>>,
    TenantParts<Vec<Service>, (Vec<u32>, Budget, Budget), BTreeMap<SignalKey, Signal>, SpanState, Logs, Deployments>,
    i64,
);

impl Engine {
    /// Writes the state. Call between batches: pending results of [`Engine::finish_batch`] are not included.
    ///
    /// # Errors
    /// Returns an error if the writer fails.
    pub fn save(&self, out: impl Write) -> Result<(), postcard::Error> {
        let series: Vec<(u32, SeriesRole)> = self.series.iter().map(|series| (series.service, series.role)).collect();
        let parts = (&series, &self.gauges, &self.counters, &self.buckets, &self.cpu_seconds, &self.levels);
        let budgets = (&self.dirty, &self.points, &self.shifts);
        let rest = (&self.services, budgets, &self.signals, &self.spans, &self.logs, &self.deployments, &self.dedup);
        postcard::to_io(&(parts, rest, self.watermark_ms), out).map(drop)
    }

    /// Loads the output of [`Engine::save`], given the labels of the series in id order. Also returns the bytes that
    /// follow it. Configuration and rules must be those it was saved with.
    ///
    /// # Errors
    /// Returns an error if the bytes are truncated or corrupt, or belong to more series than `labels`.
    pub fn load<'a>(
        config: Config,
        rules: EntityRules,
        labels: &[Labels],
        bytes: &'a [u8],
    ) -> Result<(Self, &'a [u8]), postcard::Error> {
        let (loaded, after): (LoadedState, _) = postcard::take_from_bytes(bytes)?;
        let ((series, gauges, counters, buckets, cpu_seconds, levels), rest, watermark_ms) = loaded;
        let (services, (dirty, points, shifts), signals, spans, logs, deployments, dedup) = rest;
        if labels.len() < series.len() {
            return Err(postcard::Error::DeserializeBadEncoding);
        }
        let labelled = series.into_iter().zip(labels);
        let service_ids = services.iter().zip(0..).map(|(service, id)| (service.name.clone(), id)).collect();
        let engine = Self {
            config,
            rules,
            series: labelled
                .map(|((service, role), labels)| Series { labels: labels.clone(), service, role })
                .collect(),
            gauges,
            counters,
            buckets,
            cpu_seconds,
            levels,
            service_ids,
            services,
            dirty,
            unusual_points: Vec::new(),
            points,
            shifts,
            signals: signals.into(),
            spans,
            logs,
            deployments,
            limited: LimitedRecords::default(),
            dedup,
            watermark_ms,
            finished_ms: watermark_ms,
        };
        Ok((engine, after))
    }
}
