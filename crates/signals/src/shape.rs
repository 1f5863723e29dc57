//! The meaning of a series that no convention knows, by its type and the words of its name.
//!
//! ```text
//! counter with a word for requests and an outcome or `_requests_total`   requests
//! counter with a word for failures                                      failures
//! histogram or summary of a time with a word for requests or an outcome durations
//! gauge with a word for waiting work                                    queue
//! gauge with the time of the newest success                             freshness
//! gauge with the time of an end of validity                             expiry
//! ```
//!
//! Everything else is watched against its own past only.

use wardroom_domain::{Entity, EntityKind, MetricMetadata, SignalKind};

use crate::compiled::Shape;
use crate::context::Context;
use crate::convention::SampleUnit;
use crate::meaning::{Outcome, Part, SeriesUse, SignalUnit};
use crate::outcome::outcome_of_labels;
use crate::series_part::{base_name, part_of, usual_direction};

/// Words for what is requested.
const REQUEST_WORDS: [&str; 28] = [
    "request",
    "requests",
    "req",
    "reqs",
    "rpc",
    "rpcs",
    "call",
    "calls",
    "query",
    "queries",
    "operation",
    "operations",
    "ops",
    "command",
    "commands",
    "transaction",
    "transactions",
    "invocation",
    "invocations",
    "response",
    "responses",
    "job",
    "jobs",
    "task",
    "tasks",
    "execution",
    "executions",
    "handled",
];
/// Words for failures in names of counters.
const FAILURE_WORDS: [&str; 14] = [
    "error",
    "errors",
    "failure",
    "failures",
    "failed",
    "fail",
    "exception",
    "exceptions",
    "timeout",
    "timeouts",
    "rejected",
    "rejections",
    "crashes",
    "panics",
];
/// Words for durations in names of histograms.
const DURATION_WORDS: [&str; 6] = ["duration", "latency", "durations", "latencies", "elapsed", "time"];
/// Words for the work of a runtime or library, which is no request of a service.
const INTERNAL_WORDS: [&str; 21] = [
    "gc",
    "compaction",
    "compactions",
    "scheduler",
    "wal",
    "fsync",
    "flush",
    "checkpoint",
    "checkpoints",
    "snapshot",
    "memstats",
    "goroutines",
    "classloader",
    "jit",
    "eventloop",
    "watch",
    "exporter",
    "reconcile",
    "workqueue",
    "leader",
    "reflector",
];
/// Prefixes of metrics about the monitoring itself and of runtimes' insides.
const INTERNAL_PREFIXES: [&str; 22] = [
    "go_",
    "python_",
    "scrape_",
    "promhttp_",
    "prometheus_",
    "net_conntrack_",
    "otelcol_",
    "otel_",
    "jvm_",
    "nodejs_",
    "ruby_",
    "dotnet_",
    "process_runtime_",
    "alertmanager_",
    "loki_",
    "tempo_",
    "cortex_",
    "thanos_",
    "vm_",
    "vmagent_",
    "wardroom_",
    "rest_client_",
];
/// Words for the caller's side of a call.
const CLIENT_WORDS: [&str; 7] = ["client", "upstream", "outgoing", "outbound", "external", "downstream", "remote"];
/// Labels of the caller's metrics with the name of what it calls.
const PEER_LABELS: [&str; 12] = [
    "upstream",
    "peer",
    "remote_service",
    "target_service",
    "destination_service_name",
    "destination_service",
    "callee",
    "dependency",
    "downstream",
    "backend",
    "client_name",
    "clientName",
];
/// Words for work that waits.
const QUEUE_WORDS: [&str; 6] = ["queue", "backlog", "lag", "pending", "waiting", "queued"];
/// Words for a size, in names of gauges with a word for waiting work.
const SIZE_WORDS: [&str; 11] =
    ["size", "length", "depth", "lag", "backlog", "pending", "messages", "items", "jobs", "tasks", "queued"];

