//! Metrics: every data point becomes the series that Prometheus would make of it.
//!
//! ```text
//! gauge, sum            one series                 {name}
//! histogram             {name}_bucket{le=…}, {name}_sum, {name}_count
//! exponential histogram one native histogram       {name}
//! summary               {name}{quantile=…}, {name}_sum, {name}_count
//! resource              target_info                with the attributes that no series carries
//! ```
//!
//! What counts from one export to the next (delta temporality) is kept as it came, under the label
//! `__temporality__="delta"`: to add it up needs state, and decoding has none.

use std::collections::{BTreeMap, BTreeSet};

use wardroom_domain::batch::STALE_NAN_BITS;
use wardroom_domain::labels::NAME;
use wardroom_domain::{Buckets, Exemplar, Labels, MetricMetadata, NativeHistogram, RefusalReason, Sample};
use wardroom_edge::Inflated;

use super::attributes::pairs;
use super::logs::hex;
use super::names::{self, Kind};
use crate::admit::refuse;
use crate::protobuf::{Broken, Field, Message, push, unzigzag};
use crate::series::{Denial, Found, Text, Writing, key_of};
use crate::source::MAX_RECORDS;
use crate::{Decoded, RequestHead};

/// Which series of a data point; from [`FIRST`] on its bounds or quantiles.
const VALUE: u32 = 0;
const SUM: u32 = 1;
const COUNT: u32 = 2;
const TARGET: u32 = 3;
const FIRST: u32 = 16;

/// Resource attributes that every series carries; the others stand in `target_info`.
const PROMOTED: [&str; 9] = [
    "service.name",
    "deployment.environment.name",
    "host.name",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.deployment.name",
    "k8s.pod.name",
    "k8s.container.name",
    "validator_id",
];

/// Reads an `ExportMetricsServiceRequest`.
pub(super) fn read_request(plain: Inflated, head: &RequestHead) -> Result<Decoded, Broken> {
    let guess = (plain.bytes().len() / 128).min(MAX_RECORDS);
    let mut reader = Reader {
        found: Found::with_capacity(guess),
        parts: Vec::with_capacity(guess),
        positions: Vec::with_capacity(guess),
        of_histograms: Vec::new(),
        decoded: Decoded::default(),
        told: BTreeSet::new(),
        scratch: Vec::with_capacity(512),
        next: 0,
        received_ms: head.received_at.millis(),
    };
    let mut request = Message::new(plain.bytes());
    while let Some((number, field)) = request.next()? {
        if let (1, Field::Bytes(start, bytes)) = (number, field) {
            reader.resource(Part { start, bytes })?;
        }
    }
    let Reader { found, parts, mut positions, of_histograms, mut decoded, .. } = reader;
    positions.extend(of_histograms);
    decoded.positions = positions;
    decoded.metrics = found.named(Text { plain, symbols: parts }, read_labels);
    Ok(decoded)
}

/// A message within the request, and where it begins there.
#[derive(Clone, Copy)]
struct Part<'a> {
    start: usize,
    bytes: &'a [u8],
}

impl<'a> Part<'a> {
    const NONE: Self = Self { start: 0, bytes: &[] };

    fn within(self, start: usize, bytes: &'a [u8]) -> Self {
        Self { start: self.start + start, bytes }
    }

    const fn span(self) -> (u32, u32) {
        (self.start as u32, (self.start + self.bytes.len()) as u32)
    }
}

/// A resource or metric, and the key of what it says of its series.
#[derive(Clone, Copy)]
struct Keyed<'a> {
    part: Part<'a>,
    key: u128,
}

struct Reader<'a> {
    found: Found,
    /// For each data point: its resource, its metric, itself.
    parts: Vec<(u32, u32)>,
    /// For each sample the number of its data point.
    positions: Vec<u32>,
    of_histograms: Vec<u32>,
    decoded: Decoded,
    /// Metrics whose metadata was told.
    told: BTreeSet<&'a [u8]>,
    scratch: Vec<u8>,
    /// Number of the next data point.
    next: u32,
    received_ms: i64,
}

