//! Evidence: one observation, what it is about, when, and one line that says what was measured.

use wardroom_domain::canonical::short_hash;
use wardroom_domain::{Event, EventKind, Evidence, SignalKind, Timestamp};
use wardroom_signals::SignalUnit;

use crate::facts::{SignalFact, TemplateChange, TemplateFact};

/// Evidence that a claim rests on.
#[derive(Clone, Copy)]
pub(crate) enum Cited<'a> {
    Signal(&'a SignalFact),
    Event(&'a Event),
    Template(&'a TemplateFact),
}

/// Returns the evidence that a claim cites.
pub(crate) fn cited_evidence(cited: &Cited<'_>, began_at: Timestamp) -> Evidence {
    match cited {
        Cited::Signal(fact) => signal_evidence(fact, began_at),
        Cited::Event(event) => event_evidence(event),
        Cited::Template(template) => template_evidence(template),
    }
}

pub(crate) fn signal_evidence(fact: &SignalFact, began_at: Timestamp) -> Evidence {
    let labels = fact.signal.labels().to_string();
    let id = format!("signal:{}:{}:{}", fact.signal.entity.name, what(fact), short_hash(&labels));
    let mut summary = signal_summary(fact);
    if let Some(peer) = &fact.signal.peer {
        summary = format!("calls to {peer}: {summary}");
    }
    Evidence { id, entity: fact.signal.entity.clone(), at: fact.onset.unwrap_or(began_at), summary }
}

pub(crate) fn event_evidence(event: &Event) -> Evidence {
    let text = |name: &str| event.attributes.get(name).unwrap_or_default();
    let summary = match event.kind {
        EventKind::Deployment => {
            let status = event.attributes.get("status").map(|status| format!(" ({status})")).unwrap_or_default();
            format!("version {} deployed{status}", text("version"))
        }
        EventKind::Setting => format!("setting {} changed from {} to {}", text("key"), text("from"), text("to")),
        EventKind::Restart => "started again".to_owned(),
        EventKind::OomKill => "killed because its memory limit was reached".to_owned(),
        EventKind::Scale => format!("scaled from {} to {}", text("from"), text("to")),
        kind => format!("{}: {}", kind.as_str(), text("reason")),
    };
    let id = format!("event:{}:{}:{}", event.entity.name, event.kind.as_str(), event.at.millis());
    Evidence { id, entity: event.entity.clone(), at: event.at, summary }
}

pub(crate) fn template_evidence(fact: &TemplateFact) -> Evidence {
    let before = fact.expected.map_or_else(String::new, |expected| format!(" (expected: {expected:.0})"));
    let summary = match fact.change() {
        Some(TemplateChange::Gone) => format!("{:.0} ×{before} “{}”: no longer logged", fact.count, fact.example),
        Some(TemplateChange::New) => format!("{:.0} × “{}”: not logged before", fact.count, fact.example),
        _ => format!("{:.0} ×{before} “{}”", fact.count, fact.example),
    };
    let id = format!("log:{}:{}", fact.entity.name, short_hash(&fact.template));
    Evidence { id, entity: fact.entity.clone(), at: fact.at, summary }
}

/// Returns kind and resource of a signal.
fn what(fact: &SignalFact) -> String {
    let kind = fact.signal.kind.as_str();
    if fact.signal.resource.is_empty() { kind.to_owned() } else { format!("{kind}:{}", fact.signal.resource) }
}

/// Returns what was measured, such as `31 % of requests fail (before: 0.2 %)`.
pub(crate) fn signal_summary(fact: &SignalFact) -> String {
    if fact.is_gone {
        return format!("{}: no points any more", what(fact));
    }
    let number = |value: f64| match fact.unit {
        SignalUnit::Ratio => format!("{} %", short(value * 100.0)),
        SignalUnit::Seconds if value.abs() < 10.0 => format!("{} ms", short(value * 1000.0)),
        SignalUnit::Seconds => format!("{} s", short(value)),
        SignalUnit::Bytes => format!("{} MiB", short(value / 1_048_576.0)),
        SignalUnit::PerSecond => format!("{}/s", short(value)),
        SignalUnit::Number => short(value),
    };
    let (value, before) = (number(fact.value), number(fact.expected));
    let resource =
        if fact.signal.resource.is_empty() { metric_name(&fact.signal.metric) } else { &fact.signal.resource };
    match fact.signal.kind {
        SignalKind::Errors if fact.unit == SignalUnit::Ratio => format!("{value} of requests fail (before: {before})"),
        SignalKind::Errors => format!("requests fail at {value} (before: {before})"),
        SignalKind::Latency => format!("latency is {value} (before: {before})"),
        SignalKind::Traffic => format!("traffic is {value} (before: {before})"),
        SignalKind::Availability if fact.signal.resource.is_empty() => format!("{value} up (before: {before})"),
        SignalKind::Availability => format!("{resource}: {value} up (before: {before})"),
        SignalKind::Saturation if fact.unit == SignalUnit::Ratio => {
            format!("{resource} at {value} of its limit (before: {before})")
        }
        SignalKind::Saturation => format!("{resource} is {value} (before: {before})"),
        SignalKind::Queue => format!("queue {resource} is {value} (before: {before})"),
        SignalKind::Restarts => "it restarts more often than before".to_owned(),
        SignalKind::Freshness => format!("the newest success of {resource} is {value} old (before: {before})"),
        SignalKind::Expiry => format!("{resource} expires in {} days", short(fact.value / 86_400.0)),
        SignalKind::Logs => format!("error lines at {value} (before: {before})"),
        SignalKind::Other => format!("{resource} is {value} (before: {before})"),
    }
}

/// Returns the metric's name where `metric` is the text of a series' labels.
fn metric_name(metric: &str) -> &str {
    let name = metric.split_once("__name__=\"").and_then(|(_, rest)| rest.split_once('"'));
    name.map_or(metric, |(name, _)| name)
}

/// Returns a number with about three significant digits.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
