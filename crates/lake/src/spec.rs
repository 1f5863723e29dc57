//! The tables there are, by name, with their columns.
//!
//! One list: the Delta schema with its comments and the Parquet files are made from it. Tenant and day are every
//! table's partitions and stand in no list. Adding a column that may be missing is the only change a table
//! ever sees without being written anew.

use std::sync::Arc;

use deltalake_core::arrow::datatypes::{DataType as Arrow, Field, Schema, SchemaRef, TimeUnit};
use deltalake_core::kernel::{ArrayType, DataType, MapType, MetadataValue, PrimitiveType, StructField};

/// What a table is called and holds.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Layer and name.
    pub(crate) name: &'static str,
    /// What a row is.
    pub(crate) about: &'static str,
    /// Its own columns.
    pub(crate) own: &'static [Column],
    /// Whether a row says where it came from.
    pub(crate) lineage: bool,
}

/// A column of a table.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) kind: Kind,
    /// Whether a row may lack it.
    pub(crate) nullable: bool,
    /// What stands in it, with its unit.
    pub(crate) about: &'static str,
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 64 bits, signed.
    Long,
    /// 32 bits, signed.
    Int,
    /// 8 bits, signed.
    Byte,
    /// IEEE 754, 64 bits.
    Double,
    /// UTF-8.
    Text,
    /// Microseconds since the epoch, UTC.
    Moment,
    /// Text by text.
    Labels,
    /// Texts, in order.
    Texts,
    /// Numbers of the kind of `Long`, in order.
    Longs,
    /// Numbers of the kind of `Double`, in order.
    Doubles,
    /// Yes or no.
    Flag,
}

impl Kind {
    fn delta(self) -> DataType {
        DataType::Primitive(match self {
            Self::Long => PrimitiveType::Long,
            Self::Int => PrimitiveType::Integer,
            Self::Byte => PrimitiveType::Byte,
            Self::Double => PrimitiveType::Double,
            Self::Text => PrimitiveType::String,
            Self::Moment => PrimitiveType::Timestamp,
            Self::Flag => PrimitiveType::Boolean,
            Self::Texts => return list(PrimitiveType::String),
            Self::Longs => return list(PrimitiveType::Long),
            Self::Doubles => return list(PrimitiveType::Double),
            Self::Labels => {
                let text = || DataType::Primitive(PrimitiveType::String);
                return DataType::Map(Box::new(MapType::new(text(), text(), false)));
            }
        })
    }

    fn arrow(self) -> Arrow {
        match self {
            Self::Long => Arrow::Int64,
            Self::Int => Arrow::Int32,
            Self::Byte => Arrow::Int8,
            Self::Double => Arrow::Float64,
            Self::Text => Arrow::Utf8,
            Self::Moment => Arrow::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Flag => Arrow::Boolean,
            Self::Texts => Arrow::List(element(Arrow::Utf8)),
            Self::Longs => Arrow::List(element(Arrow::Int64)),
            Self::Doubles => Arrow::List(element(Arrow::Float64)),
            Self::Labels => {
                let pair = vec![Field::new("key", Arrow::Utf8, false), Field::new("value", Arrow::Utf8, false)];
                Arrow::Map(Arc::new(Field::new("key_value", Arrow::Struct(pair.into()), false)), false)
            }
        }
    }
}

fn list(of: PrimitiveType) -> DataType {
    DataType::Array(Box::new(ArrayType::new(DataType::Primitive(of), false)))
}

/// What a list is made of.
pub(crate) fn element(of: Arrow) -> Arc<Field> {
    Arc::new(Field::new("element", of, false))
}

