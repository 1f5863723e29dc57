//! OTLP metrics: each data point becomes the series that Prometheus would create from it.
//!
//! ```text
//! gauge, sum            one series                 {name}
//! histogram             {name}_bucket{le=…}, {name}_sum, {name}_count
//! exponential histogram one native histogram       {name}
//! summary               {name}{quantile=…}, {name}_sum, {name}_count
//! resource              target_info                with the attributes that are not on the series
//! scope                 labels otel_scope_…        on every series
//! ```
//!
//! Values of delta temporality are stored unchanged with the label `__temporality__="delta"`: accumulating them would
//! need state, and decoding is stateless.

use std::collections::BTreeSet;

use wardroom_domain::sample::STALE_NAN_BITS;
use wardroom_domain::{Buckets, Exemplar, Labels, NativeHistogram, RefusalReason, Sample};
use wardroom_edge::InflatedBody;

use super::attributes::{hex_id, read_attributes};
use super::metric_info::{SubMessage, attributes_field, metadata, read_metric_info, read_quantile};
use super::prometheus_names::label_name;
use super::series_labels::{
    COUNT_SERIES, FIRST_BUCKET_SERIES, PARTS, SUM_SERIES, TARGET_INFO_SERIES, VALUE_SERIES, read_labels,
};
use crate::decode::decoded::Decoded;
use crate::decode::failures::MAX_RECORDS;
use crate::decode::protobuf::{DecodeError, Field, Message, push_bounded, unzigzag};
use crate::decode::refusals::push_refusal;
use crate::decode::series_key::{LabelEncoding, series_key};
use crate::decode::wire_metrics::{PlainBody, SeriesColumns};
use crate::source::RequestHead;

/// Maximum number of spans in the table of parts: as many scopes and resources as data points. An empty scope takes two
/// bytes in a request.
const MAX_PARTS: usize = 3 * MAX_RECORDS * PARTS;

/// Reads an `ExportMetricsServiceRequest`.
pub(super) fn read_request(plain: InflatedBody, head: &RequestHead) -> Result<Decoded, DecodeError> {
    let capacity = (plain.bytes().len() / 128).min(MAX_RECORDS);
    let mut reader = MetricsReader {
        columns: SeriesColumns::with_capacity(capacity),
        parts: Vec::with_capacity(capacity),
        positions: Vec::with_capacity(capacity),
        histogram_positions: Vec::new(),
        decoded: Decoded::default(),
        described_metrics: BTreeSet::new(),
        scratch: Vec::with_capacity(512),
        next_point: 0,
        received_ms: head.received_at.millis(),
    };
    let mut request = Message::new(plain.bytes());
    while let Some((number, field)) = request.next()? {
        if let (1, Field::Bytes(start, bytes)) = (number, field) {
            reader.read_resource(SubMessage { start, bytes })?;
        }
    }
    let MetricsReader { columns, parts, mut positions, histogram_positions, mut decoded, .. } = reader;
    positions.extend(histogram_positions);
    decoded.positions = positions;
    decoded.metrics = columns.into_metrics(PlainBody { plain, symbols: parts }, read_labels);
    Ok(decoded)
}

/// A resource with a scope: the entry of their parts, and the key of their part of the labels.
#[derive(Clone, Copy)]
struct Group {
    entry: u32,
    key: u128,
}

/// Collects the series of a request.
struct MetricsReader<'a> {
    columns: SeriesColumns,
    /// Entries of [`PARTS`] spans, for scopes and data points.
    parts: Vec<(u32, u32)>,
    /// For each sample, the number of its data point.
    positions: Vec<u32>,
    /// For each native histogram, the number of its data point.
    histogram_positions: Vec<u32>,
    decoded: Decoded,
    /// Names of the metrics whose metadata was read.
    described_metrics: BTreeSet<&'a [u8]>,
    scratch: Vec<u8>,
    /// Number of the current data point.
    next_point: u32,
    received_ms: i64,
}

