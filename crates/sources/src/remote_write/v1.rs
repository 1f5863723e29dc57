//! remote_write 1.0.

use wardroom_domain::{Exemplar, Labels, MetricMetadata, RefusalReason};
use wardroom_edge::Inflated;

use super::histogram::read_histogram;
use super::{described, distinct, not_too_many, read_sample, text};
use crate::Decoded;
use crate::protobuf::{Broken, Field, Message, push, put_varint};
use crate::series::{Denial, Found, Text, WireMetrics, Writing, key_of};
use crate::source::MAX_RECORDS;

/// Reads a `prometheus.WriteRequest`.
pub(super) fn read_request(plain: Inflated) -> Result<Decoded, Broken> {
    // Prometheus sends about 200 bytes a sample, so this is seldom grown.
    let mut found = Found::with_capacity((plain.bytes().len() / 128).min(MAX_RECORDS));
    let (mut scattered, mut metadata, mut buckets) = (false, Vec::new(), 0);
    let mut message = Message::new(plain.bytes());
    while let Some((number, field)) = message.next()? {
        if let (3, Field::Bytes(_, bytes)) = (number, field) {
            if let Some(said) = read_metadata(bytes)? {
                push(&mut metadata, said)?;
            }
        } else if let (1, Field::Bytes(start, bytes)) = (number, field) {
            let before = found.samples.len();
            let span = read_series(bytes, &mut found, &mut buckets)?;
            let series = found.len();
            let count = (found.samples.len() - before) as u32;
            // Exemplars and native histograms come without samples.
            let more = found.histograms.last().map(|(at, _)| *at).max(found.exemplars.last().map(|(at, _)| *at));
            if count > 0 || more == Some(series) {
                scattered |= matches!(span, Span::Scattered);
                push(&mut found.spans, span.within(start))?;
                found.counts.push(count);
            }
        }
    }
    let metrics = if scattered {
        gathered(plain.bytes(), found)?
    } else {
        let text = Text { plain, symbols: Vec::new() };
        found.keys.extend(found.spans.iter().map(|span| key_of(text.span(*span), Writing::RemoteWrite1)));
        found.named(text, |text, span| read_labels(text.span(span)))
    };
    Ok(Decoded { metrics, metadata, ..Decoded::default() })
}

/// `MetricMetadata`.
fn read_metadata(bytes: &[u8]) -> Result<Option<MetricMetadata>, Broken> {
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
    Ok(described(kind, texts[0], texts[1], texts[2]))
}

/// The key of a label in its series: field 1, bytes.
const LABEL: u8 = 1 << 3 | 2;

/// The key of a sample in its series: field 2, bytes.
const SAMPLE: u8 = 2 << 3 | 2;

/// Where the labels of a series stand in its message.
enum Span {
    /// From the first label's tag to the last label's end.
    Together(u32, u32),
    /// Something else stands between them: legal, and written by nobody known.
    Scattered,
}

impl Span {
    const fn within(&self, start: usize) -> (u32, u32) {
        match self {
            Self::Together(first, last) => (start as u32 + *first, start as u32 + *last),
            Self::Scattered => (0, 0),
        }
    }
}

fn read_series(bytes: &[u8], found: &mut Found, buckets: &mut usize) -> Result<Span, Broken> {
    let series = found.len();
    let mut message = Message::new(bytes);
    let (mut first, mut last, mut together) = (0, 0, true);
    loop {
        let at = message.at();
        message.skip_run(LABEL);
        if message.at() > at {
            if last == 0 {
                first = at;
            } else {
                together &= last == at;
            }
            last = message.at();
        }
        // As nearly everybody writes it: one sample behind the labels, and nothing more.
        if let [SAMPLE, size, sample @ ..] = message.rest()
            && usize::from(*size) == sample.len()
            && *size < 0x80
        {
            push(&mut found.samples, read_sample(sample)?)?;
            break;
        }
        let at = message.at();
        match message.next()? {
            Some((1, Field::Bytes(..))) => {
                if last == 0 {
                    first = at;
                } else {
                    together &= last == at;
                }
                last = message.at();
            }
            Some((2, Field::Bytes(_, sample))) => push(&mut found.samples, read_sample(sample)?)?,
            Some((3, Field::Bytes(_, exemplar))) => {
                if let Some(exemplar) = read_exemplar(exemplar)? {
                    push(&mut found.exemplars, (series, exemplar))?;
                }
            }
            Some((4, Field::Bytes(_, histogram))) => {
                push(&mut found.histograms, (series, read_histogram(histogram, buckets)?))?;
            }
            Some(_) => {}
            None => break,
        }
    }
    Ok(if together { Span::Together(first as u32, last as u32) } else { Span::Scattered })
}

