//! What the ranking weighs: numbers of each suspect, comparable between estates.

use wardroom_domain::{EntityKind, EventKind, RelationKind, SignalKind};

use crate::facts::TemplateChange;
use crate::suspect::{Case, Suspect};

/// Names of the features, in the order of [`Features`]. The weights file names its weights alike.
pub const FEATURES: [&str; 24] = [
    "inside",
    "inside-size",
    "down",
    "own-errors",
    "errors-share",
    "own-latency",
    "latency-share",
    "queue",
    "starves",
    "explained",
    "blamed-seen",
    "blamed-hidden",
    "link-out",
    "affected",
    "early",
    "deployment",
    "setting",
    "restart",
    "new-logs",
    "more-logs",
    "gone-logs",
    "other-size",
    "drop",
    "withholds",
];

/// The features of one suspect, each about 0..1.
pub type Features = [f64; FEATURES.len()];

/// Returns the features of every suspect, in their order.
pub(crate) fn features(case: &Case<'_>) -> Vec<Features> {
    let largest = |value: fn(&Suspect<'_>) -> f64| case.suspects.iter().map(value).fold(0.0, f64::max);
    let scale = Scale {
        inside: largest(|suspect| size(suspect, true)),
        other: largest(|suspect| size(suspect, false)),
        failing: (0..case.suspects.len()).map(|index| case.excess(index).0).fold(0.0, f64::max),
        waiting: (0..case.suspects.len()).map(|index| case.excess(index).1).fold(0.0, f64::max),
        earliest: case.suspects.iter().filter_map(Suspect::onset).map(|onset| onset.seconds_f64()).reduce(f64::min),
    };
    (0..case.suspects.len()).map(|index| features_of(case, index, &scale)).collect()
}

/// Largest values of a case, which the suspects' are compared with.
struct Scale {
    inside: f64,
    other: f64,
    failing: f64,
    waiting: f64,
    earliest: Option<f64>,
}

/// Returns the size of the largest shift: of resources, or of anything else.
fn size(suspect: &Suspect<'_>, of_resources: bool) -> f64 {
    let counts = |kind: SignalKind| match kind {
        SignalKind::Saturation | SignalKind::Restarts => of_resources,
        SignalKind::Other => !of_resources,
        _ => false,
    };
    let shifts = suspect.own.iter().filter(|fact| counts(fact.signal.kind) && !fact.is_internal);
    shifts.map(|fact| (fact.badness() - 2.0).max(0.0).ln_1p()).fold(0.0, f64::max)
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

fn features_of(case: &Case<'_>, index: usize, scale: &Scale) -> Features {
    let suspect = &case.suspects[index];
    let levels = suspect.levels;
    let (errors_explained, latency_explained) = case.explained(index);
    let starved = suspect.dependents.iter().map(|(other, _)| case.starves(*other, index)).fold(0.0, f64::max);
    let starves = suspect.dependencies.iter().map(|(other, _)| case.starves(index, *other)).fold(0.0, f64::max);
    let own_errors = levels.errors * (1.0 - errors_explained) * (1.0 - starved);
    let own_latency = levels.latency * (1.0 - latency_explained);
    let explained = (levels.errors - own_errors).max(levels.latency - own_latency).max(starved);
    let (failing, waiting) = case.excess(index);
    // What a visible entity answers with errors is among its own errors; what takes longer on the way is not.
    let (seen, hidden) = if suspect.is_seen() {
        let slowness = |from, to| Some(case.edge_slowness(from, to)? * (1.0 - case.held_up_elsewhere(from, to)));
        (blamed(case, index, slowness), 0.0)
    } else {
        (0.0, blamed(case, index, |from, to| case.edge_badness(from, to)))
    };
    let onset = suspect.onset().unwrap_or(case.facts.began_at);
    let early = match (suspect.onset(), scale.earliest) {
        (Some(onset), Some(earliest)) => (-(onset.seconds_f64() - earliest) / 60.0).exp(),
        _ => 0.0,
    };
    let closeness = |kind: EventKind, within: f64| {
        let event = suspect.change(kind, onset, within);
        event.map_or(0.0, |event| (-onset.seconds_since(event.at).max(0.0) / (within / 2.0)).exp())
    };
    // A change of something that works as before explains nothing.
    let sign = sign(case, index);
    let killed = if is_node(suspect) { 0.0 } else { closeness(EventKind::OomKill, 300.0) };
    let restarted = killed.max(0.5 * closeness(EventKind::Restart, 300.0));
    let inside = levels.inside.max(levels.waiting * (1.0 - case.waiting_explained(index)));
    let (logs_explained, withheld) = (case.logs_explained(index), case.withheld(index));
    let logs = |changes: &[TemplateChange]| {
        suspect.logs(changes).map_or(0.0, |(strength, _)| strength)
            * (1.0 - 0.8 * logs_explained)
            * (1.0 - 0.8 * withheld)
    };
    [
        inside,
        share(size(suspect, true), scale.inside) * inside,
        levels.down.max(0.3 * levels.exporter_down),
        own_errors,
        share(failing, scale.failing) * own_errors,
        own_latency,
        share(waiting, scale.waiting) * own_latency,
        levels.queue * (1.0 - starved),
        starves,
        explained,
        seen,
        hidden,
        link_out(case, index),
        affected(case, index),
        early * sign,
        closeness(EventKind::Deployment, 600.0) * sign,
        closeness(EventKind::Setting, 600.0) * sign,
        restarted,
        logs(&[TemplateChange::New]),
        logs(&[TemplateChange::Burst]).max(levels.logs),
        logs(&[TemplateChange::Gone]),
        share(size(suspect, false), scale.other) * levels.other,
        case.own_drop(index),
        case.withholds(index).map_or(0.0, |(_, lost)| lost),
    ]
}

/// Whether the suspect is a machine: what is killed or started again there is one of its processes.
fn is_node(suspect: &Suspect<'_>) -> bool {
    suspect.entity.kind == EntityKind::Node
}

/// Returns how much anything about a suspect differs from before, 0..1: without any sign it is no candidate.
pub(crate) fn sign(case: &Case<'_>, index: usize) -> f64 {
    let suspect = &case.suspects[index];
    let levels = suspect.levels;
    let logs = suspect.templates.iter().map(|(strength, _)| *strength);
    let calls = suspect.calls.iter().chain(&suspect.called).map(|fact| fact.strength());
    let events = suspect.events.iter().filter(|event| event.kind == EventKind::OomKill && !is_node(suspect));
    let own = suspect.symptom().max(levels.exporter_down).max(levels.other).max(levels.logs).max(levels.drop);
    let withholds = case.withholds(index).map(|(_, lost)| lost);
    logs.chain(calls).chain(events.map(|_| 0.5)).chain(withholds).fold(own, f64::max)
}

/// Returns how badly the calls of others to this one go, as a mean over its callers.
fn blamed(case: &Case<'_>, index: usize, badness: impl Fn(usize, usize) -> Option<f64>) -> f64 {
    let dependents = case.suspects[index].dependents.iter();
    let edges: Vec<f64> = dependents.filter_map(|(caller, _)| badness(*caller, index)).collect();
    if edges.is_empty() { 0.0 } else { edges.iter().sum::<f64>() / edges.len() as f64 }
}

/// Returns the share of a suspect's calls that go badly although the callee is healthy by its own numbers.
fn link_out(case: &Case<'_>, index: usize) -> f64 {
    let dependencies = case.suspects[index].dependencies.iter();
    let edges: Vec<f64> = dependencies
        .filter_map(|(callee, _)| {
            let other = &case.suspects[*callee];
            let badness = case.edge_badness(index, *callee)?;
            let elsewhere = 1.0 - case.held_up_elsewhere(index, *callee);
            other.is_seen().then(|| badness * (1.0 - other.symptom()).max(0.0) * elsewhere)
        })
        .collect();
    if edges.is_empty() { 0.0 } else { edges.iter().sum::<f64>() / edges.len() as f64 }
}

/// Returns how many of those that depend on this one are badly off, in a form between 0 and 1.
fn affected(case: &Case<'_>, index: usize) -> f64 {
    let dependents = &case.suspects[index].dependents;
    let bad = dependents
        .iter()
        .filter(|(_, kind)| *kind != RelationKind::PartOf)
        .map(|(other, _)| case.edge_badness(*other, index).unwrap_or_else(|| case.suspects[*other].symptom()))
        .sum::<f64>();
    if dependents.is_empty() { 0.0 } else { (bad / dependents.len() as f64) * (1.0 - (-bad).exp()) }
}