impl<'a> MetricsReader<'a> {
    fn read_resource(&mut self, group: SubMessage<'a>) -> Result<(), DecodeError> {
        let mut resource = SubMessage::EMPTY;
        let mut fields = Message::new(group.bytes);
        while let Some((number, field)) = fields.next()? {
            if let (1, Field::Bytes(start, bytes)) = (number, field) {
                resource = group.submessage(start, bytes);
            }
        }
        let resource_key = series_key(resource.bytes, LabelEncoding::OtlpPart);
        let first_point = self.next_point;
        let (first_sample, first_histogram) = (self.columns.samples.len(), self.columns.histograms.len());
        let mut fields = Message::new(group.bytes);
        while let Some((number, field)) = fields.next()? {
            if let (2, Field::Bytes(start, bytes)) = (number, field) {
                self.read_scope(resource, resource_key, group.submessage(start, bytes))?;
            }
        }
        let samples = self.columns.samples.get(first_sample..).unwrap_or_default().iter().map(|sample| sample.ts_ms);
        let histograms = self.columns.histograms.get(first_histogram..).unwrap_or_default();
        let newest = samples.chain(histograms.iter().map(|(_, histogram)| histogram.ts_ms)).max();
        if let Some(ts_ms) = newest.filter(|_| !resource.bytes.is_empty()) {
            let entry = self.add_parts([resource.span(), (0, 0), (0, 0)])?;
            self.add_parts([(entry, 0), (0, 0), (0, 0)])?;
            self.add_series(first_point, TARGET_INFO_SERIES, resource_key, Sample { ts_ms, value: 1.0 })?;
        }
        Ok(())
    }

