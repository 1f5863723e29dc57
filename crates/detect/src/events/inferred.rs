//! Events that metrics show: a version or pod template that begins to run, a process that started again, a container
//! that was restarted or killed, a changed number of replicas.
//!
//! Nothing is inferred from what is seen for the first time: only a second version of a known entity is a deployment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Entity, EntityKind, Event, EventKind, Labels, SignalKind, Timestamp};
use wardroom_signals::{Part, SeriesMeaning};

use super::{Events, INFERRED, INGEST, VERSION};

/// Series that are watched for events, by tenant.
const MAX_WATCHES: usize = 50_000;
/// Series of one instance that are watched for the same version: any of them shows it.
const MAX_SERIES_PER_VARIANT: u8 = 2;
/// Entities whose versions are kept.
const MAX_VARIANT_ENTITIES: usize = 20_000;
/// Versions kept of one entity; the one that was not seen for longest is evicted.
const MAX_VARIANTS: usize = 16;
/// Maximum length of a version, in bytes; a longer one is cut.
const MAX_VERSION_BYTES: usize = 200;
/// An entity is known for this long before another version is a deployment, in ms of telemetry's time: at the start,
/// all versions that run are seen for the first time.
const MIN_KNOWN_MS: i64 = 60_000;
/// A version that was not seen for this long begins again, in ms of telemetry's time.
const VARIANT_GAP_MS: i64 = 100_000;
/// Two signs of a deployment within this time are of one, in ms.
const SAME_DEPLOYMENT_MS: i64 = 180_000;
/// A start time is believed if it is at most this long before its sample, in ms.
const MAX_START_AGE_MS: i64 = 3_600_000;
/// Smallest step of a start time that is a restart, in seconds: some clients compute it from an uptime.
const MIN_START_STEP_SECONDS: f64 = 5.0;
/// Versions that were not seen for this long are forgotten, in ms of telemetry's time.
const RETENTION_MS: i64 = 24 * 3_600_000;
/// Labels with the name of a pod.
const POD_LABELS: [&str; 5] = ["pod", "k8s.pod.name", "k8s_pod_name", "kubernetes_pod_name", "pod_name"];
/// Resource of kills because of a memory limit.
const OOM: &str = "oom";

/// What a series may show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum WatchKind {
    /// The series exists while this version runs.
    Version(String),
    /// The series exists while pods of this template run.
    Template(String),
    /// Unix time of a process' start, in seconds.
    Start,
    /// Counter of restarts.
    Restarts,
    /// Counter of kills because of a memory limit, or 1 after one.
    OomKills,
    /// Wanted number of replicas.
    Replicas,
}

impl WatchKind {
    const fn variant(&self) -> Option<&String> {
        match self {
            Self::Version(variant) | Self::Template(variant) => Some(variant),
            Self::Start | Self::Restarts | Self::OomKills | Self::Replicas => None,
        }
    }
}

/// What one series is watched for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ObservedSeries {
    entity: Entity,
    kind: WatchKind,
    /// Which instance says so.
    instance: String,
    /// The newest value.
    last: Option<f64>,
}

/// A version of an entity.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Variant {
    /// When it was seen last, in ms.
    last_ms: i64,
}

/// The versions, or pod templates, of an entity.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Variants {
    first_ms: i64,
    current: String,
    seen: BTreeMap<String, Variant>,
}

/// State of the inference.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Inferred {
    /// By the index that a series has.
    watches: Vec<Vec<ObservedSeries>>,
    /// By entity, and whether the variants are pod templates.
    variants: BTreeMap<(Entity, bool), Variants>,
    /// Number of watched series by entity, variant and instance.
    watched: BTreeMap<(Entity, String, String), u8>,
}

/// Returns what a series is watched for, with the entity that it tells about.
pub(crate) fn watches_of(
    labels: &Labels,
    meaning: &SeriesMeaning,
    version: Option<(Entity, String)>,
) -> Vec<(Entity, WatchKind)> {
    let mut found: Vec<(Entity, WatchKind)> = Vec::new();
    found.extend(version.map(|(entity, version)| (entity, WatchKind::Version(cut(version)))));
    found.extend(meaning.entity.as_ref().and_then(|entity| {
        let template = pod_template(entity, labels)?;
        Some((entity.clone(), WatchKind::Template(template)))
    }));
    found.extend(meaning.uses.iter().filter_map(|usage| {
        let kind = match (usage.kind, usage.part) {
            (SignalKind::Restarts, Part::Time) => WatchKind::Start,
            (SignalKind::Restarts, Part::Count | Part::Value | Part::Rate) if usage.resource.contains(OOM) => {
                WatchKind::OomKills
            }
            (SignalKind::Restarts, Part::Count) => WatchKind::Restarts,
            (SignalKind::Availability, Part::Desired) => WatchKind::Replicas,
            _ => return None,
        };
        Some((usage.entity.clone(), kind))
    }));
    found
}

