//! remote_write 1.0.

use wardroom_domain::{Labels, MetricMetadata, RefusalReason, Sample};
use wardroom_edge::Inflated;

use super::{described, distinct, read_sample, text};
use crate::Decoded;
use crate::protobuf::{Broken, Field, Message, push, put_varint};
use crate::series::{Denial, Text, WireMetrics, Writing, key_of};
use crate::source::MAX_RECORDS;

/// Reads a `prometheus.WriteRequest`.
pub(super) fn read_request(plain: Inflated) -> Result<Decoded, Broken> {
    // Prometheus sends about 200 bytes a sample, so this is seldom grown.
    let guess = (plain.bytes().len() / 128).min(MAX_RECORDS);
    let (mut series, mut samples) = (Vec::with_capacity(guess), Vec::with_capacity(guess));
    let (mut scattered, mut metadata) = (Vec::new(), Vec::new());
    let mut message = Message::new(plain.bytes());
    while let Some((number, field)) = message.next()? {
        if let (3, Field::Bytes(_, bytes)) = (number, field) {
            if let Some(said) = read_metadata(bytes)? {
                push(&mut metadata, said)?;
            }
        } else if let (1, Field::Bytes(start, bytes)) = (number, field) {
            let before = samples.len();
            let found = read_series(bytes, &mut samples)?;
            let count = (samples.len() - before) as u32;
            if count > 0 {
                if let Span::Scattered = found {
                    scattered.push(series.len());
                }
                push(&mut series, (found.within(start), count))?;
            }
        }
    }
    let metrics = if scattered.is_empty() {
        let text = Text { plain, symbols: Vec::new() };
        let keys = series.iter().map(|(span, _)| key_of(text.span(*span), Writing::RemoteWrite1)).collect();
        WireMetrics::wire(text, keys, series, samples, |_, span| read_labels(span))
    } else {
        gathered(plain.bytes(), &samples)?
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

fn read_series(bytes: &[u8], samples: &mut Vec<Sample>) -> Result<Span, Broken> {
    let mut message = Message::new(bytes);
    let (mut first, mut last, mut together) = (0, 0, true);
    loop {
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
            Some((2, Field::Bytes(_, sample))) => push(samples, read_sample(sample)?)?,
            Some(_) => {}
            None => break,
        }
    }
    Ok(if together { Span::Together(first as u32, last as u32) } else { Span::Scattered })
}

/// Reads the labels of a request in which those of some series do not stand together.
fn gathered(plain: &[u8], samples: &[Sample]) -> Result<WireMetrics, Broken> {
    let mut metrics = WireMetrics::default();
    let (mut message, mut rest) = (Message::new(plain), samples);
    while let Some((number, field)) = message.next()? {
        let (1, Field::Bytes(_, bytes)) = (number, field) else { continue };
        let (mut labels, mut count) = (Vec::new(), 0);
        let mut series = Message::new(bytes);
        while let Some((number, field)) = series.next()? {
            match (number, field) {
                (1, Field::Bytes(_, label)) => {
                    labels.push(0x0a);
                    put_varint(&mut labels, label.len() as u64);
                    labels.extend(label);
                }
                (2, Field::Bytes(..)) => count += 1,
                _ => {}
            }
        }
        let (head, tail) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        rest = tail;
        if count > 0 {
            metrics.push(read_labels(&labels), head);
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
    }
    distinct(&pairs)?;
    Ok(Labels::new(pairs))
}