    /// Reads a `ScopeMetrics`.
    fn read_scope(
        &mut self,
        resource: SubMessage<'a>,
        resource_key: u128,
        group: SubMessage<'a>,
    ) -> Result<(), DecodeError> {
        let (mut scope, mut schema_url) = (SubMessage::EMPTY, SubMessage::EMPTY);
        let mut fields = Message::new(group.bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(start, bytes)) => scope = group.submessage(start, bytes),
                (3, Field::Bytes(start, bytes)) => schema_url = group.submessage(start, bytes),
                _ => {}
            }
        }
        let entry = self.add_parts([resource.span(), scope.span(), schema_url.span()])?;
        let keys = [scope, schema_url].map(|part| series_key(part.bytes, LabelEncoding::OtlpPart));
        let group_key = combined_key([resource_key, keys[0], keys[1]]);
        let mut metrics = Message::new(group.bytes);
        while let Some((number, field)) = metrics.next()? {
            if let (2, Field::Bytes(start, bytes)) = (number, field) {
                self.read_metric(Group { entry, key: group_key }, group.submessage(start, bytes))?;
            }
        }
        Ok(())
    }

    /// Adds an entry of parts and returns its index.
    fn add_parts(&mut self, parts: [(u32, u32); PARTS]) -> Result<u32, DecodeError> {
        if self.parts.len() >= MAX_PARTS {
            return Err(DecodeError::TooManyRecords);
        }
        self.parts.extend(parts);
        Ok(self.last_entry())
    }

    /// Returns the index of the last entry of parts, which is the current data point's.
    fn last_entry(&self) -> u32 {
        (self.parts.len() / PARTS).saturating_sub(1) as u32
    }

    fn read_metric(&mut self, group: Group, metric: SubMessage<'a>) -> Result<(), DecodeError> {
        let (info, data) = read_metric_info(metric)?;
        if info.help.len() + info.unit.len() > 0 && self.described_metrics.insert(info.name) {
            self.decoded.metadata.extend(metadata(info));
        }
        self.scratch.clear();
        for text in [info.name, info.unit] {
            self.scratch.extend((text.len() as u32).to_le_bytes());
            self.scratch.extend(text);
        }
        let flags = [info.data as u8, u8::from(info.delta), u8::from(info.monotonic)];
        self.scratch.extend(flags);
        let metric_key = series_key(&self.scratch, LabelEncoding::OtlpPart);
        let mut points = Message::new(data.bytes);
        while let Some((number, field)) = points.next()? {
            let (1, Field::Bytes(start, bytes)) = (number, field) else { continue };
            let point = data.submessage(start, bytes);
            self.add_parts([(group.entry, 0), metric.span(), point.span()])?;
            let attributes = self.attributes_key(point.bytes, attributes_field(info.data))?;
            let key = combined_key([group.key, metric_key, attributes]);
            match info.data {
                5 | 7 => self.read_number(point.bytes, key)?,
                9 => self.read_histogram(point.bytes, key)?,
                10 => self.read_exponential_histogram(point.bytes, key)?,
                11 => self.read_summary(point.bytes, key)?,
                _ => {}
            }
            self.next_point += 1;
            if self.next_point as usize > MAX_RECORDS {
                return Err(DecodeError::TooManyRecords);
            }
        }
        Ok(())
    }

    /// Returns the key of a data point's attributes.
    fn attributes_key(&mut self, point: &[u8], field: u64) -> Result<u128, DecodeError> {
        self.scratch.clear();
        let mut fields = Message::new(point);
        while let Some((number, value)) = fields.next()? {
            if let (true, Field::Bytes(_, attribute)) = (number == field, value) {
                self.scratch.extend((attribute.len() as u32).to_le_bytes());
                self.scratch.extend(attribute);
            }
        }
        Ok(series_key(&self.scratch, LabelEncoding::OtlpPart))
    }

    /// Reads a `NumberDataPoint`.
    fn read_number(&mut self, point: &'a [u8], key: u128) -> Result<(), DecodeError> {
        let (mut time_nanos, mut value, mut flags) = (0, f64::NAN, 0);
        let series = self.columns.len();
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (3, Field::Fixed64(nanos)) => time_nanos = nanos,
                (4, Field::Fixed64(bits)) => value = f64::from_bits(bits),
                (5, Field::Bytes(_, exemplar)) => self.read_exemplar(exemplar, |_| series)?,
                (6, Field::Fixed64(bits)) => value = bits.cast_signed() as f64,
                (8, Field::Varint(bits)) => flags = bits,
                _ => {}
            }
        }
        let value = value_or_stale(value, flags);
        let sample = Sample { ts_ms: self.timestamp_ms(time_nanos), value };
        self.add_series(self.next_point, VALUE_SERIES, key, sample)
    }

    /// Reads a `HistogramDataPoint`.
    fn read_histogram(&mut self, point: &'a [u8], key: u128) -> Result<(), DecodeError> {
        let (mut time_nanos, mut count, mut sum, mut flags) = (0, 0, None, 0);
        let (mut counts, mut bounds) = (Vec::new(), Vec::new());
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (3, Field::Fixed64(nanos)) => time_nanos = nanos,
                (4, Field::Fixed64(number)) => count = number,
                (5, Field::Fixed64(bits)) => sum = Some(f64::from_bits(bits)),
                (6, field) => field.for_each_fixed64(|count| push_bounded(&mut counts, count))?,
                (7, field) => field.for_each_fixed64(|bits| push_bounded(&mut bounds, f64::from_bits(bits)))?,
                (10, Field::Varint(bits)) => flags = bits,
                _ => {}
            }
        }
        let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || (!counts.is_empty() && counts.len() != bounds.len() + 1) {
            self.refuse("bucket_counts must have one element more than explicit_bounds, which must ascend");
            return Ok(());
        }
        let first = self.columns.len();
        let ts_ms = self.timestamp_ms(time_nanos);
        let sample = |value: u64| Sample { ts_ms, value: value_or_stale(value as f64, flags) };
        let mut below = 0_u64;
        for (series_number, bound) in (FIRST_BUCKET_SERIES..).zip(&bounds) {
            below = below.saturating_add(
                counts.get((series_number - FIRST_BUCKET_SERIES) as usize).copied().unwrap_or_default(),
            );
            self.add_series(self.next_point, series_number, key_with_bound(key, *bound), sample(below))?;
        }
        let infinite = FIRST_BUCKET_SERIES + bounds.len() as u32;
        self.add_series(self.next_point, infinite, key_with_bound(key, f64::INFINITY), sample(count))?;
        self.add_series(self.next_point, COUNT_SERIES, key, sample(count))?;
        if let Some(sum) = sum {
            self.add_series(self.next_point, SUM_SERIES, key, Sample { ts_ms, value: value_or_stale(sum, flags) })?;
        }
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            if let (8, Field::Bytes(_, exemplar)) = (number, field) {
                self.read_exemplar(exemplar, |value| first + bounds.partition_point(|bound| *bound < value) as u32)?;
            }
        }
        Ok(())
    }

    /// Reads an `ExponentialHistogramDataPoint`.
    fn read_exponential_histogram(&mut self, point: &'a [u8], key: u128) -> Result<(), DecodeError> {
        let (mut time_nanos, mut flags, mut scale) = (0, 0, 0);
        let (mut positive, mut negative) = (SubMessage::EMPTY, SubMessage::EMPTY);
        let mut histogram = NativeHistogram::default();
        let series = self.columns.len();
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (3, Field::Fixed64(nanos)) => time_nanos = nanos,
                (4, Field::Fixed64(number)) => histogram.count = number as f64,
                (5, Field::Fixed64(bits)) => histogram.sum = f64::from_bits(bits),
                (6, Field::Varint(number)) => scale = unzigzag(number),
                (7, Field::Fixed64(number)) => histogram.zero_count = number as f64,
                (8, Field::Bytes(_, bytes)) => positive = SubMessage { start: 0, bytes },
                (9, Field::Bytes(_, bytes)) => negative = SubMessage { start: 0, bytes },
                (10, Field::Varint(bits)) => flags = bits,
                (11, Field::Bytes(_, exemplar)) => self.read_exemplar(exemplar, |_| series)?,
                (14, Field::Fixed64(bits)) => histogram.zero_threshold = f64::from_bits(bits),
                _ => {}
            }
        }
        if !(-4..=20).contains(&scale) {
            self.refuse("scale must be -4 to 20");
            return Ok(());
        }
        // The highest resolution of Prometheus is 8: buckets of a higher one are merged.
        let downscale = (scale - 8).max(0);
        histogram.schema = (scale - downscale) as i32;
        histogram.positive = read_buckets(positive.bytes, downscale)?;
        histogram.negative = read_buckets(negative.bytes, downscale)?;
        histogram.ts_ms = self.timestamp_ms(time_nanos);
        histogram.sum = value_or_stale(histogram.sum, flags);
        self.columns.keys.push(key);
        self.columns.counts.push(0);
        let point = self.last_entry();
        push_bounded(&mut self.columns.spans, (point, VALUE_SERIES))?;
        self.histogram_positions.push(self.next_point);
        push_bounded(&mut self.columns.histograms, (series, histogram))
    }

    /// Reads a `SummaryDataPoint`.
    fn read_summary(&mut self, point: &'a [u8], key: u128) -> Result<(), DecodeError> {
        let (mut time_nanos, mut count, mut sum, mut flags) = (0, 0, 0.0, 0);
        let mut quantiles = Vec::new();
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (3, Field::Fixed64(nanos)) => time_nanos = nanos,
                (4, Field::Fixed64(number)) => count = number,
                (5, Field::Fixed64(bits)) => sum = f64::from_bits(bits),
                (6, Field::Bytes(_, quantile)) => push_bounded(&mut quantiles, read_quantile(quantile)?)?,
                (8, Field::Varint(bits)) => flags = bits,
                _ => {}
            }
        }
        let ts_ms = self.timestamp_ms(time_nanos);
        for (series_number, (quantile, value)) in (FIRST_BUCKET_SERIES..).zip(quantiles) {
            let sample = Sample { ts_ms, value: value_or_stale(value, flags) };
            self.add_series(self.next_point, series_number, key_with_bound(key, quantile), sample)?;
        }
        self.add_series(
            self.next_point,
            COUNT_SERIES,
            key,
            Sample { ts_ms, value: value_or_stale(count as f64, flags) },
        )?;
        self.add_series(self.next_point, SUM_SERIES, key, Sample { ts_ms, value: value_or_stale(sum, flags) })
    }

    /// Reads an `Exemplar` and adds it to the series that `series_of` returns for its value.
    fn read_exemplar(&mut self, bytes: &[u8], series_of: impl FnOnce(f64) -> u32) -> Result<(), DecodeError> {
        let (mut time_nanos, mut value, mut ids) = (0, f64::NAN, Vec::new());
        let mut fields = Message::new(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (2, Field::Fixed64(nanos)) => time_nanos = nanos,
                (3, Field::Fixed64(bits)) => value = f64::from_bits(bits),
                (4, Field::Bytes(_, id)) => ids.push(("span_id", hex_id(id))),
                (5, Field::Bytes(_, id)) => ids.push(("trace_id", hex_id(id))),
                (6, Field::Fixed64(bits)) => value = bits.cast_signed() as f64,
                _ => {}
            }
        }
        let filtered = read_attributes(bytes, 7)?;
        let own = filtered.iter().map(|(key, value)| (label_name(key), value.to_string()));
        let all = ids.into_iter().map(|(name, id)| (name.to_owned(), id)).chain(own).collect();
        let exemplar = Exemplar { labels: Labels::new(all), value, ts_ms: self.timestamp_ms(time_nanos) };
        push_bounded(&mut self.columns.exemplars, (series_of(value), exemplar))
    }

    /// Adds a series of the last data point in `parts`.
    fn add_series(&mut self, point: u32, series_number: u32, key: u128, sample: Sample) -> Result<(), DecodeError> {
        let entry = self.last_entry();
        self.columns.keys.push(combined_key([key, u128::from(series_number.min(FIRST_BUCKET_SERIES))]));
        self.columns.counts.push(1);
        self.columns.spans.push((entry, series_number));
        self.positions.push(point);
        push_bounded(&mut self.columns.samples, sample)
    }

    fn refuse(&mut self, detail: &str) {
        push_refusal(&mut self.decoded.refused, self.next_point, RefusalReason::BadValue, detail.to_owned());
    }

    /// Returns a time in milliseconds; the time of arrival for 0, which means unknown.
    fn timestamp_ms(&self, nanos: u64) -> i64 {
        if nanos == 0 { self.received_ms } else { (nanos / 1_000_000).cast_signed() }
    }
}

