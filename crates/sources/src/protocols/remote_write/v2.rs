//! remote_write 2.0: each string is in a symbol table once, and series refer to symbols.

use std::collections::BTreeSet;

use wardroom_domain::labels::NAME_LABEL;
use wardroom_domain::{Exemplar, Labels, RefusalReason};
use wardroom_edge::InflatedBody;

use super::fields::{MAX_DECODED_LABELS, check_label_count, check_unique_names, metric_metadata, read_sample, utf8};
use super::native_histogram::read_histogram;
use crate::decode::decoded::Decoded;
use crate::decode::failures::MAX_RECORDS;
use crate::decode::protobuf::{DecodeError, Field, Message, push_bounded};
use crate::decode::refusals::RefusalCause;
use crate::decode::series_key::{LabelEncoding, series_key};
use crate::decode::wire_metrics::{PlainBody, SeriesColumns};

/// Reads an `io.prometheus.write.v2.Request`.
pub(super) fn read_request(plain: InflatedBody) -> Result<Decoded, DecodeError> {
    let mut symbols = Vec::new();
    let mut message = Message::new(plain.bytes());
    while let Some((number, field)) = message.next()? {
        if let (4, Field::Bytes(start, bytes)) = (number, field) {
            push_bounded(&mut symbols, (start as u32, (start + bytes.len()) as u32))?;
        }
    }
    let body = PlainBody { plain, symbols };
    let hashes: Vec<u128> = (0..body.symbols.len())
        .map(|index| series_key(body.symbol(index as u64).unwrap_or_default(), LabelEncoding::Symbol))
        .collect();

    let mut columns = SeriesColumns::with_capacity((body.plain.bytes().len() / 64).min(MAX_RECORDS));
    let mut decoded = Decoded::default();
    let (mut seen_help_refs, mut symbol_hashes, mut bucket_count) = (BTreeSet::new(), Vec::with_capacity(512), 0);
    let mut message = Message::new(body.plain.bytes());
    while let Some((number, field)) = message.next()? {
        let (5, Field::Bytes(start, bytes)) = (number, field) else { continue };
        let before = [columns.samples.len(), columns.histograms.len(), columns.exemplars.len()];
        symbol_hashes.clear();
        let mut add_hash = |index: u64| {
            // An unknown symbol gives a key that matches no series; decoding its labels refuses the series. So does a
            // series with more labels than are decoded, whose further labels the key can leave out.
            let hash = usize::try_from(index).ok().and_then(|index| hashes.get(index)).copied().unwrap_or_default();
            if symbol_hashes.len() <= MAX_DECODED_LABELS * 2 {
                symbol_hashes.push(hash.to_le_bytes());
            }
        };
        let metadata = read_series(bytes, &body, &mut columns, &mut bucket_count, &mut add_hash)?;
        if let Some(metadata) = metadata.filter(|(_, help, _)| seen_help_refs.insert(*help)) {
            decoded.metadata.extend(read_metadata(&body, bytes, metadata));
        }
        if before == [columns.samples.len(), columns.histograms.len(), columns.exemplars.len()] {
            continue;
        }
        columns.keys.push(series_key(symbol_hashes.as_flattened(), LabelEncoding::RemoteWrite2));
        columns.counts.push((columns.samples.len() - before[0]) as u32);
        push_bounded(&mut columns.spans, (start as u32, (start + bytes.len()) as u32))?;
    }
    decoded.metrics = columns.into_metrics(body, |body, span| read_labels(body, body.span(span)));
    Ok(decoded)
}

/// The metadata of a series: kind, symbols of help and unit.
type MetadataRefs = (u64, u64, u64);

