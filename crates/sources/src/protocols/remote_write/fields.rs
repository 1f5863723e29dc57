//! Fields that both versions share: samples, metadata and the checks of labels.

use wardroom_domain::{MetricMetadata, RefusalReason, Sample};

use crate::decode::protobuf::{DecodeError, Field, Message, read_trailing_varint};
use crate::decode::refusals::RefusalCause;

/// Maximum length of a metric name, help text or unit in metadata, in bytes; longer metadata is ignored.
const MAX_METADATA_BYTES: usize = 4096;
/// Maximum number of labels of one series that are decoded; the configured limit is far below.
pub(super) const MAX_DECODED_LABELS: usize = 2000;

/// Reads a `Sample`.
pub(super) fn read_sample(bytes: &[u8]) -> Result<Sample, DecodeError> {
    // Fast path: the value, then the time, as almost all senders write it.
    if let Some(([0x09, value @ .., 0x10], rest)) = bytes.split_first_chunk::<10>()
        && let Some(ts_ms) = read_trailing_varint(bytes, rest.len())
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

/// Returns the metadata of a metric family; `None` if it is not UTF-8 or too long.
pub(super) fn metric_metadata(kind: u64, family: &[u8], help: &[u8], unit: &[u8]) -> Option<MetricMetadata> {
    let kinds = MetricMetadata::KINDS;
    let kind = usize::try_from(kind).ok().and_then(|kind| kinds.get(kind)).unwrap_or(&kinds[0]);
    let parse = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_METADATA_BYTES)?;
        Some(text.to_owned())
    };
    let family = parse(family).filter(|family| !family.is_empty())?;
    Some(MetricMetadata { family, kind, help: parse(help)?, unit: parse(unit)? })
}

/// Refuses a series with more labels than are worth decoding.
pub(super) fn check_label_count(pairs: &[(&str, &str)]) -> Result<(), RefusalCause> {
    if pairs.len() > MAX_DECODED_LABELS {
        return Err((RefusalReason::LabelLimit, format!("more than {MAX_DECODED_LABELS} labels on one series")));
    }
    Ok(())
}

/// Returns the name or value of a label as text.
pub(super) fn utf8<'a>(bytes: &'a [u8], part: &str) -> Result<&'a str, RefusalCause> {
    std::str::from_utf8(bytes).map_err(|_| (RefusalReason::Malformed, format!("a label {part} is not UTF-8")))
}

/// Refuses a series with a repeated label name, which is ambiguous.
pub(super) fn check_unique_names(pairs: &[(&str, &str)]) -> Result<(), RefusalCause> {
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err((RefusalReason::BadLabels, "a label name is repeated in one series".into()));
    }
    Ok(())
}