/// Returns the value, or the staleness marker if the flag "no recorded value" is set.
const fn value_or_stale(value: f64, flags: u64) -> f64 {
    if flags & 1 == 1 { f64::from_bits(STALE_NAN_BITS) } else { value }
}

/// Combines several keys into one.
fn combined_key<const N: usize>(keys: [u128; N]) -> u128 {
    series_key(keys.map(u128::to_le_bytes).as_flattened(), LabelEncoding::Otlp)
}

/// Returns the key of the series with this bound or quantile.
fn key_with_bound(key: u128, bound: f64) -> u128 {
    combined_key([key, u128::from(bound.to_bits())])
}

/// Reads the `Buckets` of an exponential histogram. Bucket `i` is bucket `i + 1` of Prometheus.
fn read_buckets(bytes: &[u8], downscale: i64) -> Result<Buckets, DecodeError> {
    let (mut offset, mut counts) = (0, Vec::new());
    let mut fields = Message::new(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Varint(number)) => offset = unzigzag(number),
            (2, field) => field.for_each_varint(|count| push_bounded(&mut counts, count as f64))?,
            _ => {}
        }
    }
    // Removes empty buckets at both ends.
    counts.truncate(counts.iter().rposition(|count| *count > 0.0).map_or(0, |last| last + 1));
    let empty = counts.iter().position(|count| *count > 0.0).unwrap_or_default();
    counts.drain(..empty);
    let offset = (offset + empty as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    let index = |position: usize| ((offset + position as i64) >> downscale) + 1;
    let mut buckets = Buckets::default();
    for (position, count) in counts.iter().enumerate() {
        let is_new = position == 0 || index(position) != index(position - 1);
        match buckets.counts.last_mut().filter(|_| !is_new) {
            Some(last) => *last += count,
            None => buckets.counts.push(*count),
        }
    }
    if !buckets.counts.is_empty() {
        buckets.spans.push((index(0) as i32, buckets.counts.len() as u32));
    }
    Ok(buckets)
}
