//! Log templates, and setting changes announced in log lines.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use wardroom_domain::{LogEntry, Severity};

/// Templates of one service; lines of further templates are counted under [`WILDCARD`].
const MAX_TEMPLATES_PER_SERVICE: usize = 200;
/// Templates of all services; beyond, lines of new templates are counted under the [`WILDCARD`] of their service.
const MAX_TEMPLATES: usize = 50_000;
/// Services with templates of their own; lines of further services are counted under [`WILDCARD`].
const MAX_SERVICES: usize = 5000;
/// Approximate length limit of a template, in bytes.
const MAX_TEMPLATE_BYTES: usize = 400;
/// Replaces the variable parts of a line, and names everything beyond a limit.
const WILDCARD: &str = "<*>";
/// Counts per minute are kept for this many minutes; a template without lines for longer is evicted.
const RETENTION_MINUTES: i64 = 30;

/// Number of lines of one template in a time range.
#[derive(Clone, Debug)]
pub struct TemplateCount {
    /// The service.
    pub service: String,
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
}

/// A setting change announced in a log line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// The service.
    pub service: String,
    /// Time, in ms.
    pub at_ms: i64,
    /// Name of the setting.
    pub key: String,
    /// Old value.
    pub from: String,
    /// New value.
    pub to: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Template {
    severity: Severity,
    example: String,
    first_ms: i64,
    /// (minute, lines).
    minutes: VecDeque<(i64, u64)>,
}

/// All templates of one tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Logs {
    templates: BTreeMap<String, BTreeMap<String, Template>>,
    changes: VecDeque<SettingChange>,
    /// Reused buffer for the template of the current line.
    #[serde(skip)]
    scratch: String,
    /// Minute of the last eviction.
    #[serde(skip)]
    evicted_minute: i64,
    /// Number of templates; counted again at each eviction.
    #[serde(skip)]
    count: usize,
}

impl Logs {
    /// Adds a line of a service. Returns false if a limit left it without a template of its own.
    pub(crate) fn observe(&mut self, service: &str, log: &LogEntry) -> bool {
        let at_ms = log.at.millis();
        let minute = at_ms.div_euclid(60_000);
        if minute > self.evicted_minute {
            self.evict(minute);
        }
        if let Some((key, from, to)) = setting_change(&log.message) {
            self.changes.push_back(SettingChange { service: service.to_owned(), at_ms, key, from, to });
            while self.changes.len() > 1000 {
                self.changes.pop_front();
            }
        }
        let mut text = std::mem::take(&mut self.scratch);
        mask(&log.message, &mut text, |_| ());
        // Lines beyond the limits are counted under the wildcard.
        let known_service = self.templates.len() < MAX_SERVICES || self.templates.contains_key(service);
        let service = if known_service { service } else { WILDCARD };
        if !self.templates.contains_key(service) {
            self.templates.insert(service.to_owned(), BTreeMap::new());
        }
        let Some(templates) = self.templates.get_mut(service) else { return false };
        let fits = templates.len() < MAX_TEMPLATES_PER_SERVICE && self.count < MAX_TEMPLATES;
        let known = fits || templates.contains_key(text.as_str());
        let key = if known { text.as_str() } else { WILDCARD };
        if !templates.contains_key(key) {
            let example = log.message.chars().take(200).collect();
            let template = Template { severity: log.severity, example, first_ms: at_ms, minutes: VecDeque::new() };
            templates.insert(key.to_owned(), template);
            self.count += 1;
        }
        let Some(template) = templates.get_mut(key) else { return false };
        template.severity = template.severity.max(log.severity);
        match template.minutes.back_mut() {
            Some((last, count)) if *last >= minute => *count += 1,
            _ => template.minutes.push_back((minute, 1)),
        }
        while template.minutes.front().is_some_and(|(first, _)| *first < minute - RETENTION_MINUTES) {
            template.minutes.pop_front();
        }
        self.scratch = text;
        known && known_service
    }

