//! remote_write 1.0.

use wardroom_domain::{Exemplar, Labels, MetricMetadata, RefusalReason};
use wardroom_edge::InflatedBody;

use super::fields::{check_label_count, check_unique_names, metric_metadata, read_sample, utf8};
use super::native_histogram::read_histogram;
use crate::decode::decoded::Decoded;
use crate::decode::failures::MAX_RECORDS;
use crate::decode::protobuf::{DecodeError, Field, Message, push_bounded, write_varint};
use crate::decode::refusals::RefusalCause;
use crate::decode::series_key::{LabelEncoding, series_key};
use crate::decode::wire_metrics::{PlainBody, SeriesColumns, WireMetrics};

/// Reads a `prometheus.WriteRequest`.
pub(super) fn read_request(plain: InflatedBody) -> Result<Decoded, DecodeError> {
    // Prometheus sends about 200 bytes per sample, so the columns rarely grow.
    let mut columns = SeriesColumns::with_capacity((plain.bytes().len() / 128).min(MAX_RECORDS));
    let (mut has_scattered, mut metadata, mut bucket_count) = (false, Vec::new(), 0);
    let mut message = Message::new(plain.bytes());
    while let Some((number, field)) = message.next()? {
        if let (3, Field::Bytes(_, bytes)) = (number, field) {
            if let Some(described) = read_metadata(bytes)? {
                push_bounded(&mut metadata, described)?;
            }
        } else if let (1, Field::Bytes(start, bytes)) = (number, field) {
            let before = columns.samples.len();
            let span = read_series(bytes, &mut columns, &mut bucket_count)?;
            let series = columns.len();
            let count = (columns.samples.len() - before) as u32;
            // A series may have exemplars and native histograms only.
            let last_with_events = columns
                .histograms
                .last()
                .map(|(index, _)| *index)
                .max(columns.exemplars.last().map(|(index, _)| *index));
            if count > 0 || last_with_events == Some(series) {
                has_scattered |= matches!(span, LabelSpan::Scattered);
                push_bounded(&mut columns.spans, span.offset_by(start))?;
                columns.counts.push(count);
            }
        }
    }
    let metrics = if has_scattered {
        decode_with_scattered_labels(plain.bytes(), columns)?
    } else {
        let body = PlainBody { plain, symbols: Vec::new() };
        columns.keys.extend(columns.spans.iter().map(|span| series_key(body.span(*span), LabelEncoding::RemoteWrite1)));
        columns.into_metrics(body, |body, span| read_labels(body.span(span)))
    };
    Ok(Decoded { metrics, metadata, ..Decoded::default() })
}

/// Reads a `MetricMetadata`.
fn read_metadata(bytes: &[u8]) -> Result<Option<MetricMetadata>, DecodeError> {
    let (mut kind, mut texts) = (0, [&[][..]; 3]);
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Varint(value)) => kind = value,
            (2, Field::Bytes(_, bytes)) => texts[0] = bytes,
            (4, Field::Bytes(_, bytes)) => texts[1] = bytes,
            (5, Field::Bytes(_, bytes)) => texts[2] = bytes,
            _ => {}
        }
    }
    Ok(metric_metadata(kind, texts[0], texts[1], texts[2]))
}

/// Key byte of a label: field 1, length-delimited.
const LABEL_KEY: u8 = 1 << 3 | 2;

/// Key byte of a sample: field 2, length-delimited.
const SAMPLE_KEY: u8 = 2 << 3 | 2;

/// Where the labels are in the message of a series.
enum LabelSpan {
    /// Start of the first label and end of the last, with nothing else between.
    Contiguous(u32, u32),
    /// Mixed with other fields: valid, but not produced by any known sender.
    Scattered,
}

impl LabelSpan {
    const fn offset_by(&self, start: usize) -> (u32, u32) {
        match self {
            Self::Contiguous(first, last) => (start as u32 + *first, start as u32 + *last),
            Self::Scattered => (0, 0),
        }
    }
}

