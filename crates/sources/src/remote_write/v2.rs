//! remote_write 2.0: every text stands once in a table of symbols, and series refer to it.

use std::collections::BTreeSet;

use wardroom_domain::labels::NAME;
use wardroom_domain::{Labels, RefusalReason};
use wardroom_edge::Inflated;

use super::{described, distinct, read_sample, text};
use crate::Decoded;
use crate::protobuf::{Broken, Field, Message, push};
use crate::series::{Denial, Text, WireMetrics, Writing, key_of};
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

    let guess = (text.plain.bytes().len() / 64).min(MAX_RECORDS);
    let (mut keys, mut series, mut samples) =
        (Vec::with_capacity(guess), Vec::with_capacity(guess), Vec::with_capacity(guess));
    let mut decoded = Decoded::default();
    let (mut told, mut written) = (BTreeSet::new(), Vec::with_capacity(512));
    let mut message = Message::new(text.plain.bytes());
    while let Some((number, field)) = message.next()? {
        let (5, Field::Bytes(start, bytes)) = (number, field) else { continue };
        let before = samples.len();
        let found = read_series(bytes, &mut samples)?;
        decoded.histograms += found.histograms;
        decoded.exemplars += found.exemplars;
        if let Some(metadata) = found.metadata.filter(|(_, help, _)| told.insert(*help)) {
            let refs = bytes.get(found.refs.0..found.refs.1).unwrap_or_default();
            decoded.metadata.extend(read_metadata(&text, refs, metadata));
        }
        let count = (samples.len() - before) as u32;
        if count > 0 {
            let (first, last) = found.refs;
            written.clear();
            let mut refs = Refs(bytes.get(first..last).unwrap_or_default());
            while let Some(at) = refs.next()? {
                // A symbol that does not exist makes the key nobody's; the labels are refused when read.
                let hash = usize::try_from(at).ok().and_then(|at| hashes.get(at)).copied().unwrap_or_default();
                written.extend(hash.to_le_bytes());
            }
            keys.push(key_of(&written, Writing::RemoteWrite2));
            push(&mut series, (((start + first) as u32, (start + last) as u32), count))?;
        }
    }
    decoded.metrics = WireMetrics::wire(text, keys, series, samples, read_labels);
    Ok(decoded)
}

/// What a `TimeSeries` holds beside its samples.
#[derive(Default)]
struct Found {
    /// Where the packed references to its labels stand.
    refs: (usize, usize),
    histograms: u32,
    exemplars: u32,
    /// Kind, and the symbols of help and unit.
    metadata: Option<(u64, u64, u64)>,
}

fn read_series(bytes: &[u8], samples: &mut Vec<wardroom_domain::Sample>) -> Result<Found, Broken> {
    let mut found = Found::default();
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Bytes(start, refs)) if found.refs == (0, 0) => found.refs = (start, start + refs.len()),
            // proto3 packs them into one field; a sender that does otherwise is not one that exists.
            (1, _) => return Err(Broken::Unpacked),
            (2, Field::Bytes(_, sample)) => push(samples, read_sample(sample)?)?,
            (3, Field::Bytes(..)) => found.histograms += 1,
            (4, Field::Bytes(..)) => found.exemplars += 1,
            (5, Field::Bytes(_, metadata)) => {
                let mut fields = Message::new(metadata);
                let (mut kind, mut help, mut unit) = (0, 0, 0);
                while let Some((number, field)) = fields.next()? {
                    match (number, field) {
                        (1, Field::Varint(value)) => kind = value,
                        (3, Field::Varint(value)) => help = value,
                        (4, Field::Varint(value)) => unit = value,
                        _ => {}
                    }
                }
                found.metadata = Some((kind, help, unit)).filter(|said| *said != (0, 0, 0));
            }
            _ => {}
        }
    }
    Ok(found)
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