    /// Evicts the templates without a line within [`RETENTION_MINUTES`], and services without templates.
    fn evict(&mut self, minute: i64) {
        self.evicted_minute = minute;
        self.templates.retain(|_, templates| {
            templates.retain(|_, template| {
                template.minutes.back().is_some_and(|(newest, _)| *newest >= minute - RETENTION_MINUTES)
            });
            !templates.is_empty()
        });
        self.count = self.templates.values().map(BTreeMap::len).sum();
    }

    /// Returns the templates at or above a severity in a time range (both ends in ms, inclusive; whole minutes), most
    /// frequent first; of the services that `includes` accepts.
    pub(crate) fn most_frequent(
        &self,
        (from_ms, to_ms): (i64, i64),
        severity: Severity,
        includes: impl Fn(&str) -> bool,
    ) -> Vec<TemplateCount> {
        let minutes = from_ms.div_euclid(60_000)..=to_ms.div_euclid(60_000);
        let mut top = Vec::new();
        for (service, templates) in self.templates.iter().filter(|(service, _)| includes(service)) {
            for (text, template) in templates.iter().filter(|(_, template)| template.severity >= severity) {
                let in_range = template.minutes.iter().filter(|(minute, _)| minutes.contains(minute));
                let count = in_range.map(|(_, count)| count).sum();
                if count > 0 {
                    top.push(TemplateCount {
                        service: service.clone(),
                        template: text.clone(),
                        example: template.example.clone(),
                        severity: template.severity,
                        count,
                        first_ms: template.first_ms,
                    });
                }
            }
        }
        top.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.template.cmp(&b.template)));
        top
    }

    pub(crate) fn changes(&self, from_ms: i64, to_ms: i64) -> Vec<SettingChange> {
        self.changes.iter().filter(|change| (from_ms..=to_ms).contains(&change.at_ms)).cloned().collect()
    }
}

/// Computes the template of a line, and the values behind its `<*>`, in order.
pub fn template<'a>(message: &'a str, text: &mut String, parameters: &mut Vec<&'a str>) {
    parameters.clear();
    mask(message, text, |on_parameter| parameters.push(on_parameter));
}

