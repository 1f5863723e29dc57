//! Requests of a stretch of the bus, with what in them has a table of its own, on their way into files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use deltalake_core::arrow::array::{Date32Array, RecordBatch, StringArray};
use deltalake_core::arrow::datatypes::{DataType, Field, Schema};
use wardroom_domain::canonical::short_hash;
use wardroom_domain::{
    Buckets, Deployment, Envelope, Exemplar, Labels, LogEntry, NativeHistogram, RefusalReason, Severity, Span,
    TenantId, Timestamp,
};

use crate::Error;
use crate::rows::{Cell, Lineage, Rows, micros};
use crate::samples::{DataFile, day_of};
use crate::spec::{DEPLOYMENTS, EXEMPLARS, HISTOGRAMS, LOG_TEMPLATES, LOGS, QUARANTINE, SPANS, Spec, TELEMETRY};

/// Bodies up to this size stand in the table, in bytes.
const INLINE: usize = 256 << 10;
/// How much of a line stands beside its template, in bytes.
const EXAMPLE: usize = 400;

/// The request a row came in.
#[derive(Clone, Debug)]
pub struct Origin {
    tenant: TenantId,
    offset: u64,
    request: Option<u64>,
    lineage: Lineage,
}

impl Origin {
    /// The request at this offset of the bus; `request` is the hash of its body, if a repetition of it is recognised.
    pub fn new(tenant: TenantId, offset: u64, received_at: Timestamp, request: Option<u64>) -> Self {
        Self { tenant, offset, request, lineage: Lineage::of(offset, received_at) }
    }

    /// Its rows are recognised by this hash when they come again.
    pub const fn of_request(&mut self, request: Option<u64>) {
        self.request = request;
    }

    fn request(&self) -> Cell<'_> {
        self.request.map_or(Cell::Nothing, |hash| Cell::Long(hash.cast_signed()))
    }
}

/// A log line taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The line.
    pub log: &'a LogEntry,
    /// The service it belongs to.
    pub service: &'a str,
    /// Its text with `<*>` for what varies.
    pub template: &'a str,
    /// What varies, in order.
    pub parameters: &'a [&'a str],
}

/// Up to which offset of the bus each table is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached(pub(crate) BTreeMap<&'static str, u64>);

impl Reached {
    /// Whether a table has yet to get what came with this offset.
    fn wants(&self, table: &Spec, offset: u64) -> bool {
        self.0.get(table.name).is_none_or(|reached| offset >= *reached)
    }
}

/// A request as it stands on the bus.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Its header.
    pub envelope: &'a Envelope,
    /// Its body as received; empty if only the header is of interest.
    pub body: &'a [u8],
    /// Length of the body.
    pub size: u32,
    /// SHA-256 of that.
    pub sha256: &'a [u8],
    /// Offset of the first record of the segment that holds it.
    pub segment: u64,
    /// First byte of its frame in the segment's file.
    pub position: u64,
    /// Length of its frame.
    pub bytes: u64,
}

impl Received<'_> {
    /// The body, where it is small and can be read as it is.
    fn payload(&self) -> Cell<'_> {
        let Envelope { content_type, content_encoding, .. } = self.envelope;
        let plain = content_type.starts_with("application/json") && content_encoding.is_empty();
        let small = self.body.len() <= INLINE && plain;
        std::str::from_utf8(self.body).ok().filter(|_| small).map_or(Cell::Nothing, Cell::Text)
    }
}

struct Template {
    span_us: (i64, i64),
    severity: Severity,
    text: String,
    example: String,
    lines: i64,
}

/// What a stretch of the bus brought. A row that its table has already is let go: after a crash some of the tables are
/// further than others.
pub struct Events {
    reached: Reached,
    open: BTreeMap<(&'static str, TenantId, i64), Rows>,
    templates: BTreeMap<(TenantId, i64, String, String), Template>,
    /// Hashes of templates, so that each is computed once.
    ids: HashMap<String, String>,
    bytes: usize,
}

impl Events {
    /// Nothing yet, for tables that are written so far.
    pub fn new(reached: Reached) -> Self {
        Self { reached, open: BTreeMap::new(), templates: BTreeMap::new(), ids: HashMap::new(), bytes: 0 }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.templates.is_empty()
    }

