//! The records of a request that are written to the event tables: everything except samples, which are flushed from the
//! head.

use wardroom_domain::{Batch, Exemplar, Labels, NativeHistogram, Timestamp};

use crate::config::Config;
use crate::decode::decoded::Decoded;
use crate::intake::limits::remove_refused_exemplars;

/// The records of a request for the event tables.
#[derive(Debug)]
pub struct RequestEvents {
    /// Identifies a repeated request, if a repetition would add rows twice.
    pub fingerprint: Option<u64>,
    /// Native histograms with the labels of their series.
    pub histograms: Vec<(Labels, NativeHistogram)>,
    /// Exemplars with the labels of their series.
    pub exemplars: Vec<(Labels, Exemplar)>,
    /// Log lines, spans and deployments.
    pub batch: Batch,
}

impl Decoded {
    /// Returns the events of a replayed request. The body gives the fingerprint.
    pub fn into_events(mut self, body: &[u8], config: &Config, received_at: Timestamp) -> RequestEvents {
        remove_refused_exemplars(&mut self.metrics, config, received_at);
        let metrics = std::mem::take(&mut self.metrics);
        // The records of one series are adjacent.
        let mut last: Option<(u32, Labels)> = None;
        let mut labels_of = |series: u32| {
            if last.as_ref().is_none_or(|(known, _)| *known != series) {
                last = metrics.labels(series as usize).ok().map(|labels| (series, labels));
            }
            last.as_ref().map(|(_, labels)| labels.clone())
        };
        let (mut histograms, mut exemplars) = (Vec::new(), Vec::new());
        for (series, histogram) in metrics.histograms() {
            histograms.extend(labels_of(*series).map(|labels| (labels, histogram.clone())));
        }
        for (series, exemplar) in metrics.exemplars() {
            exemplars.extend(labels_of(*series).map(|labels| (labels, exemplar.clone())));
        }
        // Rows of repeated histograms and exemplars are not merged by series and time, unlike samples.
        let has_series = !(histograms.is_empty() && exemplars.is_empty());
        let own = has_series.then(|| self.fingerprint(body));
        let batch = self.into_batch(body, received_at);
        let fingerprint = batch.request_fingerprint.map(|request| request.hash).or(own);
        RequestEvents { fingerprint, histograms, exemplars, batch }
    }
}
