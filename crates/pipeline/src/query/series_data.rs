//! Results of queries.

use std::collections::BTreeMap;

use wardroom_domain::{Exemplar, Labels, NativeHistogram, Sample};

/// Samples and native histograms of one series.
#[derive(Clone, Debug)]
pub struct SeriesData {
    /// Labels of the series.
    pub labels: Labels,
    /// Float samples.
    pub samples: Vec<Sample>,
    /// Native histograms.
    pub histograms: Vec<NativeHistogram>,
}

/// Exemplars of one series.
#[derive(Clone, Debug)]
pub struct SeriesExemplars {
    /// Labels of the series.
    pub series: Labels,
    /// Its exemplars, oldest first.
    pub exemplars: Vec<Exemplar>,
}

/// Data points by series, while a result is collected.
pub(super) type SeriesMap = BTreeMap<Labels, SeriesPoints>;

/// Data points of one series.
#[derive(Default)]
pub(super) struct SeriesPoints {
    pub(super) samples: Vec<Sample>,
    pub(super) histograms: Vec<NativeHistogram>,
}

impl SeriesPoints {
    pub(super) fn extend(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.histograms.extend(other.histograms);
    }
}

/// Converts a collected result; series without data points are left out.
pub(super) fn into_series_data(found: SeriesMap) -> Vec<SeriesData> {
    let non_empty = found.into_iter().filter(|(_, points)| !points.samples.is_empty() || !points.histograms.is_empty());
    non_empty.map(|(labels, SeriesPoints { samples, histograms })| SeriesData { labels, samples, histograms }).collect()
}
