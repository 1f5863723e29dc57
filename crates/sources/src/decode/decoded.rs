//! The records of a decoded request.

use std::collections::BTreeSet;

use wardroom_domain::{Batch, Deployment, LogEntry, MetricMetadata, Refusal, RequestFingerprint, Span, Timestamp};

use crate::decode::refusals::merged_ranges;
use crate::decode::wire_metrics::WireMetrics;

/// Maximum number of ignored fields that are reported.
pub(crate) const MAX_IGNORED_FIELDS: usize = 10;
/// Maximum length of the reported name of a field, in characters.
const MAX_FIELD_CHARS: usize = 64;

/// The records of a decoded request, their positions, and the records that could not be decoded.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Series with their samples.
    pub metrics: WireMetrics,
    /// Metric metadata.
    pub metadata: Vec<MetricMetadata>,
    /// Log records.
    pub logs: Vec<LogEntry>,
    /// Deployments.
    pub deployments: Vec<Deployment>,
    /// Spans.
    pub spans: Vec<Span>,
    /// For each record in order (samples, native histograms, log lines, deployments, spans), its position in the
    /// request; empty if no record of the request is missing here.
    pub positions: Vec<u32>,
    /// Refused records.
    pub refused: Vec<Refusal>,
    /// Names of fields that were ignored because the format does not have them, at most ten.
    pub ignored_fields: BTreeSet<String>,
    /// The request is a redrive or a rebuild: it holds records that were refused or not written the first time.
    pub is_rebuild: bool,
}

impl Decoded {
    /// Returns the number of records (samples, native histograms, log lines, deployments, spans).
    pub fn len(&self) -> usize {
        let metrics = self.metrics.samples().len() + self.metrics.histograms().len();
        metrics + self.logs.len() + self.deployments.len() + self.spans.len()
    }

    /// Returns whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether there are records other than samples, which are written to event tables.
    pub fn has_events(&self) -> bool {
        let series = !(self.metrics.histograms().is_empty() && self.metrics.exemplars().is_empty());
        series || !(self.logs.is_empty() && self.spans.is_empty() && self.deployments.is_empty())
    }

    /// Notes that a field of the request was ignored.
    pub(crate) fn ignored_field(&mut self, name: &impl std::fmt::Display) {
        if self.ignored_fields.len() < MAX_IGNORED_FIELDS {
            self.ignored_fields.insert(name.to_string().chars().take(MAX_FIELD_CHARS).collect());
        }
    }

    /// Returns the position in the request of the record at this index.
    pub(crate) fn position(&self, index: usize) -> u32 {
        self.positions.get(index).copied().unwrap_or(index as u32)
    }

    /// Removes the records at the refused positions.
    pub(crate) fn remove_refused(&mut self, refused: &[Refusal]) {
        if refused.is_empty() {
            return;
        }
        // Binary search, because every second record may be refused.
        let ranges = merged_ranges(refused);
        let is_refused = |position: u32| {
            let before = ranges.partition_point(|(first, _)| *first <= position);
            before.checked_sub(1).is_some_and(|range| position <= ranges[range].1)
        };
        let kept: Vec<u32> =
            (0..self.len()).map(|index| self.position(index)).filter(|position| !is_refused(*position)).collect();
        let mut next = 0;
        let positions = std::mem::take(&mut self.positions);
        let mut keep = || {
            let position = positions.get(next).copied().unwrap_or(next as u32);
            next += 1;
            !is_refused(position)
        };
        self.metrics.retain(&mut keep);
        self.logs.retain(|_| keep());
        self.deployments.retain(|_| keep());
        self.spans.retain(|_| keep());
        self.positions = kept;
    }

    /// Returns the fingerprint that identifies a repeated request.
    pub(crate) fn fingerprint(&self, body: &[u8]) -> u64 {
        // A redrive has the same body as the original, but holds other records.
        xxhash_rust::xxh3::xxh3_64_with_seed(body, u64::from(self.is_rebuild))
    }

    /// Returns the records with their series under the ids set by [`WireMetrics::set_series_ids`]. The body and the
    /// time of arrival identify a repeated request.
    pub fn into_batch(self, body: &[u8], received_at: Timestamp) -> Batch {
        // Repeated samples are detected by series and time. Records stamped on arrival are different in each request.
        let deduplicated = !(self.logs.is_empty() && self.spans.is_empty() && self.deployments.is_empty());
        let times = self.logs.iter().map(|log| log.at).chain(self.deployments.iter().map(|change| change.at));
        let request_fingerprint = (deduplicated && !times.into_iter().any(|at| at == received_at))
            .then(|| RequestFingerprint { hash: self.fingerprint(body), received_at });
        Batch {
            request_fingerprint,
            metrics: self.metrics.into_resolved(),
            metadata: self.metadata,
            logs: self.logs,
            deployments: self.deployments,
            spans: self.spans,
            is_rebuild: self.is_rebuild,
            received_at: Some(received_at),
        }
    }
}
