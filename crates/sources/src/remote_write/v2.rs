//! remote_write 2.0: every text stands once in a table of symbols, and series refer to it.

use std::collections::BTreeSet;

use wardroom_domain::labels::NAME;
use wardroom_domain::{Exemplar, Labels, RefusalReason};
use wardroom_edge::Inflated;

use super::histogram::read_histogram;
use super::{described, distinct, not_too_many, read_sample, text};
use crate::Decoded;
use crate::protobuf::{Broken, Field, Message, push};
use crate::series::{Denial, Found, Text, Writing, key_of};
use crate::source::MAX_RECORDS;

/// Reads an `io.prometheus.write.v2.Request`.
pub(super) fn read_request(plain: Inflated) -> Result<Decoded, Broken> {
    let mut symbols = Vec::new();
    let mut message = Message::new(plain.bytes());
    while let Some((number, field)) = message.next()? {
        if let (4, Field::Bytes(start, bytes)) = (number, field) {
            push(&mut symbols, (start as u32, (start + bytes.len()) as u32))?;
        }
    }
    let text = Text { plain, symbols };
    let hashes: Vec<u128> =
        (0..text.symbols.len()).map(|at| key_of(text.symbol(at as u64).unwrap_or_default(), Writing::Symbol)).collect();

    let mut found = Found::with_capacity((text.plain.bytes().len() / 64).min(MAX_RECORDS));
    let mut decoded = Decoded::default();
    let (mut told, mut written, mut buckets) = (BTreeSet::new(), Vec::with_capacity(512), 0);
    let mut message = Message::new(text.plain.bytes());
    while let Some((number, field)) = message.next()? {
        let (5, Field::Bytes(start, bytes)) = (number, field) else { continue };
        let before = [found.samples.len(), found.histograms.len(), found.exemplars.len()];
        let (refs, metadata) = read_series(bytes, &text, &mut found, &mut buckets)?;
        let span = bytes.get(refs.0..refs.1).unwrap_or_default();
        if let Some(metadata) = metadata.filter(|(_, help, _)| told.insert(*help)) {
            decoded.metadata.extend(read_metadata(&text, span, metadata));
        }
        if before == [found.samples.len(), found.histograms.len(), found.exemplars.len()] {
            continue;
        }
        written.clear();
        let mut symbols = Refs(span);
        while let Some(at) = symbols.next()? {
            // A symbol that does not exist makes the key nobody's; the labels are refused when read.
            let hash = usize::try_from(at).ok().and_then(|at| hashes.get(at)).copied().unwrap_or_default();
            written.extend(hash.to_le_bytes());
        }
        found.keys.push(key_of(&written, Writing::RemoteWrite2));
        found.counts.push((found.samples.len() - before[0]) as u32);
        push(&mut found.spans, ((start + refs.0) as u32, (start + refs.1) as u32))?;
    }
    decoded.metrics = found.named(text, |text, span| read_labels(text, text.span(span)));
    Ok(decoded)
}

/// Where the packed references to a series' labels stand, and its metadata: kind, and the symbols of help
/// and unit.
type Told = ((usize, usize), Option<(u64, u64, u64)>);

fn read_series(bytes: &[u8], text: &Text, found: &mut Found, buckets: &mut usize) -> Result<Told, Broken> {
    let series = found.len();
    let (mut refs, mut metadata) = ((0, 0), None);
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Bytes(start, span)) if refs == (0, 0) => refs = (start, start + span.len()),
            // proto3 packs them into one field; a sender that does otherwise is not one that exists.
            (1, _) => return Err(Broken::Unpacked),
            (2, Field::Bytes(_, sample)) => push(&mut found.samples, read_sample(sample)?)?,
            (3, Field::Bytes(_, histogram)) => {
                push(&mut found.histograms, (series, read_histogram(histogram, buckets)?))?;
            }
            (4, Field::Bytes(_, exemplar)) => {
                if let Some(exemplar) = read_exemplar(text, exemplar)? {
                    push(&mut found.exemplars, (series, exemplar))?;
                }
            }
            (5, Field::Bytes(_, said)) => {
                let mut fields = Message::new(said);
                let (mut kind, mut help, mut unit) = (0, 0, 0);
                while let Some((number, field)) = fields.next()? {
                    match (number, field) {
                        (1, Field::Varint(value)) => kind = value,
                        (3, Field::Varint(value)) => help = value,
                        (4, Field::Varint(value)) => unit = value,
                        _ => {}
                    }
                }
                metadata = Some((kind, help, unit)).filter(|said| *said != (0, 0, 0));
            }
            _ => {}
        }
    }
    Ok((refs, metadata))
}

/// `Exemplar`; nothing if its labels are not well formed.
fn read_exemplar(text: &Text, bytes: &[u8]) -> Result<Option<Exemplar>, Broken> {
    let mut message = Message::new(bytes);
    let (mut refs, mut value, mut ts_ms) = (&[][..], 0.0, 0);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Bytes(_, span)) => refs = span,
            (2, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (3, Field::Varint(at)) => ts_ms = at as i64,
            _ => {}
        }
    }
    Ok(read_labels(text, refs).ok().map(|labels| Exemplar { labels, value, ts_ms }))
}

fn read_metadata(
    symbols: &Text,
    refs: &[u8],
    (kind, help, unit): (u64, u64, u64),
) -> Option<wardroom_domain::MetricMetadata> {
    let labels = read_labels(symbols, refs).ok()?;
    let name = labels.name();
    let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end).filter(|_| kind == 3));
    described(kind, family.unwrap_or(name).as_bytes(), symbols.symbol(help)?, symbols.symbol(unit)?)
}

/// The labels that a span of packed references names.
fn read_labels(symbols: &Text, span: &[u8]) -> Result<Labels, Denial> {
    let denied = |detail: &str| (RefusalReason::BadLabels, detail.to_owned());
    let symbol = |at: u64| symbols.symbol(at).ok_or_else(|| denied("labels_refs names a symbol that is not there"));
    let damaged = |broken: Broken| (RefusalReason::Malformed, broken.to_string());
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(16);
    let mut refs = Refs(span);
    while let Some(name) = refs.next().map_err(damaged)? {
        let value = refs.next().map_err(damaged)?;
        let value = value.ok_or_else(|| denied("labels_refs is odd: a label has a name and no value"))?;
        pairs.push((text(symbol(name)?, "name")?, text(symbol(value)?, "value")?));
        not_too_many(&pairs)?;
    }
    if pairs.iter().any(|(name, value)| name.is_empty() || (*name == NAME && value.is_empty())) {
        return Err(denied("a label has no name, or the metric has none"));
    }
    distinct(&pairs)?;
    Ok(Labels::new(pairs))
}

/// Packed references.
struct Refs<'a>(&'a [u8]);

impl Refs<'_> {
    fn next(&mut self) -> Result<Option<u64>, Broken> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut message = Message::new(self.0);
        let at = message.varint()?;
        self.0 = self.0.get(message.at()..).unwrap_or_default();
        Ok(Some(at))
    }
}