/// Replaces variable words (with digits, or longer than 40 bytes) with `<*>` and passes each to `on_parameter`.
fn mask<'a>(message: &'a str, out: &mut String, mut on_parameter: impl FnMut(&'a str)) {
    out.clear();
    for word in message.split_whitespace().take(40) {
        if out.len() > MAX_TEMPLATE_BYTES {
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let (key, value) = word.split_once('=').map_or(("", word), |(key, value)| (key, value));
        if !key.is_empty() {
            out.push_str(truncate(key));
            out.push('=');
        }
        let varies = value.len() > 40 || value.bytes().any(|byte| byte.is_ascii_digit());
        if varies {
            on_parameter(value);
        }
        out.push_str(if varies { WILDCARD } else { value });
    }
}

/// Truncates a word to [`MAX_TEMPLATE_BYTES`].
fn truncate(word: &str) -> &str {
    if word.len() <= MAX_TEMPLATE_BYTES { word } else { word.split_at(word.floor_char_boundary(MAX_TEMPLATE_BYTES)).0 }
}

/// Parses `… key=K from=A to=B …` with any text around it.
fn setting_change(message: &str) -> Option<(String, String, String)> {
    // Fast path: nearly no line announces a change.
    if !message.contains("from=") {
        return None;
    }
    let mut found = [None, None, None];
    for word in message.split_whitespace() {
        for (slot, name) in found.iter_mut().zip(["key=", "from=", "to="]) {
            if let Some(value) = word.strip_prefix(name).filter(|_| slot.is_none()) {
                *slot = Some(value.trim_matches(['"', ',', ';']).to_owned());
            }
        }
    }
    let [Some(key), Some(from), Some(to)] = found else { return None };
    let valid = !key.is_empty() && [&key, &from, &to].iter().all(|text| text.len() <= 200);
    valid.then_some((key, from, to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardroom_domain::{Labels, Timestamp};

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

    #[test]
    fn lines_that_differ_in_numbers_share_a_template() {
        let mut logs = Logs::default();
        logs.observe("a", &line(0, "call failed peer=b: deadline of 2000 ms"));
        logs.observe("a", &line(5, "call failed peer=b: deadline of 17 ms"));
        logs.observe("a", &line(9, "something else"));
        let top = logs.most_frequent((0, 60_000), Severity::High, |_| true);
        assert_eq!((top[0].count, top[0].template.as_str()), (2, "call failed peer=b: deadline of <*> ms"));
        assert_eq!(top.len(), 2);
        assert!(logs.most_frequent((0, 60_000), Severity::Critical, |_| true).is_empty());
    }

    #[test]
    fn returns_the_parameters_in_order() {
        let (mut text, mut parameters) = (String::new(), Vec::new());
        template("took 17 ms peer=b2 id=x", &mut text, &mut parameters);
        assert_eq!((text.as_str(), parameters.as_slice()), ("took <*> ms peer=<*> id=x", ["17", "b2"].as_slice()));
    }

    #[test]
    fn parses_setting_changes_with_any_surrounding_text() {
        let mut logs = Logs::default();
        logs.observe("a", &line(7, "options re-read key=slots from=20 to=1"));
        logs.observe("a", &line(8, "mail from=a@b to=c@d"));
        let expected =
            SettingChange { service: "a".into(), at_ms: 7, key: "slots".into(), from: "20".into(), to: "1".into() };
        assert_eq!(logs.changes(0, 10), vec![expected]);
    }

    #[test]
    fn lines_beyond_the_template_limit_are_counted_under_the_wildcard() {
        let mut logs = Logs::default();
        for index in 0..MAX_TEMPLATES_PER_SERVICE as u8 + 50 {
            let word = [b'a' + index / 26, b'a' + index % 26].map(char::from);
            logs.observe("a", &line(0, &String::from_iter(word)));
        }
        let top = logs.most_frequent((0, 0), Severity::High, |_| true);
        assert!(top.len() <= MAX_TEMPLATES_PER_SERVICE + 1, "{} templates", top.len());
        assert_eq!(top.iter().map(|top| top.count).sum::<u64>(), MAX_TEMPLATES_PER_SERVICE as u64 + 50);
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
    fn the_templates_of_all_services_are_bounded_and_evicted_when_no_line_comes() {
        let mut logs = Logs::default();
        let mut limited = 0;
        for service in 0..400 {
            for number in 0..MAX_TEMPLATES_PER_SERVICE {
                limited += usize::from(!logs.observe(&format!("s{service}"), &line(0, &unique_message(number))));
            }
        }
        let count = |logs: &Logs| logs.templates.values().map(BTreeMap::len).sum::<usize>();
        assert!((MAX_TEMPLATES..MAX_TEMPLATES + 400).contains(&count(&logs)), "{}", count(&logs));
        assert_eq!(limited, 400 * MAX_TEMPLATES_PER_SERVICE - MAX_TEMPLATES);
        let later_ms = (RETENTION_MINUTES + 1) * 60_000;
        assert!(logs.observe("new", &line(later_ms, "a line of a new service")));
        assert_eq!((count(&logs), logs.templates.len()), (1, 1), "a minute without a line beyond the retention");
    }

    proptest! {
        #[test]
        fn every_line_is_counted_once_and_templates_are_bounded(
            lines in prop::collection::vec("(?s)(.{0,200}|k{0,2000}=v|v{0,2000})", 1..40),
        ) {
            let mut logs = Logs::default();
            for (at_ms, message) in (0..).zip(&lines) {
                logs.observe("a", &line(at_ms, message));
            }
            let top = logs.most_frequent((0, 100), Severity::High, |_| true);
            prop_assert_eq!(top.iter().map(|top| top.count).sum::<u64>(), lines.len() as u64);
            // A word is added while the template is within the limit; its key is truncated to the same limit.
            let longest = 2 * MAX_TEMPLATE_BYTES + 50;
            prop_assert!(top.iter().all(|top| top.template.len() <= longest && top.example.chars().count() <= 200));
        }
    }
}