/// What a metric says of itself.
#[derive(Clone, Copy, Default)]
struct Described<'a> {
    name: &'a [u8],
    unit: &'a [u8],
    help: &'a [u8],
    /// The number of the field that holds its data: 5 gauge, 7 sum, 9 histogram, 10 exponential, 11 summary.
    data: u64,
    delta: bool,
    monotonic: bool,
}

impl<'a> Reader<'a> {
    fn resource(&mut self, group: Part<'a>) -> Result<(), Broken> {
        let mut resource = Part::NONE;
        let mut fields = Message::new(group.bytes);
        while let Some((number, field)) = fields.next()? {
            if let (1, Field::Bytes(start, bytes)) = (number, field) {
                resource = group.within(start, bytes);
            }
        }
        let resource = Keyed { part: resource, key: key_of(resource.bytes, Writing::OtlpPart) };
        let (first_point, first_sample) = (self.next, self.found.samples.len());
        let mut fields = Message::new(group.bytes);
        while let Some((number, field)) = fields.next()? {
            let (2, Field::Bytes(start, bytes)) = (number, field) else { continue };
            let scope = group.within(start, bytes);
            let mut metrics = Message::new(bytes);
            while let Some((number, field)) = metrics.next()? {
                if let (2, Field::Bytes(start, bytes)) = (number, field) {
                    self.metric(resource, scope.within(start, bytes))?;
                }
            }
        }
        let newest = self.found.samples.get(first_sample..).unwrap_or_default().iter().map(|sample| sample.ts_ms).max();
        if let Some(ts_ms) = newest.filter(|_| !resource.part.bytes.is_empty()) {
            self.parts.extend([resource.part.span(), (0, 0), (0, 0)]);
            self.series(first_point, TARGET, resource.key, Sample { ts_ms, value: 1.0 })?;
        }
        Ok(())
    }

    fn metric(&mut self, resource: Keyed<'a>, metric: Part<'a>) -> Result<(), Broken> {
        let (described, data) = describe(metric)?;
        if described.help.len() + described.unit.len() > 0 && self.told.insert(described.name) {
            self.decoded.metadata.extend(metadata(described));
        }
        self.scratch.clear();
        for text in [described.name, described.unit] {
            self.scratch.extend((text.len() as u32).to_le_bytes());
            self.scratch.extend(text);
        }
        let flags = [described.data as u8, u8::from(described.delta), u8::from(described.monotonic)];
        self.scratch.extend(flags);
        let metric = Keyed { part: metric, key: key_of(&self.scratch, Writing::OtlpPart) };
        let mut points = Message::new(data.bytes);
        while let Some((number, field)) = points.next()? {
            let (1, Field::Bytes(start, bytes)) = (number, field) else { continue };
            let point = data.within(start, bytes);
            self.parts.extend([resource.part.span(), metric.part.span(), point.span()]);
            let attributes = self.attributes(point.bytes, attributes_field(described.data))?;
            let key = joined([resource.key, metric.key, attributes]);
            match described.data {
                5 | 7 => self.number(point.bytes, key)?,
                9 => self.histogram(point.bytes, key)?,
                10 => self.exponential(point.bytes, key)?,
                11 => self.summary(point.bytes, key)?,
                _ => {}
            }
            self.next += 1;
            if self.next as usize > MAX_RECORDS {
                return Err(Broken::TooMany);
            }
        }
        Ok(())
    }

    /// The key of a data point's attributes.
    fn attributes(&mut self, point: &[u8], field: u64) -> Result<u128, Broken> {
        self.scratch.clear();
        let mut fields = Message::new(point);
        while let Some((number, value)) = fields.next()? {
            if let (true, Field::Bytes(_, attribute)) = (number == field, value) {
                self.scratch.extend((attribute.len() as u32).to_le_bytes());
                self.scratch.extend(attribute);
            }
        }
        Ok(key_of(&self.scratch, Writing::OtlpPart))
    }

