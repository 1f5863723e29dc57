//! remote_write 1.0 bodies.

use prost::Message;

/// `prometheus.WriteRequest`, as far as tests need it.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// The series.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    /// What is said of the metrics.
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<Metadata>,
}

/// What is said of one metric family.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    /// 1 counter, 2 gauge, 3 histogram.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// The family.
    #[prost(string, tag = "2")]
    pub family: String,
    /// In words.
    #[prost(string, tag = "4")]
    pub help: String,
    /// Its unit.
    #[prost(string, tag = "5")]
    pub unit: String,
}

/// One series.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Its labels, sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Its samples.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// One label.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// One sample.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// Value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// A series with one sample.
pub fn series(pairs: &[(&str, &str)], value: f64, timestamp: i64) -> TimeSeries {
    let mut labels: Vec<Label> =
        pairs.iter().map(|(name, value)| Label { name: (*name).to_owned(), value: (*value).to_owned() }).collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    TimeSeries { labels, samples: vec![Sample { value, timestamp }] }
}

/// The body, as it goes over the wire.
pub fn body(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    compress(&WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec())
}

/// A body that only describes metrics, as Prometheus sends once a minute.
pub fn description(metadata: Vec<Metadata>) -> Vec<u8> {
    compress(&WriteRequest { timeseries: Vec::new(), metadata }.encode_to_vec())
}

/// Snappy, block format.
pub fn compress(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).expect("snappy encodes anything below 4 GiB")
}
