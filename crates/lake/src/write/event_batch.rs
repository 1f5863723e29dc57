//! Collects requests of a range of the bus, with their logs, spans, events and histograms, into files.

use std::collections::{BTreeMap, HashMap};

use wardroom_domain::canonical::short_hash;
use wardroom_domain::{
    Buckets, Deployment, Entity, Envelope, Exemplar, Labels, LogEntry, NativeHistogram, RefusalReason, Severity, Span,
    TenantId, Timestamp,
};

use crate::error::Error;
use crate::format::data_file::{DataFile, day_of};
use crate::format::row_buffer::{Cell, Lineage, RowBuffer, micros, sub_micro_nanos};
use crate::format::schema::TableSchema;
use crate::format::table_schemas::{
    EVENTS, EXEMPLARS, HISTOGRAMS, LOG_TEMPLATES, LOGS, QUARANTINE, RESET_HINTS, SPANS, TELEMETRY,
};
use crate::write::event_row::EventRow;
use crate::write::pending_rows::PendingRows;

/// Larger bodies are not stored in the table, in bytes.
const MAX_INLINE_BODY_BYTES: usize = 256 << 10;
/// Maximum length of a template's example line, in bytes.
const MAX_EXAMPLE_BYTES: usize = 400;

/// The request that a row comes from.
#[derive(Clone, Debug)]
pub struct RequestOrigin {
    tenant: TenantId,
    offset: u64,
    request: Option<u64>,
    lineage: Lineage,
}

impl RequestOrigin {
    /// A request at this bus offset. `request` is the hash of its body, if duplicates are recognised by it.
    pub fn new(tenant: TenantId, offset: u64, received_at: Timestamp, request: Option<u64>) -> Self {
        Self { tenant, offset, request, lineage: Lineage::new(offset, received_at) }
    }

    /// Sets the hash by which duplicates are recognised.
    pub const fn set_fingerprint(&mut self, request: Option<u64>) {
        self.request = request;
    }

    fn request(&self) -> Cell<'_> {
        self.request.map_or(Cell::Null, |hash| Cell::Long(hash.cast_signed()))
    }
}

/// A parsed log line.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// The log entry.
    pub log: &'a LogEntry,
    /// What wrote it; without a name if that is unknown.
    pub entity: &'a Entity,
    /// Text with `<*>` in place of variable parts.
    pub template: &'a str,
    /// Variable parts, in order.
    pub parameters: &'a [&'a str],
}

/// Bus offset up to which each event table is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffsets(pub(crate) BTreeMap<&'static str, u64>);

impl CommittedOffsets {
    /// Returns the highest committed offset of all tables; 0 if nothing was ever committed.
    pub fn max(&self) -> u64 {
        self.0.values().copied().max().unwrap_or_default()
    }

    /// Returns the tables with the offset up to which each is committed; 0 if it never was.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(table, offset)| (*table, *offset))
    }

    /// Returns whether a table lacks the rows of this offset.
    fn is_missing(&self, table: &TableSchema, offset: u64) -> bool {
        self.0.get(table.name).is_none_or(|committed| offset >= *committed)
    }
}

/// A request as stored on the bus.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedRequest<'a> {
    /// Metadata.
    pub envelope: &'a Envelope,
    /// Body as received; empty if only the metadata is needed.
    pub body: &'a [u8],
    /// Length of the body in bytes.
    pub size: u32,
    /// SHA-256 of the body.
    pub sha256: &'a [u8],
    /// Offset of the first record of the segment that holds it.
    pub segment: u64,
    /// Position of its frame in the segment file.
    pub position: u64,
    /// Length of its frame.
    pub bytes: u64,
}

impl ReceivedRequest<'_> {
    /// Returns the body if it is small, uncompressed JSON.
    fn payload(&self) -> Cell<'_> {
        let Envelope { content_type, content_encoding, .. } = self.envelope;
        let plain = content_type.starts_with("application/json") && content_encoding.is_empty();
        let small = self.body.len() <= MAX_INLINE_BODY_BYTES && plain;
        std::str::from_utf8(self.body).ok().filter(|_| small).map_or(Cell::Null, Cell::Text)
    }
}

struct TemplateCount {
    span_us: (i64, i64),
    severity: Severity,
    text: String,
    example: String,
    lines: i64,
}