    /// `NumberDataPoint`.
    fn number(&mut self, point: &'a [u8], key: u128) -> Result<(), Broken> {
        let (mut at, mut value, mut flags) = (0, f64::NAN, 0);
        let series = self.found.len();
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (3, Field::Fixed64(nanos)) => at = nanos,
                (4, Field::Fixed64(bits)) => value = f64::from_bits(bits),
                (5, Field::Bytes(_, exemplar)) => self.exemplar(exemplar, |_| series)?,
                (6, Field::Fixed64(bits)) => value = bits.cast_signed() as f64,
                (8, Field::Varint(bits)) => flags = bits,
                _ => {}
            }
        }
        let value = recorded(value, flags);
        let sample = Sample { ts_ms: self.moment(at), value };
        self.series(self.next, VALUE, key, sample)
    }

    /// `HistogramDataPoint`.
    fn histogram(&mut self, point: &'a [u8], key: u128) -> Result<(), Broken> {
        let (mut at, mut count, mut sum, mut flags) = (0, 0, None, 0);
        let (mut counts, mut bounds) = (Vec::new(), Vec::new());
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (3, Field::Fixed64(nanos)) => at = nanos,
                (4, Field::Fixed64(number)) => count = number,
                (5, Field::Fixed64(bits)) => sum = Some(f64::from_bits(bits)),
                (6, field) => field.each_fixed64(|count| push(&mut counts, count))?,
                (7, field) => field.each_fixed64(|bits| push(&mut bounds, f64::from_bits(bits)))?,
                (10, Field::Varint(bits)) => flags = bits,
                _ => {}
            }
        }
        let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || (!counts.is_empty() && counts.len() != bounds.len() + 1) {
            self.refuse("bucket_counts must be one more than explicit_bounds, and those must ascend");
            return Ok(());
        }
        let first = self.found.len();
        let ts_ms = self.moment(at);
        let sample = |value: u64| Sample { ts_ms, value: recorded(value as f64, flags) };
        let mut below = 0_u64;
        for (place, bound) in (FIRST..).zip(&bounds) {
            below = below.saturating_add(counts.get((place - FIRST) as usize).copied().unwrap_or_default());
            self.series(self.next, place, bounded(key, *bound), sample(below))?;
        }
        let infinite = FIRST + bounds.len() as u32;
        self.series(self.next, infinite, bounded(key, f64::INFINITY), sample(count))?;
        self.series(self.next, COUNT, key, sample(count))?;
        if let Some(sum) = sum {
            self.series(self.next, SUM, key, Sample { ts_ms, value: recorded(sum, flags) })?;
        }
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            if let (8, Field::Bytes(_, exemplar)) = (number, field) {
                self.exemplar(exemplar, |value| first + bounds.partition_point(|bound| *bound < value) as u32)?;
            }
        }
        Ok(())
    }

    /// `ExponentialHistogramDataPoint`.
    fn exponential(&mut self, point: &'a [u8], key: u128) -> Result<(), Broken> {
        let (mut at, mut flags, mut scale) = (0, 0, 0);
        let (mut positive, mut negative) = (Part::NONE, Part::NONE);
        let mut histogram = NativeHistogram::default();
        let series = self.found.len();
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (3, Field::Fixed64(nanos)) => at = nanos,
                (4, Field::Fixed64(number)) => histogram.count = number as f64,
                (5, Field::Fixed64(bits)) => histogram.sum = f64::from_bits(bits),
                (6, Field::Varint(number)) => scale = unzigzag(number),
                (7, Field::Fixed64(number)) => histogram.zero_count = number as f64,
                (8, Field::Bytes(_, bytes)) => positive = Part { start: 0, bytes },
                (9, Field::Bytes(_, bytes)) => negative = Part { start: 0, bytes },
                (10, Field::Varint(bits)) => flags = bits,
                (11, Field::Bytes(_, exemplar)) => self.exemplar(exemplar, |_| series)?,
                (14, Field::Fixed64(bits)) => histogram.zero_threshold = f64::from_bits(bits),
                _ => {}
            }
        }
        if !(-4..=20).contains(&scale) {
            self.refuse("scale must be -4 to 20");
            return Ok(());
        }
        // Prometheus' finest resolution is 8: above it, buckets are joined.
        let down = (scale - 8).max(0);
        histogram.schema = (scale - down) as i32;
        histogram.positive = buckets(positive.bytes, down)?;
        histogram.negative = buckets(negative.bytes, down)?;
        histogram.ts_ms = self.moment(at);
        histogram.sum = recorded(histogram.sum, flags);
        self.found.keys.push(key);
        self.found.counts.push(0);
        push(&mut self.found.spans, (self.next, VALUE))?;
        self.of_histograms.push(self.next);
        push(&mut self.found.histograms, (series, histogram))
    }

    /// `SummaryDataPoint`.
    fn summary(&mut self, point: &'a [u8], key: u128) -> Result<(), Broken> {
        let (mut at, mut count, mut sum, mut flags) = (0, 0, 0.0, 0);
        let mut quantiles = Vec::new();
        let mut fields = Message::new(point);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (3, Field::Fixed64(nanos)) => at = nanos,
                (4, Field::Fixed64(number)) => count = number,
                (5, Field::Fixed64(bits)) => sum = f64::from_bits(bits),
                (6, Field::Bytes(_, quantile)) => push(&mut quantiles, read_quantile(quantile)?)?,
                (8, Field::Varint(bits)) => flags = bits,
                _ => {}
            }
        }
        let ts_ms = self.moment(at);
        for (place, (quantile, value)) in (FIRST..).zip(quantiles) {
            let sample = Sample { ts_ms, value: recorded(value, flags) };
            self.series(self.next, place, bounded(key, quantile), sample)?;
        }
        self.series(self.next, COUNT, key, Sample { ts_ms, value: recorded(count as f64, flags) })?;
        self.series(self.next, SUM, key, Sample { ts_ms, value: recorded(sum, flags) })
    }

    /// `Exemplar`, of the series that `place` says for its value.
    fn exemplar(&mut self, bytes: &[u8], place: impl FnOnce(f64) -> u32) -> Result<(), Broken> {
        let (mut at, mut value, mut ids) = (0, f64::NAN, Vec::new());
        let mut fields = Message::new(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (2, Field::Fixed64(nanos)) => at = nanos,
                (3, Field::Fixed64(bits)) => value = f64::from_bits(bits),
                (4, Field::Bytes(_, id)) => ids.push(("span_id", hex(id))),
                (5, Field::Bytes(_, id)) => ids.push(("trace_id", hex(id))),
                (6, Field::Fixed64(bits)) => value = bits.cast_signed() as f64,
                _ => {}
            }
        }
        let filtered = pairs(bytes, 7)?;
        let own = filtered.iter().map(|(key, value)| (names::label(key), value.to_string()));
        let all = ids.into_iter().map(|(name, id)| (name.to_owned(), id)).chain(own).collect();
        let exemplar = Exemplar { labels: Labels::new(all), value, ts_ms: self.moment(at) };
        push(&mut self.found.exemplars, (place(value), exemplar))
    }

    /// Adds a series of the newest data point.
    fn series(&mut self, point: u32, place: u32, key: u128, sample: Sample) -> Result<(), Broken> {
        let parts = (self.parts.len() / 3) as u32 - 1;
        self.found.keys.push(joined([key, u128::from(place.min(FIRST))]));
        self.found.counts.push(1);
        self.found.spans.push((parts, place));
        self.positions.push(point);
        push(&mut self.found.samples, sample)
    }

    fn refuse(&mut self, detail: &str) {
        refuse(&mut self.decoded.refused, self.next, RefusalReason::BadValue, detail.to_owned());
    }

    /// In milliseconds; a sender that does not know the time leaves it to us.
    fn moment(&self, nanos: u64) -> i64 {
        if nanos == 0 { self.received_ms } else { (nanos / 1_000_000).cast_signed() }
    }
}

