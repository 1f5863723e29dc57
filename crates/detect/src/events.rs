//! The newest events of a tenant: deployments, restarts, setting changes, scaling.
//!
//! Only what fits into a fixed number of bytes is kept: names and short attributes. The tables have all.

mod inferred;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wardroom_domain::event::{DEPLOYED_STATUS as STATUS, DEPLOYED_VERSION};
use wardroom_domain::{Deployment, Event, EventKind, Labels, Timestamp};

pub(crate) use self::inferred::{Inferred, watches_of};

/// Events in memory; the oldest are evicted.
const MAX_EVENTS: usize = 10_000;
/// Names and attributes of the events in memory, in bytes; the oldest are evicted.
const MAX_BYTES: usize = 8 << 20;
/// Attributes kept of one event, in bytes of names and values; a pair that does not fit is left out.
const MAX_ATTRIBUTE_BYTES: usize = 512;
/// Source of events that a sender reports.
pub(crate) const INGEST: &str = Event::REPORTED;
/// Source of events that metrics, traces or logs show.
pub(crate) const INFERRED: &str = Event::INFERRED;
/// Attribute with the version of a deployment.
pub(crate) const VERSION: &str = DEPLOYED_VERSION;

/// The newest events, by time. A clone is a view that later events do not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    /// By time and a hash of the rest, which is faster to compare than names.
    all: Arc<BTreeMap<(Timestamp, u64), Event>>,
    /// Names and attributes of all.
    bytes: usize,
}

impl Events {
    /// Adds an event, unless it is known.
    pub(crate) fn insert(&mut self, event: Event) {
        let event = Event { attributes: short_attributes(&event.attributes), ..event };
        let (bytes, all) = (bytes_of(&event), Arc::make_mut(&mut self.all));
        if all.insert(key_of(&event), event).is_none() {
            self.bytes += bytes;
        }
        while all.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some((_, oldest)) = all.pop_first() else { return };
            self.bytes -= bytes_of(&oldest);
        }
    }

    /// Removes events before a time.
    pub(crate) fn evict_before(&mut self, at: Timestamp) {
        while self.all.first_key_value().is_some_and(|((oldest, _), _)| *oldest < at) {
            if let Some((_, oldest)) = Arc::make_mut(&mut self.all).pop_first() {
                self.bytes -= bytes_of(&oldest);
            }
        }
    }

    /// Removes an event.
    fn remove(&mut self, event: &Event) {
        if Arc::make_mut(&mut self.all).remove(&key_of(event)).is_some() {
            self.bytes -= bytes_of(event);
        }
    }

    /// Returns the events in a time range, oldest first.
    pub(crate) fn between(&self, from: Timestamp, to: Timestamp) -> impl DoubleEndedIterator<Item = &Event> {
        self.all.range((from, 0)..=(to.max(from), u64::MAX)).map(|(_, event)| event)
    }
}

/// Returns time and hash of an event. The hash (FNV-1a) is the same in every build, since it is an order.
fn key_of(event: &Event) -> (Timestamp, u64) {
    let Event { at, entity, kind, source, attributes } = event;
    let names = [&entity.cluster, &entity.environment, &entity.namespace, &entity.name, source].map(String::as_bytes);
    let parts = names.into_iter().chain([entity.kind.as_str(), kind.as_str()].map(str::as_bytes));
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hashed = parts.chain([attributes.as_bytes()]).fold(0xcbf2_9ce4_8422_2325, |known, part| {
        // A byte that no text has ends each part.
        hash(part.iter().fold(known, hash), &0xff)
    });
    (*at, hashed)
}

/// Returns the deployment that an event is; `None` for other kinds.
pub(crate) fn deployment_of(event: &Event) -> Option<Deployment> {
    let text = |name: &str| event.attributes.get(name).unwrap_or_default().to_owned();
    let metadata = event.attributes.iter().filter(|(name, _)| ![VERSION, STATUS].contains(name)).collect();
    (event.kind == EventKind::Deployment).then(|| Deployment {
        at: event.at,
        service: event.entity.name.clone(),
        version: text(VERSION),
        status: if event.source == INFERRED { INFERRED.to_owned() } else { text(STATUS) },
        metadata: Labels::new(metadata),
    })
}

fn bytes_of(event: &Event) -> usize {
    event.entity.len() + event.source.len() + event.attributes.as_bytes().len()
}

