//! The description of an OTLP metric: name, unit, type and metadata.

use wardroom_domain::MetricMetadata;

use super::prometheus_names::{MetricKind, metric_name};
use crate::decode::protobuf::{DecodeError, Field, Message};

/// Maximum length of a help text or unit, in bytes; longer metadata is ignored.
const MAX_METADATA_BYTES: usize = 4096;

/// A message within the request, with its offset.
#[derive(Clone, Copy)]
pub(super) struct SubMessage<'a> {
    pub(super) start: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> SubMessage<'a> {
    pub(super) const EMPTY: Self = Self { start: 0, bytes: &[] };

    /// Returns a message within this one, at an offset from its start.
    pub(super) fn submessage(self, start: usize, bytes: &'a [u8]) -> Self {
        Self { start: self.start + start, bytes }
    }

    /// Returns start and end in the request.
    pub(super) const fn span(self) -> (u32, u32) {
        (self.start as u32, (self.start + self.bytes.len()) as u32)
    }
}

/// The description of a metric.
#[derive(Clone, Copy, Default)]
pub(super) struct MetricInfo<'a> {
    pub(super) name: &'a [u8],
    pub(super) unit: &'a [u8],
    pub(super) help: &'a [u8],
    /// Number of the data field: 5 gauge, 7 sum, 9 histogram, 10 exponential histogram, 11 summary.
    pub(super) data: u64,
    pub(super) delta: bool,
    pub(super) monotonic: bool,
}

/// Reads the description of a `Metric` and returns it with its data message.
pub(super) fn read_metric_info(metric: SubMessage<'_>) -> Result<(MetricInfo<'_>, SubMessage<'_>), DecodeError> {
    let (mut info, mut data) = (MetricInfo::default(), SubMessage::EMPTY);
    let mut fields = Message::new(metric.bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(_, bytes)) => info.name = bytes,
            (2, Field::Bytes(_, bytes)) => info.help = bytes,
            (3, Field::Bytes(_, bytes)) => info.unit = bytes,
            (5 | 7 | 9 | 10 | 11, Field::Bytes(start, bytes)) => {
                (info.data, data) = (number, metric.submessage(start, bytes));
            }
            _ => {}
        }
    }
    let mut fields = Message::new(data.bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (2, Field::Varint(temporality)) => info.delta = temporality == 1,
            (3, Field::Varint(monotonic)) => info.monotonic = monotonic != 0,
            _ => {}
        }
    }
    Ok((info, data))
}

impl MetricInfo<'_> {
    /// Returns the Prometheus name.
    pub(super) fn name(&self) -> String {
        let text = |bytes| String::from_utf8_lossy(bytes);
        let kind = match self.data {
            5 => MetricKind::Gauge,
            7 if self.monotonic && !self.delta => MetricKind::Counter,
            _ => MetricKind::Other,
        };
        metric_name(&text(self.name), &text(self.unit), kind)
    }
}

/// Returns the metadata of the metric; `None` if the metric has no name, or it is not UTF-8 or too long.
pub(super) fn metadata(info: MetricInfo<'_>) -> Option<MetricMetadata> {
    let text = |bytes: &[u8]| {
        std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_METADATA_BYTES).map(str::to_owned)
    };
    let kind = match info.data {
        7 if info.monotonic => "counter",
        5 | 7 => "gauge",
        9 | 10 => "histogram",
        11 => "summary",
        _ => return None,
    };
    let family = Some(info.name()).filter(|family| !family.is_empty())?;
    Some(MetricMetadata { family, kind, help: text(info.help)?, unit: text(info.unit)? })
}

/// Returns the number of the attributes field of a data point.
pub(super) const fn attributes_field(data: u64) -> u64 {
    match data {
        9 => 9,
        10 => 1,
        _ => 7,
    }
}

/// Reads a `ValueAtQuantile`: quantile and value.
pub(super) fn read_quantile(bytes: &[u8]) -> Result<(f64, f64), DecodeError> {
    let mut pair = (0.0, 0.0);
    let mut fields = Message::new(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Fixed64(bits)) => pair.0 = f64::from_bits(bits),
            (2, Field::Fixed64(bits)) => pair.1 = f64::from_bits(bits),
            _ => {}
        }
    }
    Ok(pair)
}