/// Returns the hash of the pod template in the name of a pod of a Deployment: `7d9f6c5b8` in `orders-7d9f6c5b8-x2x4z`.
fn pod_template(workload: &Entity, labels: &Labels) -> Option<String> {
    if workload.kind != EntityKind::Workload {
        return None;
    }
    let pod = POD_LABELS.iter().find_map(|label| labels.get(label))?;
    let (template, pod) = pod.strip_prefix(workload.name.as_str())?.strip_prefix('-')?.split_once('-')?;
    let is_hash = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_hash(template) && is_hash(pod)).then(|| template.to_owned())
}

fn cut(mut version: String) -> String {
    version.truncate(version.floor_char_boundary(MAX_VERSION_BYTES));
    version
}

impl Inferred {
    /// Watches a series; returns its index, or `None` if there is nothing to watch or a limit is reached.
    pub(crate) fn watch(&mut self, found: Vec<(Entity, WatchKind)>, instance: &str) -> Option<u32> {
        if found.is_empty() || self.watches.len() >= MAX_WATCHES {
            return None;
        }
        let mut watches = Vec::new();
        for (entity, kind) in found {
            let watch = ObservedSeries { entity, kind, instance: instance.to_owned(), last: None };
            if let Some(key) = watched_key(&watch) {
                let series = self.watched.entry(key).or_default();
                if *series >= MAX_SERIES_PER_VARIANT {
                    continue;
                }
                *series += 1;
            }
            watches.push(watch);
        }
        if watches.is_empty() {
            return None;
        }
        self.watches.push(watches);
        u32::try_from(self.watches.len() - 1).ok()
    }

    /// Adds the newest sample of a watched series; adds the events that it shows.
    pub(crate) fn observe(&mut self, index: u32, (at_ms, value): (i64, f64), events: &mut Events) {
        let Some(watches) = self.watches.get_mut(index as usize).filter(|_| !value.is_nan()) else { return };
        for watch in watches {
            let last = watch.last.replace(value);
            let (entity, at) = (&watch.entity, Timestamp::from_millis(at_ms));
            let event = |at: Timestamp, kind: EventKind, attributes: Vec<(&str, String)>| Event {
                at,
                entity: entity.clone(),
                kind,
                source: INFERRED.to_owned(),
                attributes: Labels::new(attributes),
            };
            match (&watch.kind, last) {
                (WatchKind::Version(variant), _) => {
                    observe_variant(&mut self.variants, entity, false, variant, at_ms, events)
                }
                (WatchKind::Template(variant), _) => {
                    observe_variant(&mut self.variants, entity, true, variant, at_ms, events)
                }
                (WatchKind::Start, Some(last)) if value >= last + MIN_START_STEP_SECONDS => {
                    let started_ms = (value * 1000.0) as i64;
                    let is_near = (at_ms - MAX_START_AGE_MS..=at_ms).contains(&started_ms);
                    let at = if is_near { Timestamp::from_millis(started_ms) } else { at };
                    events.insert(event(at, EventKind::Restart, vec![("instance", watch.instance.clone())]));
                }
                (WatchKind::Restarts, Some(last)) if value > last => {
                    let count = (value - last).to_string();
                    events.insert(event(at, EventKind::Restart, vec![("count", count)]));
                }
                (WatchKind::OomKills, Some(last)) if value > last => {
                    let count = (value - last).to_string();
                    events.insert(event(at, EventKind::OomKill, vec![("count", count)]));
                }
                (WatchKind::Replicas, Some(last)) if value != last => {
                    let attributes = vec![("from", last.to_string()), ("to", value.to_string())];
                    events.insert(event(at, EventKind::Scale, attributes));
                }
                (WatchKind::Start | WatchKind::Restarts | WatchKind::OomKills | WatchKind::Replicas, _) => {}
            }
        }
    }

    /// Records that an entity runs a version.
    pub(crate) fn observe_version(&mut self, entity: &Entity, version: &str, at_ms: i64, events: &mut Events) {
        let version = version.split_at(version.floor_char_boundary(MAX_VERSION_BYTES)).0;
        observe_variant(&mut self.variants, entity, false, version, at_ms, events);
    }

    /// Forgets versions that were not seen for long.
    pub(crate) fn evict(&mut self, now_ms: i64) {
        let oldest_ms = now_ms.saturating_sub(RETENTION_MS);
        self.variants.retain(|_, variants| variants.seen.values().any(|variant| variant.last_ms >= oldest_ms));
    }

    /// Keeps the marked series' watches and renumbers them densely, in their order.
    pub(crate) fn renumber(&mut self, keep: &[bool]) {
        let mut kept = keep.iter();
        self.watches.retain(|_| kept.next().copied().unwrap_or_default());
        self.watched.clear();
        for key in self.watches.iter().flatten().filter_map(watched_key) {
            *self.watched.entry(key).or_default() += 1;
        }
    }

