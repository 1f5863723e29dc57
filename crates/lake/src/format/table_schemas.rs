//! Names and columns of all tables.

use crate::format::schema::{Column, ColumnType, TableSchema, optional, required};

/// Samples.
pub(crate) const SAMPLES: TableSchema = TableSchema {
    name: "silver.samples",
    comment: "A sample of a series. The view `silver.metrics` shows it with its name and labels.",
    columns: &[
        required("series_id", ColumnType::Long, "id of the series; `silver.series` has its labels"),
        required("ts", ColumnType::Timestamp, "time of the sample"),
        optional("mantissa", ColumnType::Long, "the value is mantissa / 10^exponent, where that is exact bit for bit"),
        optional("exponent", ColumnType::Byte, "0 to 22"),
        optional("value", ColumnType::Double, "the value, where it is not such a decimal"),
        required(
            "offset",
            ColumnType::Long,
            "bus offset at which the flush ended; of samples of a series at one time the highest offset wins",
        ),
    ],
    entity: false,
    lineage: false,
};

const TS: Column = required("ts", ColumnType::Timestamp, "time of the event");
const NANOS: Column = required("nanos", ColumnType::Int, "nanoseconds of `ts` beyond the microsecond");
const SERVICE: Column = required("service", ColumnType::Text, "name of the entity; empty if the sender names nothing");
const SEQ: Column = required("seq", ColumnType::Int, "number of the row within the request, from 0");
const REQUEST: Column = optional(
    "request",
    ColumnType::Long,
    "hash of the request's body, if its records carry timestamps: a duplicate within a day is dropped",
);

/// Log lines.
pub(crate) const LOGS: TableSchema = TableSchema {
    name: "silver.logs",
    comment: "A log line. Untrusted text.",
    columns: &[
        TS,
        NANOS,
        SERVICE,
        required("severity", ColumnType::Text, "`info`, `warning`, `high` or `critical`"),
        required("message", ColumnType::Text, "the text as received"),
        required("template_id", ColumnType::Text, "id of the template; `silver.log_templates` has its text"),
        required("parameters", ColumnType::Texts, "the values in place of `<*>` in the template, in order"),
        required("labels", ColumnType::Labels, "other attributes from the sender"),
        SEQ,
        REQUEST,
    ],
    entity: true,
    lineage: true,
};

/// Templates of log lines.
pub(crate) const LOG_TEMPLATES: TableSchema = TableSchema {
    name: "silver.log_templates",
    comment: "A template of a service's log lines in one batch of the bus. For longer ranges sum `lines` over rows.",
    columns: &[
        required("ts", ColumnType::Timestamp, "time of the first line"),
        required("last", ColumnType::Timestamp, "time of the last line"),
        SERVICE,
        required("severity", ColumnType::Text, "highest severity of the lines"),
        required("template_id", ColumnType::Text, "hash of the text"),
        required("template", ColumnType::Text, "the text, with `<*>` for variable parts"),
        required("example", ColumnType::Text, "the first line, at most 400 bytes of it"),
        required("lines", ColumnType::Long, "number of lines"),
    ],
    entity: true,
    lineage: true,
};

/// Spans.
pub(crate) const SPANS: TableSchema = TableSchema {
    name: "silver.spans",
    comment: "A span of a trace. Partitioned by the day of its end.",
    columns: &[
        required("ts", ColumnType::Timestamp, "start time"),
        NANOS,
        required("duration_ns", ColumnType::Long, "duration in nanoseconds"),
        required("trace_id", ColumnType::Text, "32 hexadecimal digits"),
        required("span_id", ColumnType::Text, "16 hexadecimal digits"),
        optional("parent_id", ColumnType::Text, "id of the parent span"),
        SERVICE,
        required("name", ColumnType::Text, "name of the operation"),
        required("kind", ColumnType::Text, "`internal`, `server`, `client`, `producer` or `consumer`"),
        required("failed", ColumnType::Boolean, "whether its status is error"),
        required("labels", ColumnType::Labels, "attributes of the resource and the span"),
        SEQ,
        REQUEST,
    ],
    entity: true,
    lineage: true,
};

