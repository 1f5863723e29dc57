//! What of a request has tables of its own: all but its samples, which come there by way of the live series.

use wardroom_domain::{Batch, Exemplar, Labels, NativeHistogram, Timestamp};

use crate::admit::admit_exemplars;
use crate::{Config, Decoded};

/// The parts of a request that are written down as they came.
#[derive(Debug)]
pub struct Recorded {
    /// Tells a repetition of the request, where it would stand there twice.
    pub fingerprint: Option<u64>,
    /// Native histograms, each under its series.
    pub histograms: Vec<(Labels, NativeHistogram)>,
    /// Exemplars, each under its series.
    pub exemplars: Vec<(Labels, Exemplar)>,
    /// Log lines, spans and deployments.
    pub batch: Batch,
}

impl Decoded {
    /// Whether there is something in it that has a table of its own.
    pub fn has_events(&self) -> bool {
        let series = !(self.metrics.histograms().is_empty() && self.metrics.exemplars().is_empty());
        series || !(self.logs.is_empty() && self.spans.is_empty() && self.deployments.is_empty())
    }

    /// What of a request that is read again, its body at hand, is written down.
    pub fn recorded(mut self, body: &[u8], config: &Config, received_at: Timestamp) -> Recorded {
        admit_exemplars(&mut self.metrics, config, received_at);
        let metrics = std::mem::take(&mut self.metrics);
        // One series' things stand side by side.
        let mut last: Option<(u32, Labels)> = None;
        let mut named = |series: u32| {
            if last.as_ref().is_none_or(|(known, _)| *known != series) {
                last = metrics.labels(series as usize).ok().map(|labels| (series, labels));
            }
            last.as_ref().map(|(_, labels)| labels.clone())
        };
        let (mut histograms, mut exemplars) = (Vec::new(), Vec::new());
        for (series, histogram) in metrics.histograms() {
            histograms.extend(named(*series).map(|labels| (labels, histogram.clone())));
        }
        for (series, exemplar) in metrics.exemplars() {
            exemplars.extend(named(*series).map(|labels| (labels, exemplar.clone())));
        }
        // They have a name and a time each, as samples have, but nobody merges them.
        let series = !(histograms.is_empty() && exemplars.is_empty());
        let own = series.then(|| self.fingerprint(body));
        let batch = self.resolve(body, received_at);
        let fingerprint = batch.sighting.map(|known| known.fingerprint).or(own);
        Recorded { fingerprint, histograms, exemplars, batch }
    }
}
