//! `wardroom samples dump` from a running server: its pages of raw samples.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::Value;
use wardroom_domain::Labels;

use crate::client::Client;

/// Samples and histograms by series and time (ms); duplicates from retried requests collapse.
pub type Samples = BTreeMap<Labels, Points>;

/// The points of a series.
#[derive(Debug, Default)]
pub struct Points {
    /// Time (ms) → (value as text, IEEE 754 bits as hex).
    pub samples: BTreeMap<i64, (String, String)>,
    /// Time (ms) → native histogram, as the API shows it.
    pub histograms: BTreeMap<i64, Value>,
}

/// Fetches all pages that the selectors and the range select.
///
/// # Errors
/// Returns an error if the server does not answer, or with something else.
pub fn fetch_samples(
    client: &Client,
    selectors: &[String],
    start: Option<&str>,
    end: Option<&str>,
) -> anyhow::Result<Samples> {
    let mut filter: Vec<(&str, String)> = selectors.iter().map(|selector| ("match[]", selector.clone())).collect();
    filter.extend([("start", start), ("end", end)].into_iter().filter_map(|(name, at)| Some((name, at?.to_owned()))));
    let (mut samples, mut cursor) = (Samples::new(), "0".to_owned());
    loop {
        let mut parameters = filter.clone();
        parameters.push(("cursor", cursor.clone()));
        let page: Value = serde_json::from_slice(&client.get_bytes("/api/v1/samples", &parameters)?)?;
        for series in page["series"].as_array().context("the response has no series")? {
            let labels: Labels = serde_json::from_value(series["labels"].clone())?;
            let points = samples.entry(labels).or_default();
            for sample in series["samples"].as_array().into_iter().flatten() {
                let text = |index: usize| sample[index].as_str().unwrap_or_default().to_owned();
                points.samples.insert(sample[0].as_i64().context("a sample has no time")?, (text(1), text(2)));
            }
            for histogram in series["histograms"].as_array().into_iter().flatten() {
                let ts_ms = histogram["ts_ms"].as_i64().context("a histogram has no time")?;
                points.histograms.insert(ts_ms, histogram.clone());
            }
        }
        match &page["next"] {
            Value::String(next) => cursor.clone_from(next),
            _ => return Ok(samples),
        }
    }
}
