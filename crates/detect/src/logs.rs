//! The log lines of each entity: how many of each template in each minute, and how many errors in each window.

mod rates;
mod settings;
mod templates;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use wardroom_domain::{Entity, LogEntry, Severity};

pub(crate) use self::settings::setting_change;
pub use self::templates::{TemplateMiner, template};

use self::rates::{Rate, ends_window};
use self::templates::{Merge, Templates, WILDCARD, mask};
use crate::point::Point;

/// Templates of one entity; lines of further templates are counted under [`WILDCARD`].
const MAX_TEMPLATES_PER_ENTITY: usize = 200;
/// Templates of all entities; beyond, lines of new templates are counted under the [`WILDCARD`] of their entity.
const MAX_TEMPLATES: usize = 50_000;
/// Entities with templates of their own; lines of further entities are counted under [`WILDCARD`].
const MAX_ENTITIES: usize = 5000;
/// Counts per minute are kept for this many minutes; a template without lines for longer is evicted.
const RETENTION_MINUTES: i64 = 30;
/// Length of an example, in characters.
const MAX_EXAMPLE_CHARS: usize = 200;

/// Number of lines of one template in a time range.
#[derive(Clone, Debug)]
pub struct TemplateCount {
    /// What wrote the lines.
    pub entity: Entity,
    /// The text with its variable parts as `<*>`.
    pub template: String,
    /// One original line. Untrusted text.
    pub example: String,
    /// Highest severity of its lines.
    pub severity: Severity,
    /// Lines in the time range.
    pub count: u64,
    /// Time of its first line ever, in ms.
    pub first_ms: i64,
    /// Time of its newest line, in ms.
    pub last_ms: i64,
    /// Time of the first line of its entity, in ms: a template that is not much younger is not a new one.
    pub entity_first_ms: i64,
    /// Lines in each minute that has some, oldest first: (minute since 1970, lines).
    pub minutes: Vec<(i64, u64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Template {
    severity: Severity,
    example: String,
    first_ms: i64,
    last_ms: i64,
    /// (minute, lines).
    minutes: VecDeque<(i64, u64)>,
}

impl Merge for Template {
    fn merge(&mut self, other: Self) {
        self.severity = self.severity.max(other.severity);
        if other.first_ms < self.first_ms {
            (self.first_ms, self.example) = (other.first_ms, other.example);
        }
        self.last_ms = self.last_ms.max(other.last_ms);
        let mut minutes: BTreeMap<i64, u64> = self.minutes.drain(..).collect();
        other.minutes.into_iter().for_each(|(minute, lines)| *minutes.entry(minute).or_default() += lines);
        self.minutes = minutes.into_iter().collect();
    }
}

/// The log of one entity.
#[derive(Debug, Serialize, Deserialize)]
struct EntityLog {
    templates: Templates<Template>,
    rate: Rate,
    first_ms: i64,
    last_ms: i64,
}

/// All logs of one tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Logs {
    entities: BTreeMap<Entity, EntityLog>,
    /// Number of templates; counted again at each eviction.
    count: usize,
    /// Minute of the last eviction.
    evicted_minute: i64,
    /// Watermark up to which windows are closed.
    closed_ms: i64,
    /// Reused buffer for the template of the current line.
    #[serde(skip)]
    scratch: String,
}

impl Logs {
    /// Adds a line of an entity. `at_ms` is its time, capped by the time of arrival. Returns false if a limit left it
    /// without a template of its own.
    pub(crate) fn observe(&mut self, entity: &Entity, log: &LogEntry, at_ms: i64) -> bool {
        let minute = at_ms.div_euclid(60_000);
        let mut text = std::mem::take(&mut self.scratch);
        mask(&log.message, &mut text, |_| ());
        // Lines beyond the limits are counted under the wildcard.
        let wildcard = Entity::service(WILDCARD);
        let is_known = self.entities.len() < MAX_ENTITIES || self.entities.contains_key(entity);
        let entity = if is_known { entity } else { &wildcard };
        if !self.entities.contains_key(entity) {
            let new =
                EntityLog { templates: Templates::default(), rate: Rate::default(), first_ms: at_ms, last_ms: at_ms };
            self.entities.insert(entity.clone(), new);
        }
        let Some(known) = self.entities.get_mut(entity) else { return false };
        known.last_ms = known.last_ms.max(at_ms);
        known.rate.add(at_ms, log.severity >= Severity::High);
        let before = known.templates.len();
        let fits = before < MAX_TEMPLATES_PER_ENTITY && self.count < MAX_TEMPLATES;
        let has_template = add_line(&mut known.templates, &text, fits, log, at_ms, minute);
        self.count = (self.count + known.templates.len()).saturating_sub(before);
        self.scratch = text;
        has_template && is_known
    }