/// Rows of a range of the bus. Rows that their table already has are dropped: after a crash some tables may be ahead of
/// others.
pub struct EventBatch {
    committed: CommittedOffsets,
    open: BTreeMap<(&'static str, TenantId, i64), RowBuffer>,
    templates: BTreeMap<(TenantId, i64, Entity, String), TemplateCount>,
    /// Template ids by template text: each is hashed once.
    ids: HashMap<String, String>,
    bytes: usize,
}

impl EventBatch {
    /// Creates an empty batch for tables that are committed up to these offsets.
    pub fn new(committed: CommittedOffsets) -> Self {
        Self { committed, open: BTreeMap::new(), templates: BTreeMap::new(), ids: HashMap::new(), bytes: 0 }
    }

    /// Returns whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.templates.is_empty()
    }

    /// Approximate memory use in bytes.
    pub const fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a request and its refused records. Accepted records are added separately.
    ///
    /// # Errors
    /// Returns an error if the row cannot be encoded.
    pub fn add_request(&mut self, from: &RequestOrigin, received: &ReceivedRequest<'_>) -> Result<(), Error> {
        let Envelope { principal, protocol, content_type, content_encoding, refused, .. } = received.envelope;
        for refusal in refused.iter().filter(|refusal| refusal.reason != RefusalReason::AlreadyAccepted) {
            let records = (u64::from(refusal.first), u64::from(refusal.last));
            self.add_quarantined(from, received, (refusal.reason.as_str(), None), records)?;
        }
        if !self.committed.is_missing(&TELEMETRY, from.offset) {
            return Ok(());
        }
        let (digest, segment) = (to_hex(received.sha256), format!("{:020}.seg", received.segment));
        // Only deployments: log lines have their own table.
        let payload = if protocol == "json_deployment" { received.payload() } else { Cell::Null };
        let cells = [
            Cell::Timestamp(from.lineage.received_us()),
            Cell::Text(principal.as_str()),
            Cell::Text(protocol),
            Cell::Text(content_type),
            Cell::Text(content_encoding),
            Cell::Text(&digest),
            Cell::Long(received.size.into()),
            Cell::Text(&segment),
            Cell::Long(to_i64(received.position)),
            Cell::Long(to_i64(received.bytes)),
            payload,
        ];
        self.bytes += 100 + if matches!(payload, Cell::Text(_)) { received.body.len() } else { 0 };
        self.push(&TELEMETRY, from, day_of(from.lineage.received_us().div_euclid(1000)), (&cells, None))
    }

    /// Adds a request that cannot be decoded.
    ///
    /// # Errors
    /// Returns an error if the row cannot be encoded.
    pub fn add_undecodable(
        &mut self,
        from: &RequestOrigin,
        received: &ReceivedRequest<'_>,
        detail: &str,
    ) -> Result<(), Error> {
        self.add_quarantined(from, received, ("unreadable", Some(detail)), (0, 0))
    }

    fn add_quarantined(
        &mut self,
        from: &RequestOrigin,
        received: &ReceivedRequest<'_>,
        (reason, detail): (&str, Option<&str>),
        (first, last): (u64, u64),
    ) -> Result<(), Error> {
        if !self.committed.is_missing(&QUARANTINE, from.offset) {
            return Ok(());
        }
        let payload = received.payload();
        let cells = [
            Cell::Timestamp(from.lineage.received_us()),
            Cell::Text(received.envelope.principal.as_str()),
            Cell::Text(&received.envelope.protocol),
            Cell::Text(reason),
            detail.map_or(Cell::Null, Cell::Text),
            Cell::Long(to_i64(first)),
            Cell::Long(to_i64(last)),
            payload,
        ];
        self.bytes += if matches!(payload, Cell::Text(_)) { received.body.len() } else { 0 };
        self.push(&QUARANTINE, from, day_of(from.lineage.received_us().div_euclid(1000)), (&cells, None))
    }

