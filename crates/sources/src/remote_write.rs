//! Prometheus remote_write 1.0 and 2.0 on one path: snappy-compressed protobuf, read without copying.
//!
//! The sender says which by `Content-Type`: `proto=io.prometheus.write.v2.Request` is 2.0, anything else of
//! `application/x-protobuf` that does not name another message is 1.0. Formats: the published
//! `prometheus.WriteRequest` and `io.prometheus.write.v2.Request` (2.0-rc.4).

mod histogram;
mod v1;
mod v2;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wardroom_domain::error::Failure;
use wardroom_domain::{MetricMetadata, RefusalReason, Sample};
use wardroom_edge::InflateBudget;

use crate::protobuf::{Broken, Field, Message, last_varint};
use crate::series::Denial;
use crate::source::{inflate_failure, malformed, too_many};
use crate::{Decoded, Outcome, RequestHead, Source};

/// Longest name, help or unit of a metric that is kept, in bytes.
const MAX_METADATA: usize = 4096;
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.request";

/// The registry's entry.
pub(crate) const REMOTE_WRITE: RemoteWrite = RemoteWrite;

/// remote_write, both versions.
pub(crate) struct RemoteWrite;

impl Source for RemoteWrite {
    fn name(&self) -> &'static str {
        "prometheus_remote_write"
    }

    fn path(&self) -> &'static str {
        "/api/v1/write"
    }

    fn check(&self, head: &RequestHead) -> Result<(), String> {
        let v1 = ["application/x-protobuf", "application/x-protobuf;proto=prometheus.writerequest"];
        if !v1.contains(&head.content_type.as_str()) && head.content_type != V2 {
            let detail = "Content-Type must be application/x-protobuf, with proto=prometheus.WriteRequest (1.0) or \
                          proto=io.prometheus.write.v2.Request (2.0)";
            return Err(detail.into());
        }
        if head.content_encoding != "snappy" {
            return Err("Content-Encoding must be snappy".into());
        }
        Ok(())
    }

    fn decode(&self, head: &RequestHead, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure> {
        let size = snap::raw::decompress_len(body).map_err(|_| malformed("the body is not snappy"))?;
        let mut plain = budget.room(size).map_err(inflate_failure)?;
        snap::raw::Decoder::new()
            .decompress(body, plain.room())
            .map_err(|_| malformed("the body is not whole snappy; it may have been cut short"))?;
        let read = if head.content_type == V2 { v2::read_request(plain) } else { v1::read_request(plain) };
        read.map_err(|broken| match broken {
            Broken::TooMany => too_many("series, samples or symbols (2000000 buckets)"),
            broken => malformed(broken.to_string()),
        })
    }

    fn answer(&self, head: &RequestHead, outcome: &Outcome) -> Response {
        let mut response = match outcome.partial() {
            None => StatusCode::NO_CONTENT.into_response(),
            Some(problem) => problem.into_response(),
        };
        // 2.0 asks for them; a 1.0 sender that saw them would take a full success for a partial one.
        if head.content_type == V2 {
            let counts = [outcome.samples, outcome.histograms, outcome.exemplars];
            let written: HeaderMap = WRITTEN.into_iter().zip(counts.map(HeaderValue::from)).collect();
            response.headers_mut().extend(written);
        }
        response
    }
}

/// How much of a request was written, as remote_write 2.0 tells it.
const WRITTEN: [header::HeaderName; 3] = [
    header::HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    header::HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    header::HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

/// `Sample`, the same in both versions.
fn read_sample(bytes: &[u8]) -> Result<Sample, Broken> {
    // As nearly everybody writes it: the value, then the time.
    if let Some(([0x09, value @ .., 0x10], rest)) = bytes.split_first_chunk::<10>()
        && let Some(ts_ms) = last_varint(bytes, rest.len())
    {
        return Ok(Sample { ts_ms: ts_ms as i64, value: f64::from_le_bytes(*value) });
    }
    let mut sample = Sample { ts_ms: 0, value: 0.0 };
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Fixed64(bits)) => sample.value = f64::from_bits(bits),
            (2, Field::Varint(value)) => sample.ts_ms = value as i64,
            _ => {}
        }
    }
    Ok(sample)
}

/// What both versions say of a metric family; nothing if it is not text, or a book.
fn described(kind: u64, family: &[u8], help: &[u8], unit: &[u8]) -> Option<MetricMetadata> {
    let kinds = MetricMetadata::KINDS;
    let kind = usize::try_from(kind).ok().and_then(|kind| kinds.get(kind)).unwrap_or(&kinds[0]);
    let text = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_METADATA)?;
        Some(text.to_owned())
    };
    let family = text(family).filter(|family| !family.is_empty())?;
    Some(MetricMetadata { family, kind, help: text(help)?, unit: text(unit)? })
}

/// Labels of one series that are looked at; the configured limit is far below.
const MAX_LABELS: usize = 2000;

/// Refuses a series of so many labels that counting them is all that may be spent on it.
fn not_too_many(pairs: &[(&str, &str)]) -> Result<(), Denial> {
    if pairs.len() > MAX_LABELS {
        return Err((RefusalReason::LabelLimit, format!("more than {MAX_LABELS} labels on one series")));
    }
    Ok(())
}

fn text<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Denial> {
    std::str::from_utf8(bytes).map_err(|_| (RefusalReason::Malformed, format!("a label {what} is not UTF-8")))
}

/// Refuses a label name that comes twice: which of the two is meant, nobody knows.
fn distinct(pairs: &[(&str, &str)]) -> Result<(), Denial> {
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err((RefusalReason::BadLabels, "a label name comes twice in one series".into()));
    }
    Ok(())
}