/// Returns whether a metric is about the monitoring itself or the inside of a runtime.
pub(crate) fn is_internal(name: &str) -> bool {
    INTERNAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with("_created")
        || name.ends_with("_info")
        || words(name).any(|word| INTERNAL_WORDS.contains(&word))
}

/// What a name says.
struct Found {
    part: Part,
    kind: SignalKind,
    shape: Shape,
    family: String,
}

/// Returns the signal of a series by the shape of its name.
pub(crate) fn series_use(
    context: &Context<'_>,
    name: &str,
    metadata: Option<&MetricMetadata>,
    entity: Entity,
    instance: &str,
) -> Option<SeriesUse> {
    let outcome = match outcome_of_labels(context) {
        Outcome::Unknown => outcome_of_name(name),
        known => known,
    };
    let kind = metadata.map_or("", |metadata| metadata.kind);
    let found = match kind {
        "counter" => counter(name, outcome),
        "histogram" | "summary" => durations(context, name, metadata, outcome),
        "gauge" => gauge(name),
        _ => durations(context, name, metadata, outcome)
            .or_else(|| if name.ends_with("_total") { counter(name, outcome) } else { gauge(name) }),
    }?;
    let (unit, scale) = unit(&found, name, metadata);
    let part = part_of(context, found.part, found.shape, outcome, scale)?;
    let peer = peer(context, name).filter(|peer| *peer != entity && found.kind == SignalKind::Traffic);
    Some(SeriesUse {
        entity,
        peer,
        kind: found.kind,
        resource: if found.kind == SignalKind::Queue { queue_label(context) } else { String::new() },
        family: found.family,
        member: instance.to_owned(),
        part,
        scale,
        offset: 0.0,
        is_delta: false,
        unit,
        direction: usual_direction(found.kind),
    })
}

/// Returns what an outgoing call goes to.
fn peer(context: &Context<'_>, name: &str) -> Option<Entity> {
    if let Some(called) = crate::peer::called(context).filter(|_| is_client(name)) {
        return Some(called.entity);
    }
    let (_, peer) = context.view.first(&PEER_LABELS)?;
    Some(context.of_host(EntityKind::Service, wardroom_domain::entity_names::host_of(peer), true))
}