/// Reads a `TimeSeries` and calls `add_ref` with each of its label references, packed or not.
fn read_series(
    bytes: &[u8],
    body: &PlainBody,
    columns: &mut SeriesColumns,
    bucket_count: &mut usize,
    add_ref: &mut impl FnMut(u64),
) -> Result<Option<MetadataRefs>, DecodeError> {
    let series = columns.len();
    let mut metadata = None;
    let mut message = Message::new(bytes);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, refs) => refs.for_each_varint(|index| {
                add_ref(index);
                Ok(())
            })?,
            (2, Field::Bytes(_, sample)) => push_bounded(&mut columns.samples, read_sample(sample)?)?,
            (3, Field::Bytes(_, histogram)) => {
                push_bounded(&mut columns.histograms, (series, read_histogram(histogram, bucket_count)?))?;
            }
            (4, Field::Bytes(_, exemplar)) => {
                if let Some(exemplar) = read_exemplar(body, exemplar)? {
                    push_bounded(&mut columns.exemplars, (series, exemplar))?;
                }
            }
            (5, Field::Bytes(_, metadata_message)) => {
                let mut fields = Message::new(metadata_message);
                let (mut kind, mut help, mut unit) = (0, 0, 0);
                while let Some((number, field)) = fields.next()? {
                    match (number, field) {
                        (1, Field::Varint(value)) => kind = value,
                        (3, Field::Varint(value)) => help = value,
                        (4, Field::Varint(value)) => unit = value,
                        _ => {}
                    }
                }
                metadata = Some((kind, help, unit)).filter(|parts| *parts != (0, 0, 0));
            }
            _ => {}
        }
    }
    Ok(metadata)
}

/// Reads an `Exemplar`; `None` if its labels are malformed.
fn read_exemplar(body: &PlainBody, bytes: &[u8]) -> Result<Option<Exemplar>, DecodeError> {
    let mut message = Message::new(bytes);
    let (mut value, mut ts_ms) = (0.0, 0);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (2, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (3, Field::Varint(timestamp)) => ts_ms = timestamp as i64,
            _ => {}
        }
    }
    Ok(read_labels(body, bytes).ok().map(|labels| Exemplar { labels, value, ts_ms }))
}

/// Returns the metadata of a series, for its metric family.
fn read_metadata(
    symbols: &PlainBody,
    series: &[u8],
    (kind, help, unit): MetadataRefs,
) -> Option<wardroom_domain::MetricMetadata> {
    let labels = read_labels(symbols, series).ok()?;
    let name = labels.name();
    let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end).filter(|_| kind == 3));
    metric_metadata(kind, family.unwrap_or(name).as_bytes(), symbols.symbol(help)?, symbols.symbol(unit)?)
}

/// Decodes the labels of a `TimeSeries` or an `Exemplar`, whose first field has the references.
fn read_labels(symbols: &PlainBody, message: &[u8]) -> Result<Labels, RefusalCause> {
    let bad_labels = |detail: &str| (RefusalReason::BadLabels, detail.to_owned());
    let symbol = |index: u64| {
        symbols.symbol(index).ok_or_else(|| bad_labels("labels_refs refers to a symbol that does not exist"))
    };
    let malformed = |error: DecodeError| (RefusalReason::Malformed, error.to_string());
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(16);
    for pair in read_refs(message).map_err(malformed)?.chunks(2) {
        let [name, value] = *pair else {
            return Err(bad_labels("labels_refs has an odd length: a label name has no value"));
        };
        pairs.push((utf8(symbol(name)?, "name")?, utf8(symbol(value)?, "value")?));
        check_label_count(&pairs)?;
    }
    if pairs.iter().any(|(name, value)| name.is_empty() || (*name == NAME_LABEL && value.is_empty())) {
        return Err(bad_labels("a label name or the metric name is empty"));
    }
    check_unique_names(&pairs)?;
    Ok(Labels::new(pairs))
}

/// Reads the label references of a message in order: packed in one or several fields, or one in each field. Stops after
/// more than [`MAX_DECODED_LABELS`] labels, which are refused.
fn read_refs(message: &[u8]) -> Result<Vec<u64>, DecodeError> {
    let mut refs = Vec::with_capacity(32);
    let mut fields = Message::new(message);
    while let Some((number, field)) = fields.next()? {
        if number == 1 {
            field.for_each_varint(|index| {
                if refs.len() < (MAX_DECODED_LABELS + 1) * 2 {
                    refs.push(index);
                }
                Ok(())
            })?;
        }
    }
    Ok(refs)
}