/// A value, or the staleness marker where the sender says that there is none.
const fn recorded(value: f64, flags: u64) -> f64 {
    if flags & 1 == 1 { f64::from_bits(STALE_NAN_BITS) } else { value }
}

/// One key of several.
fn joined<const N: usize>(keys: [u128; N]) -> u128 {
    key_of(keys.map(u128::to_le_bytes).as_flattened(), Writing::Otlp)
}

/// The key of the series with this bound or quantile.
fn bounded(key: u128, bound: f64) -> u128 {
    joined([key, u128::from(bound.to_bits())])
}

/// In which field a kind of data point has its attributes.
const fn attributes_field(data: u64) -> u64 {
    match data {
        9 => 9,
        10 => 1,
        _ => 7,
    }
}

/// What a `Metric` says of itself, and its data.
fn describe(metric: Part<'_>) -> Result<(Described<'_>, Part<'_>), Broken> {
    let (mut described, mut data) = (Described::default(), Part::NONE);
    let mut fields = Message::new(metric.bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(_, bytes)) => described.name = bytes,
            (2, Field::Bytes(_, bytes)) => described.help = bytes,
            (3, Field::Bytes(_, bytes)) => described.unit = bytes,
            (5 | 7 | 9 | 10 | 11, Field::Bytes(start, bytes)) => {
                (described.data, data) = (number, metric.within(start, bytes));
            }
            _ => {}
        }
    }
    let mut fields = Message::new(data.bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (2, Field::Varint(temporality)) => described.delta = temporality == 1,
            (3, Field::Varint(monotonic)) => described.monotonic = monotonic != 0,
            _ => {}
        }
    }
    Ok((described, data))
}