fn is_client(name: &str) -> bool {
    words(name).any(|word| CLIENT_WORDS.contains(&word))
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

/// Names of StatsD have the outcome among their words: `web_response_5xx`, `web_request_200`.
fn outcome_of_name(name: &str) -> Outcome {
    words(name).find_map(outcome_of_word).unwrap_or_default()
}

fn outcome_of_word(word: &str) -> Option<Outcome> {
    let mut characters = word.chars();
    let class = characters.next().filter(|class| ('1'..='5').contains(class))?;
    let rest = characters.as_str();
    let is_code = word.len() == 3 && (rest == "xx" || rest.bytes().all(|byte| byte.is_ascii_digit()));
    is_code.then_some(if class == '5' { Outcome::Failed } else { Outcome::Ok })
}

fn counter(name: &str, outcome: Outcome) -> Option<Found> {
    let stem = name.strip_suffix("_total").or_else(|| name.strip_suffix("_count")).unwrap_or(name);
    let found = |part, kind, family: String| Some(Found { part, kind, shape: Shape::Plain, family });
    if words(stem).any(|word| word == "restarts") {
        return found(Part::Count, SignalKind::Restarts, stem.to_owned());
    }
    if words(stem).any(|word| FAILURE_WORDS.contains(&word)) {
        // `http_requests_failed_total` counts what `http_requests_total` counts, too.
        let rest: Vec<_> = words(stem).filter(|word| !FAILURE_WORDS.contains(word)).collect();
        let has_requests = rest.iter().any(|word| REQUEST_WORDS.contains(word));
        let family = if has_requests { rest.join("_") } else { stem.to_owned() };
        return found(Part::Failures, SignalKind::Traffic, family);
    }
    // `web_response_5xx` and `web_response_2xx` are one family.
    let without_code: Vec<_> = words(stem).filter(|word| outcome_of_word(word).is_none()).collect();
    let stem = if without_code.len() < words(stem).count() { without_code.join("_") } else { stem.to_owned() };
    let stem = stem.as_str();
    let last_is_request = words(stem).last().is_some_and(|word| REQUEST_WORDS.contains(&word));
    let has_request = words(stem).any(|word| REQUEST_WORDS.contains(&word));
    let is_counted = last_is_request || has_request && outcome != Outcome::Unknown;
    if is_counted { found(Part::Requests(Outcome::Unknown), SignalKind::Traffic, stem.to_owned()) } else { None }
}

fn durations(context: &Context<'_>, name: &str, metadata: Option<&MetricMetadata>, outcome: Outcome) -> Option<Found> {
    let shape = match name {
        _ if name.ends_with("_bucket") && context.view.get("le").is_some() => Shape::Bucket,
        _ if name.ends_with("_sum") => Shape::Sum,
        _ if name.ends_with("_count") => Shape::Count,
        _ if context.view.get("quantile").is_some() => Shape::Plain,
        _ => return None,
    };
    let family = if shape == Shape::Plain { name } else { base_name(name) };
    let is_known = metadata.is_some_and(|metadata| matches!(metadata.kind, "histogram" | "summary"));
    let stated = metadata.and_then(|metadata| SampleUnit::of_metadata(&metadata.unit));
    let has_word = |known: &[&str]| words(family).any(|word| known.contains(&word));
    let unit = SampleUnit::of_name(family).or(stated);
    let is_time = match unit {
        Some(unit) => unit.normal().0 == SignalUnit::Seconds,
        None => (is_known || shape == Shape::Bucket) && has_word(&DURATION_WORDS),
    };
    let is_request = has_word(&REQUEST_WORDS) || outcome != Outcome::Unknown || has_word(&["http", "grpc", "latency"]);
    let found = Found { part: Part::DURATION, kind: SignalKind::Traffic, shape, family: family.to_owned() };
    (is_time && is_request).then_some(found)
}

fn gauge(name: &str) -> Option<Found> {
    let has = |known: &[&str]| words(name).any(|word| known.contains(&word));
    let found = |part, kind| Some(Found { part, kind, shape: Shape::Plain, family: name.to_owned() });
    let is_time = has(&["timestamp"]) && has(&["seconds", "timestamp"]);
    if is_time && has(&["last"]) && !has(&FAILURE_WORDS) {
        return found(Part::Time, SignalKind::Freshness);
    }
    if has(&["expiry", "expiration", "expires"]) && has(&["seconds", "timestamp"]) {
        return found(Part::Time, SignalKind::Expiry);
    }
    if has(&QUEUE_WORDS) && has(&SIZE_WORDS) && !has(&["max", "limit", "capacity", "bytes", "seconds", "time"]) {
        return found(Part::Value, SignalKind::Queue);
    }
    let last = words(name).last().unwrap_or_default();
    if matches!(last, "utilization" | "saturation") || has(&["utilization", "usage"]) && last == "ratio" {
        return found(Part::Value, SignalKind::Saturation);
    }
    None
}

fn unit(found: &Found, name: &str, metadata: Option<&MetricMetadata>) -> (SignalUnit, f64) {
    match (found.part, found.kind) {
        (Part::Bucket(..), _) => {
            let stated = metadata.and_then(|metadata| SampleUnit::of_metadata(&metadata.unit));
            SampleUnit::of_name(base_name(name)).or(stated).unwrap_or(SampleUnit::Seconds).normal()
        }
        (Part::Time, _) => (SignalUnit::Seconds, 1.0),
        (Part::Requests(_) | Part::Failures, _) => (SignalUnit::PerSecond, 1.0),
        (_, SignalKind::Saturation) => (SignalUnit::Ratio, 1.0),
        _ => (SignalUnit::Number, 1.0),
    }
}

/// Returns the name of the queue, so that queues of one process are apart.
fn queue_label(context: &Context<'_>) -> String {
    let name = context.view.value(&["queue", "queue_name", "topic", "name", "key", "partition"]);
    name.unwrap_or_default().to_owned()
}