    /// Adds a log line. `seq` counts the rows of its request.
    ///
    /// # Errors
    /// Returns an error if the row cannot be encoded.
    pub fn add_log(&mut self, from: &RequestOrigin, seq: i32, line: &LogLine<'_>) -> Result<(), Error> {
        let LogLine { log, entity, template, parameters } = *line;
        let at = micros(log.at);
        let id = match self.ids.get(template) {
            Some(id) => id.clone(),
            None => self.ids.entry(template.to_owned()).or_insert(short_hash(template)).clone(),
        };
        if self.committed.is_missing(&LOGS, from.offset) {
            let cells = [
                Cell::Timestamp(at),
                Cell::Int(sub_micro_nanos(log.at)),
                Cell::Text(&entity.name),
                Cell::Text(log.severity.as_str()),
                Cell::Text(&log.message),
                Cell::Text(&id),
                Cell::Texts(parameters),
                Cell::Labels(&log.labels),
                Cell::Int(seq),
                from.request(),
            ];
            self.bytes += 2 * log.message.len() + log.labels.as_bytes().len() + entity.len();
            self.push(&LOGS, from, day_of(log.at.millis()), (&cells, Some(entity)))?;
        }
        if self.committed.is_missing(&LOG_TEMPLATES, from.offset) {
            let key = (from.tenant.clone(), day_of(log.at.millis()), entity.clone(), id);
            let known = self.templates.entry(key).or_insert_with(|| TemplateCount {
                span_us: (at, at),
                severity: log.severity,
                text: template.to_owned(),
                example: log
                    .message
                    .get(..log.message.floor_char_boundary(MAX_EXAMPLE_BYTES))
                    .unwrap_or_default()
                    .to_owned(),
                lines: 0,
            });
            known.span_us = (known.span_us.0.min(at), known.span_us.1.max(at));
            known.severity = known.severity.max(log.severity);
            known.lines += 1;
        }
        Ok(())
    }

    /// Adds a span of an entity.
    ///
    /// # Errors
    /// Returns an error if the row cannot be encoded.
    pub fn add_span(&mut self, from: &RequestOrigin, seq: i32, span: &Span, entity: &Entity) -> Result<(), Error> {
        if !self.committed.is_missing(&SPANS, from.offset) {
            return Ok(());
        }
        let (trace, id, parent) = (to_hex(&span.trace_id), to_hex(&span.span_id), to_hex(&span.parent_id));
        let at = micros(span.start);
        let cells = [
            Cell::Timestamp(at),
            Cell::Int(sub_micro_nanos(span.start)),
            Cell::Long(span.end.nanos().saturating_sub(span.start.nanos()).max(0)),
            Cell::Text(&trace),
            Cell::Text(&id),
            if span.parent_id == [0; 8] { Cell::Null } else { Cell::Text(&parent) },
            Cell::Text(&entity.name),
            Cell::Text(&span.name),
            Cell::Text(span.kind.as_str()),
            Cell::Boolean(span.failed),
            Cell::Labels(&span.labels),
            Cell::Int(seq),
            from.request(),
        ];
        self.bytes += span.name.len() + span.labels.as_bytes().len() + entity.len();
        // Partitioned by end, which is close to arrival. A start may be on any day, and each day is a file.
        self.push(&SPANS, from, day_of(span.end.millis()), (&cells, Some(entity)))
    }

    /// Adds a deployment.
    ///
    /// # Errors
    /// Returns an error if the row cannot be encoded.
    pub fn add_deployment(&mut self, from: &RequestOrigin, seq: i32, deployment: &Deployment) -> Result<(), Error> {
        if !self.committed.is_missing(&EVENTS, from.offset) {
            return Ok(());
        }
        let row = EventRow::of_deployment(deployment);
        self.bytes += deployment.metadata.as_bytes().len() + row.entity().len();
        let cells = row.cells(seq, from.request());
        self.push(&EVENTS, from, day_of(deployment.at.millis()), (&cells, Some(row.entity())))
    }

    /// Adds a native histogram of a series.
    ///
    /// # Errors
    /// Returns an error if the row cannot be encoded.
    pub fn add_histogram(
        &mut self,
        from: &RequestOrigin,
        seq: i32,
        labels: &Labels,
        histogram: &NativeHistogram,
    ) -> Result<(), Error> {
        if !self.committed.is_missing(&HISTOGRAMS, from.offset) {
            return Ok(());
        }
        let (positive_spans, negative_spans) = (bucket_spans(&histogram.positive), bucket_spans(&histogram.negative));
        let cells = [
            Cell::Timestamp(histogram.ts_ms.saturating_mul(1000)),
            Cell::Text(labels.name()),
            Cell::Labels(labels),
            Cell::Double(histogram.count),
            Cell::Double(histogram.sum),
            Cell::Int(histogram.schema),
            Cell::Double(histogram.zero_threshold),
            Cell::Double(histogram.zero_count),
            Cell::Longs(&positive_spans),
            Cell::Doubles(&histogram.positive.counts),
            Cell::Longs(&negative_spans),
            Cell::Doubles(&histogram.negative.counts),
            Cell::Doubles(&histogram.bounds),
            Cell::Text(reset_hint(histogram.reset_hint)),
            Cell::Int(seq),
            from.request(),
        ];
        let buckets = histogram.positive.counts.len() + histogram.negative.counts.len() + histogram.bounds.len();
        self.bytes += labels.as_bytes().len() + 8 * (buckets + positive_spans.len() + negative_spans.len());
        self.push(&HISTOGRAMS, from, day_of(histogram.ts_ms), (&cells, None))
    }

