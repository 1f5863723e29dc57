//! Prometheus remote_write 1.0: snappy-compressed protobuf, read without copying.
//!
//! Only `timeseries` with `labels` and `samples` is read; metadata and exemplars are kept in the bus
//! with the body and understood from a later version on. Wire format: the published
//! `prometheus.WriteRequest`.

use axum::http::StatusCode;
use wardroom_domain::error::Failure;
use wardroom_domain::{Batch, Labels, RefusalReason, Sample, SeriesSamples};
use wardroom_edge::{InflateBudget, InflateError};

use crate::admit::refuse;
use crate::{Decoded, RequestHead, Source};

/// The registry's entry.
pub(crate) const REMOTE_WRITE: RemoteWrite = RemoteWrite;

/// remote_write 1.0.
pub(crate) struct RemoteWrite;

impl Source for RemoteWrite {
    fn name(&self) -> &'static str {
        "prometheus_remote_write"
    }

    fn path(&self) -> &'static str {
        "/api/v1/write"
    }

    fn check(&self, head: &RequestHead) -> Result<(), String> {
        if head.content_type != "application/x-protobuf" {
            return Err("Content-Type must be application/x-protobuf (remote_write 1.0)".into());
        }
        if head.content_encoding != "snappy" {
            return Err("Content-Encoding must be snappy".into());
        }
        Ok(())
    }

    fn decode(&self, _: &RequestHead, body: &[u8], budget: &InflateBudget) -> Result<Decoded, Failure> {
        let size = snap::raw::decompress_len(body).map_err(|_| malformed("the body is not snappy"))?;
        let _share = budget.take(size).map_err(inflate_failure)?;
        let mut plain = vec![0; size];
        snap::raw::Decoder::new()
            .decompress(body, &mut plain)
            .map_err(|_| malformed("the body is not whole snappy; it may have been cut short"))?;
        read_request(&plain)
    }

    fn success(&self) -> StatusCode {
        StatusCode::NO_CONTENT
    }
}

/// A body that can never be read.
pub(crate) fn malformed(detail: impl Into<String>) -> Failure {
    Failure::Rejected { reason: "malformed", detail: detail.into() }
}

/// What to answer when a body may not be decompressed.
pub(crate) fn inflate_failure(error: InflateError) -> Failure {
    match error {
        InflateError::TooLarge { .. } => Failure::Rejected { reason: "too_large", detail: error.to_string() },
        InflateError::Exhausted => Failure::Retryable(error.to_string()),
    }
}

fn read_request(plain: &[u8]) -> Result<Decoded, Failure> {
    let mut decoded = Decoded { batch: Batch::default(), ..Decoded::default() };
    let mut position = 0;
    let mut fields = Fields(plain);
    while let Some((number, field)) = fields.next()? {
        if let (1, Field::Bytes(series)) = (number, field) {
            read_series(series, &mut decoded, &mut position)?;
        }
    }
    Ok(decoded)
}

fn read_series(bytes: &[u8], decoded: &mut Decoded, position: &mut u32) -> Result<(), Failure> {
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(8);
    let mut samples = Vec::with_capacity(1);
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(label)) => pairs.push(read_label(label)?),
            (2, Field::Bytes(sample)) => samples.push(read_sample(sample)?),
            _ => {}
        }
    }
    let count = samples.len() as u32;
    let duplicate = {
        let mut names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| pair[0] == pair[1])
    };
    if duplicate {
        for at in *position..*position + count {
            refuse(&mut decoded.refused, at, RefusalReason::BadLabels, "a label name comes twice in one series".into());
        }
    } else if count > 0 {
        decoded.positions.extend(*position..*position + count);
        decoded.batch.series.push(SeriesSamples { labels: Labels::new(pairs), samples });
    }
    *position += count;
    Ok(())
}

fn read_label(bytes: &[u8]) -> Result<(String, String), Failure> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(bytes)) => name = bytes,
            (2, Field::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    let text = |bytes: &[u8], what: &str| {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| malformed(format!("a label {what} is not UTF-8")))
    };
    Ok((text(name, "name")?, text(value, "value")?))
}

fn read_sample(bytes: &[u8]) -> Result<Sample, Failure> {
    let mut sample = Sample { ts_ms: 0, value: 0.0 };
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Fixed64(bits)) => sample.value = f64::from_bits(bits),
            (2, Field::Varint(value)) => sample.ts_ms = value as i64,
            _ => {}
        }
    }
    Ok(sample)
}

/// One protobuf field's value, borrowed from the message.
enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// What is left of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, Failure> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                let (head, tail) = self.0.split_first_chunk::<8>().ok_or_else(short)?;
                self.0 = tail;
                Field::Fixed64(u64::from_le_bytes(*head))
            }
            2 => {
                let size = usize::try_from(self.varint()?).map_err(|_| short())?;
                let (head, tail) = self.0.split_at_checked(size).ok_or_else(short)?;
                self.0 = tail;
                Field::Bytes(head)
            }
            5 => {
                let (_, tail) = self.0.split_first_chunk::<4>().ok_or_else(short)?;
                self.0 = tail;
                Field::Fixed32
            }
            other => return Err(malformed(format!("the protobuf has a field of unknown wire type {other}"))),
        };
        Ok(Some((key >> 3, field)))
    }

    fn varint(&mut self) -> Result<u64, Failure> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, tail) = self.0.split_first().ok_or_else(short)?;
            self.0 = tail;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("the protobuf holds a number longer than 64 bits"))
    }
}

fn short() -> Failure {
    malformed("the protobuf is cut short")
}