/// Accepted requests.
pub(crate) const TELEMETRY: TableSchema = TableSchema {
    name: "bronze.telemetry",
    comment: "An accepted request, and where its bytes are: a frame in a segment of the bus, until that is deleted.",
    columns: &[
        required("ts", ColumnType::Timestamp, "when the request was received"),
        required("principal", ColumnType::Text, "principal that sent it"),
        required("protocol", ColumnType::Text, "the source that decodes it"),
        required("content_type", ColumnType::Text, "content type as sent"),
        required("content_encoding", ColumnType::Text, "content encoding as sent; empty for none"),
        required("sha256", ColumnType::Text, "SHA-256 of the body as received, in hexadecimal digits"),
        required("size_bytes", ColumnType::Long, "size of the body as received, in bytes"),
        required("segment", ColumnType::Text, "file of the bus segment"),
        required("segment_position", ColumnType::Long, "position of its frame in the segment"),
        required("segment_bytes", ColumnType::Long, "length of its frame in the segment"),
        optional("payload", ColumnType::Text, "body of a small event: uncompressed JSON of at most 256 KiB"),
    ],
    entity: false,
    lineage: true,
};

/// Records that were not accepted.
pub(crate) const QUARANTINE: TableSchema = TableSchema {
    name: "silver.quarantine",
    comment: "Records of a request that were not accepted, and why. Untrusted text.",
    columns: &[
        required("ts", ColumnType::Timestamp, "when the request was received"),
        required("principal", ColumnType::Text, "principal that sent it"),
        required("protocol", ColumnType::Text, "the source that decodes it"),
        required(
            "reason",
            ColumnType::Text,
            "such as `too_old` or `series_limit`; `unreadable` for a request that cannot be decoded",
        ),
        optional("detail", ColumnType::Text, "message of the decoder"),
        required("first", ColumnType::Long, "first record, counted within the request from 0"),
        required("last", ColumnType::Long, "last record"),
        optional("payload", ColumnType::Text, "the request's body, if uncompressed JSON of at most 256 KiB"),
    ],
    entity: false,
    lineage: true,
};

/// Tables filled from the bus, in the order in which they are written.
pub(crate) const EVENT_TABLES: [&TableSchema; 8] =
    [&TELEMETRY, &QUARANTINE, &LOGS, &SPANS, &EVENTS, &HISTOGRAMS, &EXEMPLARS, &LOG_TEMPLATES];

const NAME: Column = required("name", ColumnType::Text, "name of the metric");
const SERIES_LABELS: Column = required("labels", ColumnType::Labels, "all labels of the series, including the name");

/// Native histograms.
pub(crate) const HISTOGRAMS: TableSchema = TableSchema {
    name: "silver.histograms",
    comment: "A native histogram of a series, from remote_write or OTLP (exponential histogram).",
    columns: &[
        required("ts", ColumnType::Timestamp, "timestamp"),
        NAME,
        SERIES_LABELS,
        required("count", ColumnType::Double, "number of observations"),
        required(
            "sum",
            ColumnType::Double,
            "sum of the observations; NaN with the bits 7ff0000000000002 is a staleness marker",
        ),
        required(
            "schema",
            ColumnType::Int,
            "resolution: -4 to 8, each bucket is 2^(2^-schema) times as wide as the previous one; -53 for `bounds`",
        ),
        required("zero_threshold", ColumnType::Double, "absolute values up to this are in the zero bucket"),
        required("zero_count", ColumnType::Double, "observations in the zero bucket"),
        required(
            "positive_spans",
            ColumnType::Longs,
            "spans of positive buckets, two numbers each: offset from the previous span (first: index), length",
        ),
        required("positive_counts", ColumnType::Doubles, "observations per bucket"),
        required("negative_spans", ColumnType::Longs, "spans of negative buckets"),
        required("negative_counts", ColumnType::Doubles, "observations per bucket"),
        required("bounds", ColumnType::Doubles, "upper bounds of the buckets, if the schema is -53"),
        required(
            "reset_hint",
            ColumnType::Text,
            "`unknown`, `yes`, `no` or `gauge`: whether the counter was reset since the previous histogram",
        ),
        SEQ,
        REQUEST,
    ],
    entity: false,
    lineage: true,
};

/// Exemplars.
pub(crate) const EXEMPLARS: TableSchema = TableSchema {
    name: "silver.exemplars",
    comment: "An exemplar of a series, usually with a trace id. Untrusted text.",
    columns: &[
        required("ts", ColumnType::Timestamp, "timestamp"),
        NAME,
        SERIES_LABELS,
        required("exemplar", ColumnType::Labels, "labels of the exemplar, such as `trace_id`"),
        required("value", ColumnType::Double, "observed value"),
        SEQ,
        REQUEST,
    ],
    entity: false,
    lineage: true,
};