/// Returns the pairs that fit, in order; the version is cut to fit.
fn short_attributes(attributes: &Labels) -> Labels {
    let mut left = MAX_ATTRIBUTE_BYTES;
    let cut = |value: &'_ str| value.split_at(value.floor_char_boundary(MAX_ATTRIBUTE_BYTES / 2)).0.to_owned();
    let pairs = attributes.iter().map(|(name, value)| match name {
        VERSION => (name, cut(value)),
        _ => (name, value.to_owned()),
    });
    let mut pairs: Vec<(&str, String)> = pairs.collect();
    // The version first, whatever else there is.
    pairs.sort_by_key(|(name, _)| *name != VERSION);
    pairs.retain(|(name, value)| {
        let rest = left.checked_sub(name.len() + value.len());
        left = rest.unwrap_or(left);
        rest.is_some()
    });
    Labels::new(pairs)
}

/// Serialized as a list.
impl Serialize for Events {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.all.values())
    }
}

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut loaded = Self::default();
        Vec::<Event>::deserialize(deserializer)?.into_iter().for_each(|event| loaded.insert(event));
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Limit for a step that took ten times as long; far above a second, because tests run on busy machines.
    const MAX_STEP_SECONDS: u64 = 10;

    fn deployment(at_ms: i64, version: &str) -> Deployment {
        Deployment {
            at: Timestamp::from_millis(at_ms),
            service: "a".into(),
            version: version.into(),
            status: "success".into(),
            metadata: Labels::default(),
        }
    }

    fn event(at_ms: i64, version: &str) -> Event {
        deployment(at_ms, version).event()
    }

    #[test]
    fn returns_a_time_range_without_duplicates() {
        let mut events = Events::default();
        for (at_ms, version) in [(3000, "c"), (1000, "a"), (2000, "b"), (1000, "a"), (2000, "b2")] {
            events.insert(event(at_ms, version));
        }
        let between = |from: i64, to: i64| {
            let found = events.between(Timestamp::from_millis(from), Timestamp::from_millis(to));
            let mut versions: Vec<String> = found.filter_map(deployment_of).map(|found| found.version).collect();
            versions.sort();
            versions
        };
        assert_eq!(between(1000, 2000), ["a", "b", "b2"]);
        assert_eq!(between(1001, 9000), ["b", "b2", "c"]);
        let bytes = postcard::to_allocvec(&events).unwrap();
        let loaded: Events = postcard::from_bytes(&bytes).unwrap();
        assert_eq!((loaded.all, loaded.bytes), (events.all.clone(), events.bytes));
        assert_eq!(deployment_of(&event(5, "x")), Some(deployment(5, "x")));
        events.evict_before(Timestamp::from_millis(2001));
        assert_eq!(events.all.len(), 1);
    }

    #[test]
    fn a_hundred_thousand_events_take_little_time_and_the_newest_stay() {
        let (mut events, started) = (Events::default(), Instant::now());
        for index in 0..100_000 {
            events.insert(event(index / 5, &format!("v{index:06}")));
        }
        assert!(started.elapsed().as_secs() < MAX_STEP_SECONDS, "{:?}", started.elapsed());
        assert_eq!(events.all.len(), MAX_EVENTS);
        assert_eq!(events.all.first_key_value().map(|((at, _), _)| at.millis()), Some(18_000));
    }

    #[test]
    fn long_attributes_and_names_take_little_memory_and_a_small_checkpoint() {
        let long = "m".repeat(4096);
        let mut pairs: Vec<(String, String)> = (0..60).map(|index| (format!("k{index}"), long.clone())).collect();
        pairs.extend([("commit".to_owned(), "4711".to_owned()), ("zone".to_owned(), "a".to_owned())]);
        let metadata = Labels::new(pairs);
        let mut events = Events::default();
        for index in 0..10_000 {
            let deployment = Deployment { metadata: metadata.clone(), ..deployment(index, &format!("v{index}")) };
            events.insert(deployment.event());
        }
        assert_eq!(events.all.len(), 10_000);
        let short = Labels::of(&[("commit", "4711"), ("zone", "a")]);
        let mut kept = events.all.values().filter_map(deployment_of);
        assert!(kept.all(|kept| kept.metadata == short), "short metadata is kept");
        let saved = postcard::to_allocvec(&events).unwrap();
        assert!(saved.len() < 1 << 20, "{} bytes", saved.len());

        for index in 10_000..20_000 {
            let service = format!("{index}{long}");
            events.insert(Deployment { service, ..deployment(index, &format!("{index}{long}")) }.event());
        }
        let held: usize = events.all.values().map(bytes_of).sum();
        assert_eq!(held, events.bytes);
        assert!((MAX_BYTES / 2..=MAX_BYTES).contains(&held), "{held} bytes");
        let newest = events.all.values().last().and_then(deployment_of);
        assert!(newest.is_some_and(|newest| newest.version.starts_with("19999") && newest.version.len() == 256));
        assert!(postcard::to_allocvec(&events).unwrap().len() < MAX_BYTES * 2);
    }
}