impl Described<'_> {
    fn name(&self) -> String {
        let text = |bytes| String::from_utf8_lossy(bytes);
        let kind = match self.data {
            5 => Kind::Gauge,
            7 if self.monotonic && !self.delta => Kind::Counter,
            _ => Kind::Other,
        };
        names::metric(&text(self.name), &text(self.unit), kind)
    }
}

fn metadata(described: Described<'_>) -> Option<MetricMetadata> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().filter(|text| text.len() <= 4096).map(str::to_owned);
    let kind = match described.data {
        7 if described.monotonic => "counter",
        5 | 7 => "gauge",
        9 | 10 => "histogram",
        11 => "summary",
        _ => return None,
    };
    Some(MetricMetadata { family: described.name(), kind, help: text(described.help)?, unit: text(described.unit)? })
}

fn read_quantile(bytes: &[u8]) -> Result<(f64, f64), Broken> {
    let mut found = (0.0, 0.0);
    let mut fields = Message::new(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Fixed64(bits)) => found.0 = f64::from_bits(bits),
            (2, Field::Fixed64(bits)) => found.1 = f64::from_bits(bits),
            _ => {}
        }
    }
    Ok(found)
}

/// `Buckets` of an exponential histogram. Its bucket `i` begins where Prometheus' bucket `i + 1` does.
fn buckets(bytes: &[u8], down: i64) -> Result<Buckets, Broken> {
    let (mut offset, mut counts) = (0, Vec::new());
    let mut fields = Message::new(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Varint(number)) => offset = unzigzag(number),
            (2, field) => field.each_varint(|count| push(&mut counts, count as f64))?,
            _ => {}
        }
    }
    // Senders keep empty buckets at both ends.
    counts.truncate(counts.iter().rposition(|count| *count > 0.0).map_or(0, |last| last + 1));
    let empty = counts.iter().position(|count| *count > 0.0).unwrap_or_default();
    counts.drain(..empty);
    let offset = (offset + empty as i64).clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    let index = |at: usize| ((offset + at as i64) >> down) + 1;
    let mut found = Buckets::default();
    for (at, count) in counts.iter().enumerate() {
        let fresh = at == 0 || index(at) != index(at - 1);
        match found.counts.last_mut().filter(|_| !fresh) {
            Some(last) => *last += count,
            None => found.counts.push(*count),
        }
    }
    if !found.counts.is_empty() {
        found.spans.push((index(0) as i32, found.counts.len() as u32));
    }
    Ok(found)
}