    /// Adds an exemplar of a series.
    ///
    /// # Errors
    /// Returns an error if the row cannot be encoded.
    pub fn add_exemplar(
        &mut self,
        from: &RequestOrigin,
        seq: i32,
        labels: &Labels,
        exemplar: &Exemplar,
    ) -> Result<(), Error> {
        if !self.committed.is_missing(&EXEMPLARS, from.offset) {
            return Ok(());
        }
        let cells = [
            Cell::Timestamp(exemplar.ts_ms.saturating_mul(1000)),
            Cell::Text(labels.name()),
            Cell::Labels(labels),
            Cell::Labels(&exemplar.labels),
            Cell::Double(exemplar.value),
            Cell::Int(seq),
            from.request(),
        ];
        self.bytes += labels.as_bytes().len() + exemplar.labels.as_bytes().len();
        self.push(&EXEMPLARS, from, day_of(exemplar.ts_ms), (&cells, None))
    }

    fn push(
        &mut self,
        schema: &'static TableSchema,
        from: &RequestOrigin,
        day: i64,
        (cells, entity): (&[Cell<'_>], Option<&Entity>),
    ) -> Result<(), Error> {
        // Estimate for times, ids and lineage.
        self.bytes += 160;
        let rows = self.open.entry((schema.name, from.tenant.clone(), day));
        rows.or_insert_with(|| RowBuffer::new(schema, from.tenant.clone(), day)).push(cells, entity, &from.lineage)
    }

    /// Returns the rows so far, which end before this bus offset, without template counts.
    ///
    /// # Errors
    /// Returns an error if the rows cannot be encoded.
    pub fn pending_rows(&mut self, offset: u64) -> Result<PendingRows, Error> {
        let mut pending = PendingRows { offset, rows: BTreeMap::new() };
        for ((table, tenant, day), rows) in &mut self.open {
            pending.rows.insert((table, tenant.clone(), *day), rows.batches()?);
        }
        Ok(pending)
    }

    /// Returns the files of the batch that ends before this bus offset, and starts the next batch.
    ///
    /// # Errors
    /// Returns an error if the files cannot be encoded.
    pub fn finish(&mut self, offset: u64, now: Timestamp) -> Result<EventFiles, Error> {
        let lineage = Lineage::new(offset, now);
        for ((tenant, day, entity, id), template) in std::mem::take(&mut self.templates) {
            let cells = [
                Cell::Timestamp(template.span_us.0),
                Cell::Timestamp(template.span_us.1),
                Cell::Text(&entity.name),
                Cell::Text(template.severity.as_str()),
                Cell::Text(&id),
                Cell::Text(&template.text),
                Cell::Text(&template.example),
                Cell::Long(template.lines),
            ];
            let rows = self.open.entry((LOG_TEMPLATES.name, tenant.clone(), day));
            let rows = rows.or_insert_with(|| RowBuffer::new(&LOG_TEMPLATES, tenant, day));
            rows.push(&cells, Some(&entity), &lineage)?;
        }
        let Self { open, .. } = std::mem::replace(self, Self::new(self.committed.clone()));
        let mut written = EventFiles { offset, rows: 0, files: BTreeMap::new() };
        for ((table, ..), rows) in open {
            written.rows += rows.len() as u64;
            written.files.entry(table).or_default().push(rows.finish()?);
        }
        Ok(written)
    }
}

fn reset_hint(number: u8) -> &'static str {
    RESET_HINTS.get(usize::from(number)).copied().unwrap_or(RESET_HINTS[0])
}

/// Flattens spans to offset and length.
fn bucket_spans(buckets: &Buckets) -> Vec<i64> {
    buckets.spans.iter().flat_map(|(offset, length)| [i64::from(*offset), i64::from(*length)]).collect()
}

/// Files of an event batch, to be committed.
#[derive(Clone, Debug)]
pub struct EventFiles {
    pub(crate) offset: u64,
    pub(crate) rows: u64,
    pub(crate) files: BTreeMap<&'static str, Vec<DataFile>>,
}

impl EventFiles {
    /// Number of rows.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Names of the tables that get rows.
    pub fn tables(&self) -> impl Iterator<Item = &'static str> {
        self.files.keys().copied()
    }
}

fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')).collect()
}