    /// Evicts what is old and passes the points of the windows that are complete at this watermark on.
    pub(crate) fn advance(&mut self, watermark_ms: i64, mut emit: impl FnMut(&Entity, Point)) {
        let minute = watermark_ms.div_euclid(60_000);
        if minute > self.evicted_minute {
            self.evict(minute);
        }
        if !ends_window(self.closed_ms, watermark_ms) {
            return;
        }
        self.closed_ms = watermark_ms;
        for (entity, log) in &mut self.entities {
            log.rate.close(watermark_ms, |point| emit(entity, point));
        }
    }

    /// Evicts the templates without a line within [`RETENTION_MINUTES`], and entities without templates.
    fn evict(&mut self, minute: i64) {
        self.evicted_minute = minute;
        self.entities.retain(|_, log| {
            log.templates.retain(|template| {
                template.minutes.back().is_some_and(|(newest, _)| *newest >= minute - RETENTION_MINUTES)
            });
            log.templates.len() > 0
        });
        self.count = self.entities.values().map(|log| log.templates.len()).sum();
    }

    /// Returns the templates at or above a severity in a time range (both ends in ms, inclusive; whole minutes), most
    /// frequent first; of the entities that `includes` accepts.
    pub(crate) fn most_frequent(
        &self,
        (from_ms, to_ms): (i64, i64),
        severity: Severity,
        includes: impl Fn(&Entity) -> bool,
    ) -> Vec<TemplateCount> {
        let range = from_ms.div_euclid(60_000)..=to_ms.div_euclid(60_000);
        let mut top = Vec::new();
        for (entity, log) in self.entities.iter().filter(|(entity, _)| includes(entity)) {
            for (text, template) in log.templates.iter().filter(|(_, template)| template.severity >= severity) {
                let in_range = template.minutes.iter().filter(|(minute, _)| range.contains(minute));
                let count = in_range.map(|(_, count)| count).sum();
                if count > 0 {
                    top.push(TemplateCount {
                        entity: entity.clone(),
                        template: text.clone(),
                        example: template.example.clone(),
                        severity: template.severity,
                        count,
                        first_ms: template.first_ms,
                        last_ms: template.last_ms,
                        entity_first_ms: log.first_ms,
                        minutes: template.minutes.iter().copied().collect(),
                    });
                }
            }
        }
        top.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.template.cmp(&b.template)));
        top
    }
}