/// Events.
pub(crate) const EVENTS: TableSchema = TableSchema {
    name: "silver.events",
    comment: "Something that happened once: a deployment, a restart, a changed setting. Untrusted text.",
    columns: &[
        TS,
        NANOS,
        required("event_id", ColumnType::Text, "hash of time, entity, kind, source and attributes"),
        required("kind", ColumnType::Text, "such as `deployment`, `restart`, `oom_kill`, `setting` or `scale`"),
        required("source", ColumnType::Text, "`ingest` if a sender said so, `inferred` from metrics, traces or logs"),
        SERVICE,
        optional("version", ColumnType::Text, "version that was deployed"),
        optional("status", ColumnType::Text, "`success`, `failed`, … as sent"),
        required("attributes", ColumnType::Labels, "other details, such as `previous_version`, `key`, `from`, `to`"),
        SEQ,
        REQUEST,
    ],
    entity: true,
    lineage: true,
};

/// Deployments of builds before [`EVENTS`]. Read, and no longer written.
pub(crate) const DEPLOYMENTS: TableSchema = TableSchema {
    name: "silver.deployments",
    comment: "A deployment of a version.",
    columns: &[
        TS,
        NANOS,
        required("service", ColumnType::Text, "the service, by the rules of `entities`"),
        required("version", ColumnType::Text, "deployed version"),
        required("status", ColumnType::Text, "`success`, `failed`, … as sent"),
        required("labels", ColumnType::Labels, "other attributes from the sender"),
        SEQ,
        REQUEST,
    ],
    entity: false,
    lineage: true,
};

/// Tables of earlier builds that are read and maintained if they exist, and get no more rows.
pub(crate) const FORMER_TABLES: [&TableSchema; 1] = [&DEPLOYMENTS];

const INCIDENT: Column = required("incident", ColumnType::Text, "key of the incident, derived from its trigger");
const INCIDENT_ID: Column = optional("incident_id", ColumnType::Text, "display id, such as `INC-42`");

/// Incidents.
pub(crate) const INCIDENTS: TableSchema = TableSchema {
    name: "gold.incidents",
    comment: "An incident in its current state. Partitioned by the day on which it was opened.",
    columns: &[
        required("ts", ColumnType::Timestamp, "when it was opened, by telemetry time"),
        INCIDENT,
        INCIDENT_ID,
        required("title", ColumnType::Text, "title, one line"),
        required("severity", ColumnType::Text, "`info`, `warning`, `high` or `critical`"),
        required("state", ColumnType::Text, "state, `open` to `closed`"),
        optional("service", ColumnType::Text, "name of the first affected entity"),
        required("services", ColumnType::Texts, "names of the affected entities, the first one first"),
        required("trigger", ColumnType::Text, "`sustained_breach` or `deployment_correlation`"),
        required("began_at", ColumnType::Timestamp, "start of the problem, by telemetry time"),
        optional("settled_at", ColumnType::Timestamp, "when it was settled, by telemetry time"),
        optional("outcome", ColumnType::Text, "`resolved`, `inconclusive`, `escalated`, `rejected` or `noise`"),
        optional("cause_service", ColumnType::Text, "name of the entity of the top-ranked cause"),
        optional("cause_entity_kind", ColumnType::Text, "kind of that entity"),
        optional("cause_namespace", ColumnType::Text, "namespace of that entity"),
        optional("cause_environment", ColumnType::Text, "deployment environment of that entity"),
        optional("cause_cluster", ColumnType::Text, "cluster of that entity"),
        optional("cause_kind", ColumnType::Text, "rule that names the top-ranked cause"),
        optional("cause_confidence", ColumnType::Double, "confidence of the top-ranked cause, 0 to 1"),
        optional("verdict", ColumnType::Text, "verdict of a person: `real`, `noise` or `wrong_cause`"),
    ],
    entity: true,
    lineage: false,
};

/// Evidence of incidents.
pub(crate) const ENRICHMENTS: TableSchema = TableSchema {
    name: "gold.enrichments",
    comment: "A piece of evidence of an incident. Partitioned by the day on which the incident was opened.",
    columns: &[
        required("ts", ColumnType::Timestamp, "when it was observed"),
        INCIDENT,
        INCIDENT_ID,
        required("kind", ColumnType::Text, "such as `anomaly`, `deployment`, `log` or `edge`"),
        required("evidence_id", ColumnType::Text, "unique within the incident"),
        SERVICE,
        required("summary", ColumnType::Text, "summary, one line; may quote telemetry: untrusted text"),
        required("cited", ColumnType::Boolean, "whether the top-ranked cause cites it"),
    ],
    entity: true,
    lineage: false,
};