    /// About how much memory it takes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a request, with what of it was not taken; its records come beside.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn request(&mut self, from: &Origin, received: &Received<'_>) -> Result<(), Error> {
        let Envelope { principal, protocol, content_type, content_encoding, refused, .. } = received.envelope;
        for refusal in refused.iter().filter(|refusal| refusal.reason != RefusalReason::Taken) {
            let records = (u64::from(refusal.first), u64::from(refusal.last));
            self.quarantine(from, received, (refusal.reason.as_str(), None), records)?;
        }
        if !self.reached.wants(&TELEMETRY, from.offset) {
            return Ok(());
        }
        let (digest, segment) = (hex(received.sha256), format!("{:020}.seg", received.segment));
        // Only what is an event by itself: log lines stand in their table.
        let payload = if protocol == "json_deployment" { received.payload() } else { Cell::Nothing };
        let own = [
            Cell::Moment(from.lineage.received_us()),
            Cell::Text(principal.as_str()),
            Cell::Text(protocol),
            Cell::Text(content_type),
            Cell::Text(content_encoding),
            Cell::Text(&digest),
            Cell::Long(received.size.into()),
            Cell::Text(&segment),
            Cell::Long(long(received.position)),
            Cell::Long(long(received.bytes)),
            payload,
        ];
        self.bytes += 100 + if matches!(payload, Cell::Text(_)) { received.body.len() } else { 0 };
        self.push(&TELEMETRY, from, day_of(from.lineage.received_us().div_euclid(1000)), &own)
    }