/// Reads a `TimeSeries` and returns where its labels are.
fn read_series(bytes: &[u8], columns: &mut SeriesColumns, bucket_count: &mut usize) -> Result<LabelSpan, DecodeError> {
    let series = columns.len();
    let mut message = Message::new(bytes);
    let (mut first, mut last, mut contiguous) = (0, 0, true);
    loop {
        let start = message.position();
        message.skip_short_fields(LABEL_KEY);
        if message.position() > start {
            if last == 0 {
                first = start;
            } else {
                contiguous &= last == start;
            }
            last = message.position();
        }
        // Fast path: the labels, then exactly one sample, as almost all senders write it.
        if let [SAMPLE_KEY, size, sample @ ..] = message.remaining()
            && usize::from(*size) == sample.len()
            && *size < 0x80
        {
            push_bounded(&mut columns.samples, read_sample(sample)?)?;
            break;
        }
        let start = message.position();
        match message.next()? {
            Some((1, Field::Bytes(..))) => {
                if last == 0 {
                    first = start;
                } else {
                    contiguous &= last == start;
                }
                last = message.position();
            }
            Some((2, Field::Bytes(_, sample))) => push_bounded(&mut columns.samples, read_sample(sample)?)?,
            Some((3, Field::Bytes(_, exemplar))) => {
                if let Some(exemplar) = read_exemplar(exemplar)? {
                    push_bounded(&mut columns.exemplars, (series, exemplar))?;
                }
            }
            Some((4, Field::Bytes(_, histogram))) => {
                push_bounded(&mut columns.histograms, (series, read_histogram(histogram, bucket_count)?))?;
            }
            Some(_) => {}
            None => break,
        }
    }
    Ok(if contiguous { LabelSpan::Contiguous(first as u32, last as u32) } else { LabelSpan::Scattered })
}

/// Reads an `Exemplar`; `None` if its labels are malformed.
fn read_exemplar(bytes: &[u8]) -> Result<Option<Exemplar>, DecodeError> {
    let mut message = Message::new(bytes);
    let (mut labels, mut value, mut ts_ms) = (Vec::new(), 0.0, 0);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Bytes(_, label)) => write_label(&mut labels, label),
            (2, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (3, Field::Varint(timestamp)) => ts_ms = timestamp as i64,
            _ => {}
        }
    }
    Ok(read_labels(&labels).ok().map(|labels| Exemplar { labels, value, ts_ms }))
}

/// Appends a label field.
fn write_label(out: &mut Vec<u8>, label: &[u8]) {
    out.push(LABEL_KEY);
    write_varint(out, label.len() as u64);
    out.extend(label);
}

/// Decodes the labels of a request in which some series have scattered labels.
fn decode_with_scattered_labels(plain: &[u8], columns: SeriesColumns) -> Result<WireMetrics, DecodeError> {
    let mut metrics = WireMetrics::default();
    let (mut message, mut remaining) = (Message::new(plain), columns.samples.as_slice());
    let (mut histograms, mut exemplars) = (columns.histograms.into_iter(), columns.exemplars.into_iter());
    while let Some((number, field)) = message.next()? {
        let (1, Field::Bytes(_, bytes)) = (number, field) else { continue };
        let (mut labels, mut counts) = (Vec::new(), [0_usize; 3]);
        let mut series = Message::new(bytes);
        while let Some((number, field)) = series.next()? {
            match (number, field) {
                (1, Field::Bytes(_, label)) => write_label(&mut labels, label),
                (2, Field::Bytes(..)) => counts[0] += 1,
                (3, Field::Bytes(_, exemplar)) => counts[1] += usize::from(read_exemplar(exemplar)?.is_some()),
                (4, Field::Bytes(..)) => counts[2] += 1,
                _ => {}
            }
        }
        let (head, tail) = remaining.split_at_checked(counts[0]).unwrap_or((remaining, &[]));
        remaining = tail;
        if counts != [0, 0, 0] {
            metrics.push(read_labels(&labels), head);
            let exemplars = exemplars.by_ref().take(counts[1]).map(|(_, exemplar)| exemplar).collect();
            let histograms = histograms.by_ref().take(counts[2]).map(|(_, histogram)| histogram).collect();
            metrics.push_histograms_and_exemplars(histograms, exemplars);
        }
    }
    Ok(metrics)
}

/// Decodes the labels in a span of label fields.
fn read_labels(span: &[u8]) -> Result<Labels, RefusalCause> {
    let malformed = |error: DecodeError| (RefusalReason::Malformed, error.to_string());
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(16);
    let mut message = Message::new(span);
    while let Some((_, field)) = message.next().map_err(malformed)? {
        let Field::Bytes(_, label) = field else { continue };
        let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
        let mut fields = Message::new(label);
        while let Some((number, field)) = fields.next().map_err(malformed)? {
            match (number, field) {
                (1, Field::Bytes(_, bytes)) => name = bytes,
                (2, Field::Bytes(_, bytes)) => value = bytes,
                _ => {}
            }
        }
        pairs.push((utf8(name, "name")?, utf8(value, "value")?));
        check_label_count(&pairs)?;
    }
    check_unique_names(&pairs)?;
    Ok(Labels::new(pairs))
}