/// Tool calls.
pub(crate) const TOOL_RESULTS: TableSchema = TableSchema {
    name: "gold.tool_results",
    comment: "A tool call from proposal to outcome. Partitioned by the day on which the incident was opened.",
    columns: &[
        required(
            "ts",
            ColumnType::Timestamp,
            "when it was executed, by telemetry time; if it was not, when the incident was opened",
        ),
        INCIDENT,
        INCIDENT_ID,
        required("plan_sha256", ColumnType::Text, "SHA-256 of the plan, which a person approves"),
        required("tool", ColumnType::Text, "tool"),
        required("operation", ColumnType::Text, "operation of the tool"),
        required("target", ColumnType::Text, "target of the operation"),
        required("arguments", ColumnType::Text, "arguments as JSON"),
        required("risk", ColumnType::Text, "risk by the dry run"),
        required("runbook", ColumnType::Text, "runbook that proposed it"),
        optional("approved_by", ColumnType::Text, "approver"),
        optional("approved_through", ColumnType::Text, "channel of the approval"),
        optional("outcome", ColumnType::Text, "outcome of the execution, if it started"),
        optional("undo", ColumnType::Text, "outcome of the undo, if it was tried"),
    ],
    entity: false,
    lineage: false,
};

/// Health of services.
pub(crate) const SERVICE_HEALTH: TableSchema = TableSchema {
    name: "gold.service_health",
    comment: "Health of a service in a window of some minutes, by the signals that detection derives from its series.",
    columns: &[
        required("ts", ColumnType::Timestamp, "start of the window"),
        required("seconds", ColumnType::Int, "length of the window in seconds"),
        SERVICE,
        optional("requests_per_second", ColumnType::Double, "average request rate"),
        optional("error_ratio", ColumnType::Double, "average share of failed requests, 0 to 1"),
        optional("latency_p99_seconds", ColumnType::Double, "highest 99th percentile of the duration"),
        optional("cpu_ratio", ColumnType::Double, "highest share of the CPU limit"),
        optional("memory_ratio", ColumnType::Double, "highest share of the memory limit"),
        required("breaches", ColumnType::Int, "signals in sustained breach at the time of writing"),
    ],
    entity: true,
    lineage: false,
};

/// Signed heads of the audit log.
pub(crate) const AUDIT_HEADS: TableSchema = TableSchema {
    name: "gold.audit_heads",
    comment: "A signed head of the audit log, the first of each day: evidence outside of the database and the executor.",
    columns: &[
        required("ts", ColumnType::Timestamp, "when it was signed"),
        required("sequence", ColumnType::Long, "number of the last entry that it covers"),
        required("hash", ColumnType::Text, "hash of that entry, which depends on all entries before"),
        required("key_id", ColumnType::Text, "id of the key"),
        required("signed_head", ColumnType::Text, "the head with its public key and signature, as JSON"),
    ],
    entity: false,
    lineage: false,
};

/// Tables derived from incidents, signals and the audit log.
pub(crate) const GOLD_TABLES: [&TableSchema; 5] =
    [&INCIDENTS, &ENRICHMENTS, &TOOL_RESULTS, &SERVICE_HEALTH, &AUDIT_HEADS];

/// Label sets of series.
pub(crate) const SERIES: TableSchema = TableSchema {
    name: "silver.series",
    comment: "The label set of a series id. A label set that was evicted and came back may have several ids.",
    columns: &[
        required("series_id", ColumnType::Long, "id of the series"),
        NAME,
        SERIES_LABELS,
        required("first_seen", ColumnType::Timestamp, "time of the first sample"),
    ],
    entity: true,
    lineage: true,
};

/// The view of the deployments among the events.
pub(crate) const DEPLOYMENTS_VIEW: &str = "deployments";

/// Returns the names, without layer, by which a query may read a table: its own, and those of its views.
pub fn names_in_queries(table: &str) -> impl Iterator<Item = &str> {
    let views: &[&str] = if table == EVENTS.name { &[DEPLOYMENTS_VIEW] } else { &[] };
    std::iter::once(table.rsplit('.').next().unwrap_or(table)).chain(views.iter().copied())
}

/// Returns the names of all tables, also of former ones.
pub(crate) fn table_names() -> impl Iterator<Item = &'static str> {
    let tables = [&SAMPLES, &SERIES].into_iter().chain(EVENT_TABLES).chain(GOLD_TABLES).chain(FORMER_TABLES);
    tables.map(|table| table.name)
}

/// Names of the counter reset hints, by their number in remote_write.
pub(crate) const RESET_HINTS: [&str; 4] = ["unknown", "yes", "no", "gauge"];