    /// Takes a request that cannot be decoded.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn unreadable(&mut self, from: &Origin, received: &Received<'_>, detail: &str) -> Result<(), Error> {
        self.quarantine(from, received, ("unreadable", Some(detail)), (0, 0))
    }

    fn quarantine(
        &mut self,
        from: &Origin,
        received: &Received<'_>,
        (reason, detail): (&str, Option<&str>),
        (first, last): (u64, u64),
    ) -> Result<(), Error> {
        if !self.reached.wants(&QUARANTINE, from.offset) {
            return Ok(());
        }
        let payload = received.payload();
        let own = [
            Cell::Moment(from.lineage.received_us()),
            Cell::Text(received.envelope.principal.as_str()),
            Cell::Text(&received.envelope.protocol),
            Cell::Text(reason),
            detail.map_or(Cell::Nothing, Cell::Text),
            Cell::Long(long(first)),
            Cell::Long(long(last)),
            payload,
        ];
        self.bytes += if matches!(payload, Cell::Text(_)) { received.body.len() } else { 0 };
        self.push(&QUARANTINE, from, day_of(from.lineage.received_us().div_euclid(1000)), &own)
    }

    /// Takes a log line; `seq` counts the rows of its request.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn log(&mut self, from: &Origin, seq: i32, line: &Line<'_>) -> Result<(), Error> {
        let Line { log, service, template, parameters } = *line;
        let at = micros(log.at);
        let id = match self.ids.get(template) {
            Some(id) => id.clone(),
            None => self.ids.entry(template.to_owned()).or_insert(short_hash(template)).clone(),
        };
        if self.reached.wants(&LOGS, from.offset) {
            let own = [
                Cell::Moment(at),
                Cell::Int(beyond(log.at)),
                Cell::Text(service),
                Cell::Text(log.severity.as_str()),
                Cell::Text(&log.message),
                Cell::Text(&id),
                Cell::Texts(parameters),
                Cell::Labels(&log.labels),
                Cell::Int(seq),
                from.request(),
            ];
            self.bytes += 2 * log.message.len() + log.labels.as_bytes().len();
            self.push(&LOGS, from, day_of(log.at.millis()), &own)?;
        }
        if self.reached.wants(&LOG_TEMPLATES, from.offset) {
            let key = (from.tenant.clone(), day_of(log.at.millis()), service.to_owned(), id);
            let known = self.templates.entry(key).or_insert_with(|| Template {
                span_us: (at, at),
                severity: log.severity,
                text: template.to_owned(),
                example: log.message.get(..log.message.floor_char_boundary(EXAMPLE)).unwrap_or_default().to_owned(),
                lines: 0,
            });
            known.span_us = (known.span_us.0.min(at), known.span_us.1.max(at));
            known.severity = known.severity.max(log.severity);
            known.lines += 1;
        }
        Ok(())
    }

    /// Takes a span of a service.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn span(&mut self, from: &Origin, seq: i32, span: &Span, service: &str) -> Result<(), Error> {
        if !self.reached.wants(&SPANS, from.offset) {
            return Ok(());
        }
        let (trace, id, parent) = (hex(&span.trace_id), hex(&span.span_id), hex(&span.parent_id));
        let at = micros(span.start);
        let own = [
            Cell::Moment(at),
            Cell::Int(beyond(span.start)),
            Cell::Long(span.end.nanos().saturating_sub(span.start.nanos()).max(0)),
            Cell::Text(&trace),
            Cell::Text(&id),
            if span.parent_id == [0; 8] { Cell::Nothing } else { Cell::Text(&parent) },
            Cell::Text(service),
            Cell::Text(&span.name),
            Cell::Text(span.kind.as_str()),
            Cell::Flag(span.failed),
            Cell::Labels(&span.labels),
            Cell::Int(seq),
            from.request(),
        ];
        self.bytes += span.name.len() + span.labels.as_bytes().len();
        // By its end, which is near its arrival: a start may be anywhere, and each day is a file.
        self.push(&SPANS, from, day_of(span.end.millis()), &own)
    }

    /// Takes a deployment.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn deployment(&mut self, from: &Origin, seq: i32, deployment: &Deployment) -> Result<(), Error> {
        if !self.reached.wants(&DEPLOYMENTS, from.offset) {
            return Ok(());
        }
        let at = micros(deployment.at);
        let own = [
            Cell::Moment(at),
            Cell::Int(beyond(deployment.at)),
            Cell::Text(&deployment.service),
            Cell::Text(&deployment.version),
            Cell::Text(&deployment.status),
            Cell::Labels(&deployment.metadata),
            Cell::Int(seq),
            from.request(),
        ];
        self.bytes += deployment.metadata.as_bytes().len();
        self.push(&DEPLOYMENTS, from, day_of(deployment.at.millis()), &own)
    }

    /// Takes a native histogram of a series.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn histogram(
        &mut self,
        from: &Origin,
        seq: i32,
        labels: &Labels,
        histogram: &NativeHistogram,
    ) -> Result<(), Error> {
        if !self.reached.wants(&HISTOGRAMS, from.offset) {
            return Ok(());
        }
        let (above, below) = (spans(&histogram.positive), spans(&histogram.negative));
        let own = [
            Cell::Moment(histogram.ts_ms.saturating_mul(1000)),
            Cell::Text(labels.name()),
            Cell::Labels(labels),
            Cell::Double(histogram.count),
            Cell::Double(histogram.sum),
            Cell::Int(histogram.schema),
            Cell::Double(histogram.zero_threshold),
            Cell::Double(histogram.zero_count),
            Cell::Longs(&above),
            Cell::Doubles(&histogram.positive.counts),
            Cell::Longs(&below),
            Cell::Doubles(&histogram.negative.counts),
            Cell::Doubles(&histogram.bounds),
            Cell::Text(reset_hint(histogram.reset_hint)),
            Cell::Int(seq),
            from.request(),
        ];
        let buckets = histogram.positive.counts.len() + histogram.negative.counts.len() + histogram.bounds.len();
        self.bytes += labels.as_bytes().len() + 8 * (buckets + above.len() + below.len());
        self.push(&HISTOGRAMS, from, day_of(histogram.ts_ms), &own)
    }

    /// Takes an exemplar of a series.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn exemplar(&mut self, from: &Origin, seq: i32, labels: &Labels, exemplar: &Exemplar) -> Result<(), Error> {
        if !self.reached.wants(&EXEMPLARS, from.offset) {
            return Ok(());
        }
        let own = [
            Cell::Moment(exemplar.ts_ms.saturating_mul(1000)),
            Cell::Text(labels.name()),
            Cell::Labels(labels),
            Cell::Labels(&exemplar.labels),
            Cell::Double(exemplar.value),
            Cell::Int(seq),
            from.request(),
        ];
        self.bytes += labels.as_bytes().len() + exemplar.labels.as_bytes().len();
        self.push(&EXEMPLARS, from, day_of(exemplar.ts_ms), &own)
    }

    fn push(&mut self, spec: &'static Spec, from: &Origin, day: i64, own: &[Cell<'_>]) -> Result<(), Error> {
        // Times, ids and where it came from.
        self.bytes += 160;
        let rows = self.open.entry((spec.name, from.tenant.clone(), day));
        rows.or_insert_with(|| Rows::new(spec, from.tenant.clone(), day)).push(own, &from.lineage)
    }

    /// What waits to be written of what came before this offset of the bus, for whoever asks before it is. Templates are counted
    /// at the end.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn pending(&mut self, offset: u64) -> Result<Pending, Error> {
        let mut pending = Pending { offset, rows: BTreeMap::new() };
        for ((table, tenant, day), rows) in &mut self.open {
            pending.rows.insert((table, tenant.clone(), *day), rows.batches()?);
        }
        Ok(pending)
    }

    /// The files, as the batch that ends before this offset of the bus. What comes after is the next batch.
    ///
    /// # Errors
    /// They cannot be encoded.
    pub fn finish(&mut self, offset: u64, now: Timestamp) -> Result<Written, Error> {
        let lineage = Lineage::of(offset, now);
        for ((tenant, day, service, id), template) in std::mem::take(&mut self.templates) {
            let own = [
                Cell::Moment(template.span_us.0),
                Cell::Moment(template.span_us.1),
                Cell::Text(&service),
                Cell::Text(template.severity.as_str()),
                Cell::Text(&id),
                Cell::Text(&template.text),
                Cell::Text(&template.example),
                Cell::Long(template.lines),
            ];
            let rows = self.open.entry((LOG_TEMPLATES.name, tenant.clone(), day));
            rows.or_insert_with(|| Rows::new(&LOG_TEMPLATES, tenant, day)).push(&own, &lineage)?;
        }
        let Self { open, .. } = std::mem::replace(self, Self::new(self.reached.clone()));
        let mut written = Written { offset, rows: 0, files: BTreeMap::new() };
        for ((table, ..), rows) in open {
            written.rows += rows.len() as u64;
            written.files.entry(table).or_default().push(rows.finish()?);
        }
        Ok(written)
    }
}