impl Spec {
    /// Its own columns, then those that say where a row came from.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'static Column> {
        let lineage: &[Column] = if self.lineage { &LINEAGE } else { &[] };
        self.own.iter().chain(lineage)
    }

    /// The columns of a file.
    pub(crate) fn arrow(&self) -> SchemaRef {
        let fields = self.columns().map(|column| Field::new(column.name, column.kind.arrow(), column.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The columns of the table.
    pub(crate) fn delta(&self) -> Vec<StructField> {
        let own = self.columns().map(|column| {
            let field = StructField::new(column.name, column.kind.delta(), column.nullable);
            field.with_metadata([("comment", MetadataValue::String(column.about.to_owned()))])
        });
        let partitions = [
            StructField::new("tenant", DataType::Primitive(PrimitiveType::String), false),
            StructField::new("day", DataType::Primitive(PrimitiveType::Date), false),
        ];
        own.chain(partitions).collect()
    }
}

const fn must(name: &'static str, kind: Kind, about: &'static str) -> Column {
    Column { name, kind, nullable: false, about }
}

const fn may(name: &'static str, kind: Kind, about: &'static str) -> Column {
    Column { name, kind, nullable: true, about }
}

/// Where a row came from.
const LINEAGE: [Column; 6] = [
    must("topic", Kind::Text, "the bus topic it came through"),
    must("partition", Kind::Int, "partition of the topic"),
    must("offset", Kind::Long, "offset of the request on the bus"),
    must("schema_version", Kind::Int, "version of these columns"),
    must("src_uri", Kind::Text, "where the request lies as received"),
    must("received_at", Kind::Moment, "when the request was received"),
];

/// Samples, narrow.
pub(crate) const SAMPLES: Spec = Spec {
    name: "silver.samples",
    about: "A sample of a series. The view `silver.metrics` shows it with its name and labels.",
    own: &[
        must("series_id", Kind::Long, "number of the series; `silver.series` has its labels"),
        must("ts", Kind::Moment, "the sample's time"),
        may("mantissa", Kind::Long, "the value is mantissa / 10^exponent, where that gives it back bit for bit"),
        may("exponent", Kind::Byte, "0 to 22"),
        may("value", Kind::Double, "the value, where it is no such decimal"),
        must(
            "offset",
            Kind::Long,
            "bus offset at which the flush that brought it ended; of two samples of a series with one time the higher is in force",
        ),
    ],
    lineage: false,
};

const TS: Column = must("ts", Kind::Moment, "its own time");
const NANOS: Column = must("nanos", Kind::Int, "nanoseconds of that time beyond the microsecond");
const SERVICE: Column = must("service", Kind::Text, "the service it belongs to, by the rules of `entities`");
const SEQ: Column = must("seq", Kind::Int, "which of the request's rows it is, from 0");
const REQUEST: Column = may(
    "request",
    Kind::Long,
    "hash of the request's body, where its lines bear times of their own: a repetition within a day is left out",
);

/// Log lines.
pub(crate) const LOGS: Spec = Spec {
    name: "silver.logs",
    about: "A log line. Untrusted text.",
    own: &[
        TS,
        NANOS,
        SERVICE,
        must("severity", Kind::Text, "`info`, `warning`, `high` or `critical`"),
        must("message", Kind::Text, "the text as it came"),
        must("template_id", Kind::Text, "which template it follows; `silver.log_templates` has its text"),
        must("parameters", Kind::Texts, "what stands where the template has `<*>`, in order"),
        must("labels", Kind::Labels, "whatever else the sender attached"),
        SEQ,
        REQUEST,
    ],
    lineage: true,
};

/// The templates of log lines.
pub(crate) const LOG_TEMPLATES: Spec = Spec {
    name: "silver.log_templates",
    about: "A template of a service's log lines in one stretch of the bus: sum `lines` over rows for longer ones.",
    own: &[
        must("ts", Kind::Moment, "time of the first of the lines"),
        must("last", Kind::Moment, "time of the last of them"),
        SERVICE,
        must("severity", Kind::Text, "the worst of them"),
        must("template_id", Kind::Text, "hash of the text"),
        must("template", Kind::Text, "the text, with `<*>` for what varies"),
        must("example", Kind::Text, "the first of the lines, at most 400 bytes of it"),
        must("lines", Kind::Long, "how many there were"),
    ],
    lineage: true,
};

/// Spans.
pub(crate) const SPANS: Spec = Spec {
    name: "silver.spans",
    about: "A span of a trace, under the day of its end.",
    own: &[
        must("ts", Kind::Moment, "when it began"),
        NANOS,
        must("duration_ns", Kind::Long, "how long it took, in nanoseconds"),
        must("trace_id", Kind::Text, "32 hexadecimal digits"),
        must("span_id", Kind::Text, "16 hexadecimal digits"),
        may("parent_id", Kind::Text, "the span that caused it"),
        SERVICE,
        must("name", Kind::Text, "what was done, as the sender names it"),
        must("kind", Kind::Text, "`internal`, `server`, `client`, `producer` or `consumer`"),
        must("failed", Kind::Flag, "whether the sender marks it as an error"),
        must("labels", Kind::Labels, "the attributes of the service and of the operation"),
        SEQ,
        REQUEST,
    ],
    lineage: true,
};

/// Requests as they were accepted.
pub(crate) const TELEMETRY: Spec = Spec {
    name: "bronze.telemetry",
    about: "A request as it was accepted, and where its bytes are: a frame in a segment of the bus, as long as that is kept.",
    own: &[
        must("ts", Kind::Moment, "when it was received"),
        must("principal", Kind::Text, "who sent it"),
        must("protocol", Kind::Text, "the source that decodes it"),
        must("content_type", Kind::Text, "as the sender said"),
        must("content_encoding", Kind::Text, "as the sender said; empty for none"),
        must("sha256", Kind::Text, "of the body as received, in hexadecimal digits"),
        must("size_bytes", Kind::Long, "size of the body as received"),
        must("segment", Kind::Text, "the bus' file that holds it"),
        must("segment_position", Kind::Long, "first byte of its frame there"),
        must("segment_bytes", Kind::Long, "length of its frame there"),
        may("payload", Kind::Text, "the body of a small event: JSON of at most 256 KiB, not compressed"),
    ],
    lineage: true,
};

/// What was not taken.
pub(crate) const QUARANTINE: Spec = Spec {
    name: "silver.quarantine",
    about: "Records of a request that no table has, and why. Untrusted text.",
    own: &[
        must("ts", Kind::Moment, "when the request was received"),
        must("principal", Kind::Text, "who sent it"),
        must("protocol", Kind::Text, "the source that decodes it"),
        must(
            "reason",
            Kind::Text,
            "such as `too_old` or `series_limit`; `unreadable` for a whole request that cannot be decoded",
        ),
        may("detail", Kind::Text, "the decoder's words, if it has any"),
        must("first", Kind::Long, "the first of the records, counted within the request from 0"),
        must("last", Kind::Long, "the last of them"),
        may("payload", Kind::Text, "the request's body where it is JSON of at most 256 KiB, not compressed"),
    ],
    lineage: true,
};

/// The tables that a reader of the bus fills, in the order in which they are written.
pub(crate) const EVENTS: [&Spec; 8] =
    [&TELEMETRY, &QUARANTINE, &LOGS, &SPANS, &DEPLOYMENTS, &HISTOGRAMS, &EXEMPLARS, &LOG_TEMPLATES];

const NAME: Column = must("name", Kind::Text, "the metric's name");
const SERIES_LABELS: Column = must("labels", Kind::Labels, "all labels of the series, the name included");

/// Native histograms.
pub(crate) const HISTOGRAMS: Spec = Spec {
    name: "silver.histograms",
    about: "A native histogram of a series, as remote_write and OTLP (exponential histograms) bring them.",
    own: &[
        must("ts", Kind::Moment, "its time"),
        NAME,
        SERIES_LABELS,
        must("count", Kind::Double, "observations"),
        must("sum", Kind::Double, "their sum; a NaN with the bits 7ff0000000000002 says that the series ended"),
        must(
            "schema",
            Kind::Int,
            "resolution: -4 to 8, a bucket is 2^(2^-schema) times as wide as the one before; -53 for `bounds`",
        ),
        must("zero_threshold", Kind::Double, "observations this near to zero are in the zero bucket"),
        must("zero_count", Kind::Double, "how many those are"),
        must(
            "positive_spans",
            Kind::Longs,
            "stretches of buckets above zero, two numbers each: distance to the end of the one before (or the first index), buckets",
        ),
        must("positive_counts", Kind::Doubles, "observations of each of those buckets"),
        must("negative_spans", Kind::Longs, "the same below zero"),
        must("negative_counts", Kind::Doubles, "observations of each of those buckets"),
        must("bounds", Kind::Doubles, "upper bounds of the buckets, where the schema is -53"),
        must(
            "reset_hint",
            Kind::Text,
            "`unknown`, `yes`, `no` or `gauge`: whether counts began anew since the one before",
        ),
        SEQ,
        REQUEST,
    ],
    lineage: true,
};

/// Exemplars.
pub(crate) const EXEMPLARS: Spec = Spec {
    name: "silver.exemplars",
    about: "A single observation that stands for others of its series: usually one with a trace. Untrusted text.",
    own: &[
        must("ts", Kind::Moment, "its time"),
        NAME,
        SERIES_LABELS,
        must("exemplar", Kind::Labels, "what names it: `trace_id` and the like"),
        must("value", Kind::Double, "what was observed"),
        SEQ,
        REQUEST,
    ],
    lineage: true,
};

/// Deployments.
pub(crate) const DEPLOYMENTS: Spec = Spec {
    name: "silver.deployments",
    about: "A version put into service.",
    own: &[
        TS,
        NANOS,
        SERVICE,
        must("version", Kind::Text, "the version now running"),
        must("status", Kind::Text, "`success`, `failed`, … as the sender says"),
        must("labels", Kind::Labels, "whatever else the sender attached"),
        SEQ,
        REQUEST,
    ],
    lineage: true,
};

const INCIDENT: Column = must("incident", Kind::Text, "the incident's key, derived from what opened it");
const INCIDENT_ID: Column = may("incident_id", Kind::Text, "what people call it, such as `INC-42`");

/// Incidents.
pub(crate) const INCIDENTS: Spec = Spec {
    name: "gold.incidents",
    about: "An incident as it is now, under the day on which it opened.",
    own: &[
        must("ts", Kind::Moment, "when it was opened, by the telemetry's own time"),
        INCIDENT,
        INCIDENT_ID,
        must("title", Kind::Text, "one line for a person"),
        must("severity", Kind::Text, "`info`, `warning`, `high` or `critical`"),
        must("state", Kind::Text, "where it stands, `open` to `closed`"),
        may("service", Kind::Text, "the first service that was affected"),
        must("services", Kind::Texts, "all services known to be affected, the first one first"),
        must("trigger", Kind::Text, "`sustained_breach` or `deployment_correlation`"),
        must("began_at", Kind::Moment, "when trouble began, by the telemetry's own time"),
        may("settled_at", Kind::Moment, "when it was settled, by the telemetry's own time"),
        may("outcome", Kind::Text, "`resolved`, `inconclusive`, `escalated`, `rejected` or `noise`"),
        may("cause_service", Kind::Text, "the service at fault, by the best cause"),
        may("cause_kind", Kind::Text, "in which way"),
        may("cause_confidence", Kind::Double, "0 to 1"),
        may("verdict", Kind::Text, "a person's judgement: `real`, `noise` or `wrong_cause`"),
    ],
    lineage: false,
};

/// What incidents were enriched with.
pub(crate) const ENRICHMENTS: Spec = Spec {
    name: "gold.enrichments",
    about: "A piece of evidence that an incident was enriched with, under the day on which that opened.",
    own: &[
        must("ts", Kind::Moment, "when it was seen"),
        INCIDENT,
        INCIDENT_ID,
        must("kind", Kind::Text, "such as `anomaly`, `deployment`, `log` or `edge`"),
        must("evidence_id", Kind::Text, "unique within the incident"),
        SERVICE,
        must("summary", Kind::Text, "one line for a person; may quote telemetry: untrusted text"),
        must("cited", Kind::Flag, "whether the best cause rests on it"),
    ],
    lineage: false,
};

/// What tools did.
pub(crate) const TOOL_RESULTS: Spec = Spec {
    name: "gold.tool_results",
    about: "A tool's call from the proposal to what came of it, under the day on which the incident opened.",
    own: &[
        must(
            "ts",
            Kind::Moment,
            "when it was carried out, by the telemetry's own time; when the incident opened, if it was not",
        ),
        INCIDENT,
        INCIDENT_ID,
        must("plan_sha256", Kind::Text, "what a person approves"),
        must("tool", Kind::Text, "the tool"),
        must("operation", Kind::Text, "what it was to do"),
        must("target", Kind::Text, "to what"),
        must("arguments", Kind::Text, "JSON"),
        must("risk", Kind::Text, "how dangerous, by the dry run"),
        must("runbook", Kind::Text, "the runbook it comes from"),
        may("approved_by", Kind::Text, "who said yes"),
        may("approved_through", Kind::Text, "by which channel"),
        may("outcome", Kind::Text, "how the execution ended, if it began"),
        may("undo", Kind::Text, "how taking it back ended, if that was tried"),
    ],
    lineage: false,
};

/// How services fared.
pub(crate) const SERVICE_HEALTH: Spec = Spec {
    name: "gold.service_health",
    about: "How a service fared in a window of some minutes, by the signals that detection joins from its series.",
    own: &[
        must("ts", Kind::Moment, "when the window begins"),
        must("seconds", Kind::Int, "how long it is"),
        SERVICE,
        may("requests_per_second", Kind::Double, "on average"),
        may("error_ratio", Kind::Double, "share of the requests that failed, 0 to 1, on average"),
        may("latency_p99_seconds", Kind::Double, "the worst 99th percentile of the duration"),
        may("cpu_ratio", Kind::Double, "the highest share of the CPU limit"),
        may("memory_ratio", Kind::Double, "the highest share of the memory limit"),
        must("breaches", Kind::Int, "signals that were in sustained breach when it was written"),
    ],
    lineage: false,
};

/// What was concluded.
pub(crate) const GOLD: [&Spec; 4] = [&INCIDENTS, &ENRICHMENTS, &TOOL_RESULTS, &SERVICE_HEALTH];

/// Label sets.
pub(crate) const SERIES: Spec = Spec {
    name: "silver.series",
    about: "A series: the label set that a number stands for. A set that left and came back may have several.",
    own: &[
        must("series_id", Kind::Long, "its number"),
        NAME,
        SERIES_LABELS,
        must("first_seen", Kind::Moment, "time of its first sample"),
    ],
    lineage: true,
};