    /// Returns the number of watched series.
    pub(crate) fn len(&self) -> usize {
        self.watches.len()
    }
}

fn watched_key(watch: &ObservedSeries) -> Option<(Entity, String, String)> {
    let variant = watch.kind.variant()?;
    Some((watch.entity.clone(), variant.clone(), watch.instance.clone()))
}

/// Records that a version or pod template is running; adds a deployment if it has just begun to.
fn observe_variant(
    all: &mut BTreeMap<(Entity, bool), Variants>,
    entity: &Entity,
    is_template: bool,
    variant: &str,
    at_ms: i64,
    events: &mut Events,
) {
    let key = (entity.clone(), is_template);
    if !all.contains_key(&key) && all.len() >= MAX_VARIANT_ENTITIES {
        return;
    }
    let new = || Variants { first_ms: at_ms, current: variant.to_owned(), seen: BTreeMap::new() };
    let variants = all.entry(key).or_insert_with(new);
    let known = variants.seen.get(variant).map(|known| known.last_ms);
    let begins = known.is_none_or(|last_ms| variants.current != variant && at_ms - last_ms > VARIANT_GAP_MS);
    let last_ms = known.map_or(at_ms, |last_ms| last_ms.max(at_ms));
    variants.seen.insert(variant.to_owned(), Variant { last_ms });
    if !begins {
        return;
    }
    let previous = std::mem::replace(&mut variants.current, variant.to_owned());
    if variants.seen.len() > MAX_VARIANTS {
        let oldest = variants.seen.iter().filter(|(name, _)| *name != variant).min_by_key(|(_, kept)| kept.last_ms);
        if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
            variants.seen.remove(&oldest);
        }
    }
    if previous != variant && at_ms - variants.first_ms >= MIN_KNOWN_MS {
        add_deployment(entity, is_template, (variant, &previous), at_ms, events);
    }
}

