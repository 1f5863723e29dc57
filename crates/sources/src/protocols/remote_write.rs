//! Prometheus remote_write 1.0 and 2.0 on one path: snappy-compressed protobuf, decoded without copying.
//!
//! `Content-Type` selects the version: `proto=io.prometheus.write.v2.Request` is 2.0; `application/x-protobuf` without
//! `proto`, or with `proto=prometheus.WriteRequest`, is 1.0. Formats: the published
//! `prometheus.WriteRequest` and `io.prometheus.write.v2.Request` (2.0-rc.4).

mod fields;
mod native_histogram;
mod v1;
mod v2;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wardroom_domain::error::Failure;
use wardroom_edge::InflateBudget;

use crate::decode::decoded::Decoded;
use crate::decode::failures::{inflate_failure, malformed, too_many};
use crate::decode::protobuf::DecodeError;
use crate::source::{RequestHead, RequestOutcome, Source};

/// Content type of version 2.0.
const CONTENT_TYPE_V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.request";

/// The entry in the registry.
pub(crate) const REMOTE_WRITE: RemoteWrite = RemoteWrite;

/// remote_write 1.0 and 2.0.
pub(crate) struct RemoteWrite;

impl Source for RemoteWrite {
    fn name(&self) -> &'static str {
        "prometheus_remote_write"
    }

    fn path(&self) -> &'static str {
        "/api/v1/write"
    }

    fn check_head(&self, head: &RequestHead) -> Result<(), String> {
        let v1 = ["application/x-protobuf", "application/x-protobuf;proto=prometheus.writerequest"];
        if !v1.contains(&head.content_type.as_str()) && head.content_type != CONTENT_TYPE_V2 {
            let detail = "Content-Type must be application/x-protobuf, with proto=prometheus.WriteRequest (1.0) or \
                          proto=io.prometheus.write.v2.Request (2.0)";
            return Err(detail.into());
        }
        if head.content_encoding != "snappy" {
            return Err("Content-Encoding must be snappy".into());
        }
        Ok(())
    }

    fn inflated_bytes(&self, _: &RequestHead, body: &[u8]) -> usize {
        snap::raw::decompress_len(body).unwrap_or(0)
    }

    fn decode(&self, head: &RequestHead, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure> {
        let size = snap::raw::decompress_len(body).map_err(|_| malformed("the body is not snappy"))?;
        budget.check_size(size).map_err(inflate_failure)?;
        if size > max_snappy_output(body.len()) {
            let claim = format!("the body claims to decompress to {size} bytes, which {} cannot hold", body.len());
            return Err(malformed(format!("{claim}: it is not complete snappy; it may be truncated")));
        }
        let mut plain = budget.allocate(size).map_err(inflate_failure)?;
        snap::raw::Decoder::new()
            .decompress(body, plain.bytes_mut())
            .map_err(|_| malformed("the body is not complete snappy; it may be truncated"))?;
        let read = if head.content_type == CONTENT_TYPE_V2 { v2::read_request(plain) } else { v1::read_request(plain) };
        read.map_err(|error| match error {
            DecodeError::TooManyRecords => too_many("series, samples or symbols (2000000 buckets)"),
            error => malformed(error.to_string()),
        })
    }

    fn success_response(&self, head: &RequestHead, outcome: &RequestOutcome) -> Response {
        let mut response = match outcome.partial_failure() {
            None => StatusCode::NO_CONTENT.into_response(),
            Some(problem) => problem.into_response(),
        };
        // Required by 2.0. A 1.0 sender must not get them, because it would treat a full success as partial.
        if head.content_type == CONTENT_TYPE_V2 {
            let counts = [outcome.samples, outcome.histograms, outcome.exemplars];
            let written: HeaderMap = WRITTEN_HEADERS.into_iter().zip(counts.map(HeaderValue::from)).collect();
            response.headers_mut().extend(written);
        }
        response
    }
}

/// Maximum number of bytes that `compressed` bytes of snappy decompress to. Its densest element is a copy of 64 bytes
/// in 3 (<https://github.com/google/snappy/blob/main/format_description.txt>).
const fn max_snappy_output(compressed: usize) -> usize {
    compressed.div_ceil(3).saturating_mul(64)
}

/// Response headers of 2.0: samples, histograms and exemplars written.
const WRITTEN_HEADERS: [header::HeaderName; 3] = [
    header::HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    header::HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    header::HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(body: &[u8], budget: &InflateBudget) -> Option<Failure> {
        let head = RequestHead {
            content_type: "application/x-protobuf".into(),
            content_encoding: "snappy".into(),
            received_at: wardroom_domain::Timestamp::from_millis(0),
        };
        REMOTE_WRITE.decode(&head, body, budget).err()
    }

    #[test]
    fn a_claim_that_the_bytes_cannot_hold_reserves_nothing() {
        let budget = InflateBudget::new(64 << 20, 32 << 20);
        let _all = budget.reserve(32 << 20).and_then(|first| Ok((first, budget.reserve(32 << 20)?))).unwrap();
        // A varint that claims 31 MiB, and a literal of one byte.
        let bomb = [0x80, 0x80, 0xc0, 0x0f, 0x00, 0x61];
        assert!(matches!(decode(&bomb, &budget), Some(Failure::Rejected { reason: "malformed", .. })));
        let beyond = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
        assert!(matches!(decode(&beyond, &budget), Some(Failure::Rejected { reason: "too_large", .. })));
    }

    #[test]
    fn the_densest_snappy_is_within_the_bound() {
        for size in [1_usize, 63, 64, 65, 1000, 65_536, 1 << 20, 3 << 20] {
            let compressed = snap::raw::Encoder::new().compress_vec(&vec![7; size]).unwrap();
            assert!(size <= max_snappy_output(compressed.len()), "{size} in {}", compressed.len());
        }
    }
}
