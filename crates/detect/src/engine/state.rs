//! All that an engine remembers, as bytes and back (decision D8): one that was saved and loaded goes on as if
//! nothing had been.
//!
//! The labels of the series are not in it: they stand in the registry, which numbers them.

use std::collections::BTreeMap;
use std::io::Write;

use wardroom_domain::{Deployment, EntityRules, Labels};

use super::spans::Spans;
use super::{Bucket, Counter, Engine, Role, Series, Service};
use crate::budget::Budget;
use crate::histogram::Increase;
use crate::logs::Logs;
use crate::seen::Seen;
use crate::signal::{Signal, SignalKey};
use crate::{Config, Watch};

/// By series and what is made of them.
type Parts<S, G, C, B, I, L> = (S, G, C, B, I, L);
/// By service.
type Rest<V, P, G, T, L, D> = (V, P, G, T, L, D, Seen);

type Loaded = (
    Parts<Vec<(u32, Role)>, Vec<Watch>, Vec<Counter>, Vec<Bucket>, Vec<Increase>, Vec<f64>>,
    Rest<Vec<Service>, (Vec<u32>, Budget, Budget), BTreeMap<SignalKey, Signal>, Spans, Logs, Vec<Deployment>>,
    i64,
);

impl Engine {
    /// Writes what it remembers. Between batches: what [`Engine::settle`] has not told yet is not in it.
    ///
    /// # Errors
    /// The writer's.
    pub fn save(&self, out: impl Write) -> Result<(), postcard::Error> {
        let series: Vec<(u32, Role)> = self.series.iter().map(|series| (series.service, series.role)).collect();
        let parts = (&series, &self.gauges, &self.counters, &self.buckets, &self.cpu_seconds, &self.levels);
        let budgets = (&self.dirty, &self.points, &self.shifts);
        let rest = (&self.services, budgets, &self.signals, &self.spans, &self.logs, &self.deployments, &self.seen);
        postcard::to_io(&(parts, rest, self.watermark_ms), out).map(drop)
    }

    /// Goes on from what [`Engine::save`] wrote, with the series' labels in order, and says what follows it.
    /// Configuration and rules must be those it was saved under.
    ///
    /// # Errors
    /// It is not whole, or not of these series.
    pub fn load<'a>(
        config: Config,
        rules: EntityRules,
        labels: &[Labels],
        bytes: &'a [u8],
    ) -> Result<(Self, &'a [u8]), postcard::Error> {
        let (loaded, after): (Loaded, _) = postcard::take_from_bytes(bytes)?;
        let ((series, gauges, counters, buckets, cpu_seconds, levels), rest, watermark_ms) = loaded;
        let (services, (dirty, points, shifts), signals, spans, logs, deployments, seen) = rest;
        if labels.len() < series.len() {
            return Err(postcard::Error::DeserializeBadEncoding);
        }
        let named = series.into_iter().zip(labels);
        let service_ids = services.iter().zip(0..).map(|(service, id)| (service.name.clone(), id)).collect();
        let engine = Self {
            config,
            rules,
            series: named.map(|((service, role), labels)| Series { labels: labels.clone(), service, role }).collect(),
            gauges,
            counters,
            buckets,
            cpu_seconds,
            levels,
            service_ids,
            services,
            dirty,
            unusual: Vec::new(),
            points,
            shifts,
            signals,
            spans,
            logs,
            deployments,
            seen,
            watermark_ms,
        };
        Ok((engine, after))
    }
}