/// Rows that are on their way into the tables.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// With what came before this offset of the bus they and the tables are complete.
    pub(crate) offset: u64,
    rows: BTreeMap<(&'static str, TenantId, i64), Vec<RecordBatch>>,
}

impl Pending {
    /// A table has them now.
    pub(crate) fn landed(&mut self, table: &str) {
        self.rows.retain(|(of, ..), _| *of != table);
    }

    /// Those of one table and tenant, with the columns that a file has no need of.
    pub(crate) fn of(&self, table: &str, tenant: &TenantId) -> Result<Vec<RecordBatch>, Error> {
        let mut found = Vec::new();
        for ((of, whose, day), batches) in &self.rows {
            if *of == table && whose == tenant {
                for batch in batches {
                    found.push(partitioned(batch, tenant, *day)?);
                }
            }
        }
        Ok(found)
    }
}

/// What a reset hint is called, by the number that remote_write gives it.
pub(crate) const RESET_HINTS: [&str; 4] = ["unknown", "yes", "no", "gauge"];

fn reset_hint(number: u8) -> &'static str {
    RESET_HINTS.get(usize::from(number)).copied().unwrap_or(RESET_HINTS[0])
}

/// Offset and length of each stretch, one after the other.
fn spans(buckets: &Buckets) -> Vec<i64> {
    buckets.spans.iter().flat_map(|(offset, length)| [i64::from(*offset), i64::from(*length)]).collect()
}

fn partitioned(batch: &RecordBatch, tenant: &TenantId, day: i64) -> Result<RecordBatch, Error> {
    let rows = batch.num_rows();
    let tenants = StringArray::from_iter_values(std::iter::repeat_n(tenant.as_str(), rows));
    let days = Date32Array::from_value(i32::try_from(day).unwrap_or_default(), rows);
    let more = [Field::new("tenant", DataType::Utf8, false), Field::new("day", DataType::Date32, false)];
    let fields: Vec<_> = batch.schema().fields().iter().cloned().chain(more.map(Arc::new)).collect();
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(tenants));
    columns.push(Arc::new(days));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Files that wait to be put into their tables.
#[derive(Clone, Debug)]
pub struct Written {
    pub(crate) offset: u64,
    pub(crate) rows: u64,
    pub(crate) files: BTreeMap<&'static str, Vec<DataFile>>,
}

impl Written {
    /// Rows in all.
    pub const fn rows(&self) -> u64 {
        self.rows
    }
}

/// Nanoseconds of a moment beyond its microsecond.
const fn beyond(at: Timestamp) -> i32 {
    at.nanos().rem_euclid(1000) as i32
}

fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')).collect()
}