/// Counts a line under its template; adds that if it is new and `fits`. Returns false if it is counted under the
/// wildcard.
fn add_line(
    templates: &mut Templates<Template>,
    masked: &str,
    fits: bool,
    log: &LogEntry,
    at_ms: i64,
    minute: i64,
) -> bool {
    let known = templates.resolve(masked).map(str::to_owned);
    let (key, is_own) = match known {
        Some(key) => (key, true),
        None if fits => (masked.to_owned(), true),
        None => (WILDCARD.to_owned(), false),
    };
    let new = || Template {
        severity: log.severity,
        example: log.message.chars().take(MAX_EXAMPLE_CHARS).collect(),
        first_ms: at_ms,
        last_ms: at_ms,
        minutes: VecDeque::new(),
    };
    let key = if templates.get_mut(&key).is_some() { key } else { templates.insert(&key, new()) };
    let Some(template) = templates.get_mut(&key) else { return false };
    template.severity = template.severity.max(log.severity);
    template.last_ms = template.last_ms.max(at_ms);
    match template.minutes.back_mut() {
        Some((last, count)) if *last >= minute => *count += 1,
        _ => template.minutes.push_back((minute, 1)),
    }
    while template.minutes.front().is_some_and(|(first, _)| *first < minute - RETENTION_MINUTES) {
        template.minutes.pop_front();
    }
    is_own
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardroom_domain::{Labels, Timestamp};

    use super::templates::MAX_TEMPLATE_BYTES;
    use super::*;

    fn line(at_ms: i64, message: &str) -> LogEntry {
        LogEntry {
            at: Timestamp::from_millis(at_ms),
            severity: Severity::High,
            message: message.into(),
            service: "a".into(),
            labels: Labels::default(),
        }
    }

    fn observe(logs: &mut Logs, service: &str, at_ms: i64, message: &str) -> bool {
        logs.advance(at_ms, |_, _| ());
        logs.observe(&Entity::service(service), &line(at_ms, message), at_ms)
    }

    #[test]
    fn lines_that_differ_in_numbers_share_a_template() {
        let mut logs = Logs::default();
        observe(&mut logs, "a", 0, "call failed peer=b: deadline of 2000 ms");
        observe(&mut logs, "a", 5, "call failed peer=b: deadline of 17 ms");
        observe(&mut logs, "a", 9, "something else");
        let top = logs.most_frequent((0, 60_000), Severity::High, |_| true);
        assert_eq!((top[0].count, top[0].template.as_str()), (2, "call failed peer=b: deadline of <*> ms"));
        assert_eq!((top[0].first_ms, top[0].last_ms, top.len()), (0, 5, 2));
        assert!(logs.most_frequent((0, 60_000), Severity::Critical, |_| true).is_empty());
    }

    #[test]
    fn names_of_users_do_not_fill_the_table() {
        let mut logs = Logs::default();
        let names = (0..600_u32).map(|n| char::from(b'a' + (n % 26) as u8).to_string().repeat(1 + n as usize / 26));
        for (name, n) in names.zip(0..) {
            assert!(observe(&mut logs, "a", n, &format!("no such account {name} in this realm")));
        }
        let top = logs.most_frequent((0, 60_000), Severity::High, |_| true);
        assert_eq!((top.len(), top[0].count, top[0].first_ms), (1, 600, 0));
        assert_eq!((top[0].template.as_str(), logs.count), ("no such account <*> in this realm", 1));
        let loaded: Logs = postcard::from_bytes(&postcard::to_allocvec(&logs).unwrap()).unwrap();
        assert_eq!(format!("{:?}", loaded.entities), format!("{:?}", logs.entities));
    }

    #[test]
    fn rates_are_per_entity_and_a_quiet_log_is_at_zero() {
        let (mut logs, mut points) = (Logs::default(), Vec::new());
        for second in 0..60_i64 {
            let at_ms = second * 1000;
            logs.advance(at_ms, |entity, point| points.push((entity.name.clone(), point.at_ms / 1000, point.value)));
            if second < 15 {
                logs.observe(&Entity::service("a"), &line(at_ms, "failed"), at_ms);
            }
        }
        assert_eq!(points, [("a".into(), 15, 1.0), ("a".into(), 30, 0.0), ("a".into(), 45, 0.0)]);
    }

    #[test]
    fn lines_beyond_the_template_limit_are_counted_under_the_wildcard() {
        let mut logs = Logs::default();
        for index in 0..MAX_TEMPLATES_PER_ENTITY as u8 + 50 {
            let word = [b'a' + index / 26, b'a' + index % 26].map(char::from);
            observe(&mut logs, "a", 0, &String::from_iter(word));
        }
        let top = logs.most_frequent((0, 0), Severity::High, |_| true);
        assert!(top.len() <= MAX_TEMPLATES_PER_ENTITY + 1, "{} templates", top.len());
        assert_eq!(top.iter().map(|top| top.count).sum::<u64>(), MAX_TEMPLATES_PER_ENTITY as u64 + 50);
    }

    /// A message of ten words that is different for each number.
    fn unique_message(number: usize) -> String {
        let word = |index: usize| {
            let letters = [number / 676, number / 26 % 26, number % 26].map(|digit| char::from(b'a' + digit as u8));
            format!("{}{index_letter}", String::from_iter(letters), index_letter = char::from(b'a' + index as u8))
        };
        (0..10).map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_templates_of_all_entities_are_bounded_and_evicted_when_no_line_comes() {
        let mut logs = Logs::default();
        let mut limited = 0;
        for service in 0..400 {
            for number in 0..MAX_TEMPLATES_PER_ENTITY {
                limited += usize::from(!observe(&mut logs, &format!("s{service}"), 0, &unique_message(number)));
            }
        }
        let count = |logs: &Logs| logs.entities.values().map(|log| log.templates.len()).sum::<usize>();
        assert!((MAX_TEMPLATES..MAX_TEMPLATES + 400).contains(&count(&logs)), "{}", count(&logs));
        assert_eq!(limited, 400 * MAX_TEMPLATES_PER_ENTITY - MAX_TEMPLATES);
        let later_ms = (RETENTION_MINUTES + 1) * 60_000;
        assert!(observe(&mut logs, "new", later_ms, "a line of a new service"));
        assert_eq!((count(&logs), logs.entities.len()), (1, 1), "a minute without a line beyond the retention");
    }

    proptest! {
        #[test]
        fn every_line_is_counted_once_and_templates_are_bounded(
            lines in prop::collection::vec("(?s)(.{0,200}|k{0,2000}=v|v{0,2000}|[a-c] (x|y|z) [a-z] failed)", 1..60),
        ) {
            let mut logs = Logs::default();
            for (at_ms, message) in (0..).zip(&lines) {
                observe(&mut logs, "a", at_ms, message);
            }
            let top = logs.most_frequent((0, 100), Severity::High, |_| true);
            prop_assert_eq!(top.iter().map(|top| top.count).sum::<u64>(), lines.len() as u64);
            // A word is added while the template is within the limit; its key is truncated to the same limit.
            let longest = 2 * MAX_TEMPLATE_BYTES + 50;
            prop_assert!(top.iter().all(|top| top.template.len() <= longest && top.example.chars().count() <= 200));
        }
    }
}