/// Adds a deployment, unless another sign of it was seen; a version says more than a pod template.
fn add_deployment(
    entity: &Entity,
    is_template: bool,
    (version, previous): (&str, &str),
    at_ms: i64,
    events: &mut Events,
) {
    let near = |offset_ms: i64| Timestamp::from_millis(at_ms.saturating_add(offset_ms));
    let mut near_events = events.between(near(-SAME_DEPLOYMENT_MS), near(SAME_DEPLOYMENT_MS));
    let is_same = |event: &&Event| {
        event.kind == EventKind::Deployment
            && event.entity.name == entity.name
            && (event.entity == *entity || event.source == INGEST)
    };
    let known = near_events.find(is_same).cloned();
    drop(near_events);
    let (name, previous_name) =
        if is_template { ("pod_template", "previous_pod_template") } else { (VERSION, "previous_version") };
    let mut at = near(0);
    if let Some(known) = known {
        let is_better = known.source == INFERRED && known.attributes.get(VERSION).is_none() && !is_template;
        if !is_better {
            return;
        }
        at = at.min(known.at);
        events.remove(&known);
    }
    events.insert(Event {
        at,
        entity: entity.clone(),
        kind: EventKind::Deployment,
        source: INFERRED.to_owned(),
        attributes: Labels::of(&[(name, version), (previous_name, previous)]),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(events: &Events) -> Vec<String> {
        let all = events.between(Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX));
        let texts = all.map(|event| {
            format!("{} {} {} {}", event.at.millis() / 1000, event.kind.as_str(), event.entity.name, event.attributes)
        });
        let mut texts: Vec<String> = texts.collect();
        texts.sort();
        texts
    }

    fn workload() -> Entity {
        Entity { namespace: "shop".into(), ..Entity::named(EntityKind::Workload, "orders") }
    }

    /// Reports each second from `from` to `to` that a watch has a value.
    fn report(inferred: &mut Inferred, events: &mut Events, index: u32, seconds: std::ops::Range<i64>, value: f64) {
        for second in seconds.step_by(15) {
            inferred.observe(index, (second * 1000, value), events);
        }
    }

    #[test]
    fn the_first_version_is_no_deployment_and_a_second_and_a_rollback_are() {
        let (mut inferred, mut events) = (Inferred::default(), Events::default());
        let mut watch = |version: &str, instance: &str| {
            let found = vec![(workload(), WatchKind::Version(version.into()))];
            inferred.watch(found, instance).unwrap()
        };
        let (old, new) = (watch("1", "a"), watch("2", "b"));
        report(&mut inferred, &mut events, old, 0..600, 1.0);
        assert_eq!(all(&events), [""; 0]);
        report(&mut inferred, &mut events, new, 600..900, 1.0);
        assert_eq!(all(&events), [r#"600 deployment orders {previous_version="1", version="2"}"#]);
        report(&mut inferred, &mut events, old, 900..1200, 1.0);
        assert_eq!(all(&events)[1], r#"900 deployment orders {previous_version="2", version="1"}"#);
        // Two versions at the start are no deployment.
        let (mut inferred, mut events) = (Inferred::default(), Events::default());
        for (version, instance) in [("1", "a"), ("2", "b")] {
            let index = inferred.watch(vec![(workload(), WatchKind::Version(version.into()))], instance).unwrap();
            report(&mut inferred, &mut events, index, 0..60, 1.0);
        }
        assert_eq!(all(&events), [""; 0]);
    }

    #[test]
    fn new_pods_of_another_template_are_a_deployment_and_a_version_says_more() {
        let (mut inferred, mut events) = (Inferred::default(), Events::default());
        let meaning = SeriesMeaning { entity: Some(workload()), ..SeriesMeaning::default() };
        let mut watch = |pod: &str, version: &str| {
            let labels = Labels::of(&[("__name__", "app_build_info"), ("pod", pod)]);
            let version = (!version.is_empty()).then(|| (workload(), version.to_owned()));
            inferred.watch(watches_of(&labels, &meaning, version), pod).unwrap()
        };
        let pods = ["orders-7d9f6c5b8-x2x4z", "orders-7d9f6c5b8-zzzzz", "orders-55c8d-x2x4z", "orders-0"];
        let indices = [watch(pods[0], ""), watch(pods[1], ""), watch(pods[2], "")];
        report(&mut inferred, &mut events, indices[0], 0..300, 1.0);
        report(&mut inferred, &mut events, indices[1], 300..600, 1.0);
        assert_eq!(all(&events), [""; 0], "scaled out");
        report(&mut inferred, &mut events, indices[2], 600..900, 1.0);
        let expected = r#"600 deployment orders {pod_template="55c8d", previous_pod_template="7d9f6c5b8"}"#;
        assert_eq!(all(&events), [expected]);
        add_deployment(&workload(), false, ("2", "1"), 630_000, &mut events);
        assert_eq!(all(&events), [r#"600 deployment orders {previous_version="1", version="2"}"#]);
        add_deployment(&workload(), true, ("x", "y"), 640_000, &mut events);
        assert_eq!(all(&events).len(), 1);
        assert_eq!(pod_template(&workload(), &Labels::of(&[("pod", pods[3])])), None, "of a StatefulSet");
    }

    #[test]
    fn restarts_kills_and_scaling_are_seen_from_the_second_value_on() {
        let (mut inferred, mut events) = (Inferred::default(), Events::default());
        let mut watch = |kind: WatchKind| inferred.watch(vec![(workload(), kind)], "a").unwrap();
        let start = watch(WatchKind::Start);
        let restarts = watch(WatchKind::Restarts);
        let oom = watch(WatchKind::OomKills);
        let replicas = watch(WatchKind::Replicas);
        for (index, values) in [
            (start, [1_000.0, 1_000.0, 1_250.0]),
            (restarts, [7.0, 7.0, 9.0]),
            (oom, [1.0, 0.0, 1.0]),
            (replicas, [2.0, 2.0, 3.0]),
        ] {
            for (second, value) in [1200, 1230, 1260].into_iter().zip(values) {
                inferred.observe(index, (second * 1000, value), &mut events);
                inferred.observe(index, (second * 1000 + 1, f64::NAN), &mut events);
            }
        }
        let expected = [
            r#"1250 restart orders {instance="a"}"#,
            r#"1260 oom_kill orders {count="1"}"#,
            r#"1260 restart orders {count="2"}"#,
            r#"1260 scale orders {from="2", to="3"}"#,
        ];
        assert_eq!(all(&events), expected);
        let saved = postcard::to_allocvec(&inferred).unwrap();
        let mut loaded: Inferred = postcard::from_bytes(&saved).unwrap();
        loaded.renumber(&[false, true, true, true]);
        loaded.observe(0, (1_290_000, 10.0), &mut events);
        assert_eq!((loaded.len(), all(&events).len()), (3, 5));
    }

    #[test]
    fn few_series_of_an_instance_are_watched_for_its_version() {
        let mut inferred = Inferred::default();
        let version = |instance: &str| (vec![(workload(), WatchKind::Version("1".into()))], instance.to_owned());
        let watched = (0..10).filter(|_| {
            let (found, instance) = version("a");
            inferred.watch(found, &instance).is_some()
        });
        assert_eq!(watched.count(), 2);
        let (found, instance) = version("b");
        assert!(inferred.watch(found, &instance).is_some());
        inferred.renumber(&[false, true, true]);
        let (found, instance) = version("a");
        assert!(inferred.watch(found, &instance).is_some(), "an evicted series makes room");
    }
}