/// The labels of one series of a data point.
fn read_labels(text: &Text, (point, place): (u32, u32)) -> Result<Labels, Denial> {
    let damaged = |broken: Broken| (RefusalReason::Malformed, broken.to_string());
    let part = |which: u64| text.symbol(u64::from(point) * 3 + which).unwrap_or_default();
    let (described, _) = describe(Part { start: 0, bytes: part(1) }).map_err(damaged)?;
    let resource = pairs(part(0), 1).map_err(damaged)?;
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let own =
        if place == TARGET { Vec::new() } else { pairs(part(2), attributes_field(described.data)).map_err(damaged)? };
    let information = resource.iter().filter(|(key, _)| place == TARGET && !promoted(key));
    for (key, value) in own.iter().chain(information) {
        // Two attributes that are spelt alike here are kept both.
        let known = labels.entry(names::label(key)).or_default();
        if !known.is_empty() {
            known.push(';');
        }
        known.push_str(value);
    }
    let of = |key: &str| resource.iter().find(|(known, _)| known == key).map(|(_, value)| value.to_string());
    if let Some(service) = of("service.name") {
        let job = of("service.namespace").map_or_else(|| service.clone(), |space| format!("{space}/{service}"));
        labels.insert("job".into(), job);
    }
    labels.extend(of("service.instance.id").map(|instance| ("instance".into(), instance)));
    labels.extend(PROMOTED.iter().filter_map(|key| Some((names::label(key), of(key)?))));
    if place == TARGET {
        labels.insert(NAME.into(), "target_info".into());
        return Ok(Labels::new(labels.into_iter().collect()));
    }
    if described.delta {
        labels.insert("__temporality__".into(), "delta".into());
    }
    let mut name = described.name();
    if name.is_empty() {
        return Err((RefusalReason::BadLabels, "a metric has no name".into()));
    }
    match place {
        SUM => name.push_str("_sum"),
        COUNT => name.push_str("_count"),
        VALUE => {}
        _ if described.data == 9 => {
            labels.insert("le".into(), nth_bound(part(2), place - FIRST).map_err(damaged)?);
            name.push_str("_bucket");
        }
        _ => {
            labels.insert("quantile".into(), nth_quantile(part(2), place - FIRST).map_err(damaged)?);
        }
    }
    labels.insert(NAME.into(), name);
    Ok(Labels::new(labels.into_iter().collect()))
}

fn promoted(key: &str) -> bool {
    PROMOTED.contains(&key) || ["service.namespace", "service.instance.id"].contains(&key)
}

fn nth_bound(point: &[u8], at: u32) -> Result<String, Broken> {
    let (mut seen, mut bound) = (0, f64::INFINITY);
    let mut fields = Message::new(point);
    while let Some((number, field)) = fields.next()? {
        if number == 7 {
            field.each_fixed64(|bits| {
                bound = if seen == at { f64::from_bits(bits) } else { bound };
                seen += 1;
                Ok(())
            })?;
        }
    }
    Ok(if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() })
}

fn nth_quantile(point: &[u8], at: u32) -> Result<String, Broken> {
    let mut seen = 0;
    let mut fields = Message::new(point);
    while let Some((number, field)) = fields.next()? {
        if let (6, Field::Bytes(_, quantile)) = (number, field) {
            if seen == at {
                return Ok(read_quantile(quantile)?.0.to_string());
            }
            seen += 1;
        }
    }
    Ok(String::new())
}
