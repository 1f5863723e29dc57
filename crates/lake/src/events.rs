//! Log lines, spans and deployments of a stretch of the bus, on their way into files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use deltalake_core::arrow::array::{Date32Array, RecordBatch, StringArray};
use deltalake_core::arrow::datatypes::{DataType, Field, Schema};
use wardroom_domain::canonical::short_hash;
use wardroom_domain::{Deployment, LogEntry, Severity, Span, TenantId, Timestamp};

use crate::Error;
use crate::rows::{Cell, Lineage, Rows, micros};
use crate::samples::{DataFile, day_of};
use crate::spec::{DEPLOYMENTS, LOG_TEMPLATES, LOGS, SPANS, Spec};

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// `silver.logs`.
    pub(crate) logs: u64,
    /// `silver.log_templates`.
    pub(crate) templates: u64,
    /// `silver.spans`.
    pub(crate) spans: u64,
    /// `silver.deployments`.
    pub(crate) deployments: u64,
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
        if from.offset >= self.reached.logs {
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
        if from.offset >= self.reached.templates {
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
        if from.offset < self.reached.spans {
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
        if from.offset < self.reached.deployments {
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

    fn push(&mut self, spec: &'static Spec, from: &Origin, day: i64, own: &[Cell<'_>]) -> Result<(), Error> {
        // Times, ids and where it came from.
        self.bytes += 160;
        let rows = self.open.entry((spec.name, from.tenant.clone(), day));
        rows.or_insert_with(|| Rows::new(spec, from.tenant.clone(), day)).push(own, &from.lineage)
    }

    /// What waits to be written, for whoever asks before it is. Templates are counted at the end.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn pending(&mut self) -> Result<Pending, Error> {
        let mut pending = Pending::default();
        for ((table, tenant, day), rows) in &mut self.open {
            pending.0.insert((table, tenant.clone(), *day), rows.batches()?);
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
        let Self { open, .. } = std::mem::replace(self, Self::new(self.reached));
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
pub struct Pending(BTreeMap<(&'static str, TenantId, i64), Vec<RecordBatch>>);

impl Pending {
    /// A table has them now.
    pub(crate) fn landed(&mut self, table: &str) {
        self.0.retain(|(of, ..), _| *of != table);
    }

    /// Those of one table and tenant, with the columns that a file has no need of.
    pub(crate) fn of(&self, table: &str, tenant: &TenantId) -> Result<Vec<RecordBatch>, Error> {
        let mut found = Vec::new();
        for ((of, whose, day), batches) in &self.0 {
            if *of == table && whose == tenant {
                for batch in batches {
                    found.push(partitioned(batch, tenant, *day)?);
                }
            }
        }
        Ok(found)
    }
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

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')).collect()
}