/// `Exemplar`; nothing if its labels are not well formed.
fn read_exemplar(bytes: &[u8]) -> Result<Option<Exemplar>, Broken> {
    let mut message = Message::new(bytes);
    let (mut labels, mut value, mut ts_ms) = (Vec::new(), 0.0, 0);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Bytes(_, label)) => put_label(&mut labels, label),
            (2, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (3, Field::Varint(at)) => ts_ms = at as i64,
            _ => {}
        }
    }
    Ok(read_labels(&labels).ok().map(|labels| Exemplar { labels, value, ts_ms }))
}

fn put_label(out: &mut Vec<u8>, label: &[u8]) {
    out.push(0x0a);
    put_varint(out, label.len() as u64);
    out.extend(label);
}

/// Reads the labels of a request in which those of some series do not stand together.
fn gathered(plain: &[u8], found: Found) -> Result<WireMetrics, Broken> {
    let mut metrics = WireMetrics::default();
    let (mut message, mut rest) = (Message::new(plain), found.samples.as_slice());
    let (mut histograms, mut exemplars) = (found.histograms.into_iter(), found.exemplars.into_iter());
    while let Some((number, field)) = message.next()? {
        let (1, Field::Bytes(_, bytes)) = (number, field) else { continue };
        let (mut labels, mut counts) = (Vec::new(), [0_usize; 3]);
        let mut series = Message::new(bytes);
        while let Some((number, field)) = series.next()? {
            match (number, field) {
                (1, Field::Bytes(_, label)) => put_label(&mut labels, label),
                (2, Field::Bytes(..)) => counts[0] += 1,
                (3, Field::Bytes(_, exemplar)) => counts[1] += usize::from(read_exemplar(exemplar)?.is_some()),
                (4, Field::Bytes(..)) => counts[2] += 1,
                _ => {}
            }
        }
        let (head, tail) = rest.split_at_checked(counts[0]).unwrap_or((rest, &[]));
        rest = tail;
        if counts != [0, 0, 0] {
            metrics.push(read_labels(&labels), head);
            let exemplars = exemplars.by_ref().take(counts[1]).map(|(_, exemplar)| exemplar).collect();
            let histograms = histograms.by_ref().take(counts[2]).map(|(_, histogram)| histogram).collect();
            metrics.push_more(histograms, exemplars);
        }
    }
    Ok(metrics)
}

/// The labels in a span of label fields.
fn read_labels(span: &[u8]) -> Result<Labels, Denial> {
    let damaged = |broken: Broken| (RefusalReason::Malformed, broken.to_string());
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(16);
    let mut message = Message::new(span);
    while let Some((_, field)) = message.next().map_err(damaged)? {
        let Field::Bytes(_, label) = field else { continue };
        let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
        let mut fields = Message::new(label);
        while let Some((number, field)) = fields.next().map_err(damaged)? {
            match (number, field) {
                (1, Field::Bytes(_, bytes)) => name = bytes,
                (2, Field::Bytes(_, bytes)) => value = bytes,
                _ => {}
            }
        }
        pairs.push((text(name, "name")?, text(value, "value")?));
        not_too_many(&pairs)?;
    }
    distinct(&pairs)?;
    Ok(Labels::new(pairs))
}
