//! Encodes remote_write 1.0 bodies.

use prost::Message;

/// `prometheus.WriteRequest`, with the fields that tests use.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// The series.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    /// Metadata of metric families.
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<Metadata>,
}

/// Metadata of one metric family.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    /// 1 counter, 2 gauge, 3 histogram.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// Name of the metric family.
    #[prost(string, tag = "2")]
    pub family: String,
    /// Help text.
    #[prost(string, tag = "4")]
    pub help: String,
    /// Unit.
    #[prost(string, tag = "5")]
    pub unit: String,
}

/// A time series.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Labels, sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// Samples.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// A label.
#[derive(Clone, PartialEq, Message)]
pub struct Label {
    /// Label name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Label value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A sample.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// Sample value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// Returns a series with one sample.
pub fn series(pairs: &[(&str, &str)], value: f64, timestamp: i64) -> TimeSeries {
    let mut labels: Vec<Label> =
        pairs.iter().map(|(name, value)| Label { name: (*name).to_owned(), value: (*value).to_owned() }).collect();
    labels.sort_by(|a, b| a.name.cmp(&b.name));
    TimeSeries { labels, samples: vec![Sample { value, timestamp }] }
}

/// Encodes and compresses a request with these series.
pub fn body(timeseries: Vec<TimeSeries>) -> Vec<u8> {
    compress(&WriteRequest { timeseries, metadata: Vec::new() }.encode_to_vec())
}

/// Encodes a request that holds only metadata, as Prometheus sends once a minute.
pub fn metadata_body(metadata: Vec<Metadata>) -> Vec<u8> {
    compress(&WriteRequest { timeseries: Vec::new(), metadata }.encode_to_vec())
}

/// Compresses with snappy, block format.
pub fn compress(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).expect("snappy encodes anything below 4 GiB")
}
