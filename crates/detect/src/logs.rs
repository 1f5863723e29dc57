//! Log lines become templates; announced setting changes are noticed.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use wardroom_domain::{LogEntry, Severity};

/// Templates kept for each service; further lines count towards the last one.
const TEMPLATES: usize = 200;
/// Services whose lines are told apart.
const SERVICES: usize = 5000;
/// About how long a template may get.
const TEMPLATE_BYTES: usize = 400;
/// What stands for everything beyond a limit.
const OTHERS: &str = "<*>";
/// Minutes of counts kept.
const MINUTES: i64 = 30;

/// How often a template came in a stretch of time.
#[derive(Clone, Debug)]
pub struct TemplateCount {
    /// Of which service.
    pub service: String,
    /// The text with its variable parts as `<*>`.
    pub template: String,
    /// One line as it came. Untrusted text.
    pub example: String,
    /// How bad its lines are.
    pub severity: Severity,
    /// Lines in the stretch.
    pub count: u64,
    /// When it was first seen at all, in ms.
    pub first_ms: i64,
}

/// A setting that a log line says was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    /// Of which service.
    pub service: String,
    /// When, in ms.
    pub at_ms: i64,
    /// Which setting.
    pub key: String,
    /// Its former value.
    pub from: String,
    /// Its new value.
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
    /// The template of the line at hand, so that a line needs no memory of its own.
    #[serde(skip)]
    scratch: String,
}

impl Logs {
    /// Takes a line of a service.
    pub(crate) fn observe(&mut self, service: &str, log: &LogEntry) {
        let at_ms = log.at.millis();
        if let Some((key, from, to)) = setting_change(&log.message) {
            self.changes.push_back(SettingChange { service: service.to_owned(), at_ms, key, from, to });
            while self.changes.len() > 1000 {
                self.changes.pop_front();
            }
        }
        let mut text = std::mem::take(&mut self.scratch);
        mask(&log.message, &mut text, |_| ());
        // What comes after the limits is still counted, but no longer told apart.
        let known = self.templates.len() < SERVICES || self.templates.contains_key(service);
        let service = if known { service } else { OTHERS };
        if !self.templates.contains_key(service) {
            self.templates.insert(service.to_owned(), BTreeMap::new());
        }
        let Some(templates) = self.templates.get_mut(service) else { return };
        let known = templates.len() < TEMPLATES || templates.contains_key(text.as_str());
        let key = if known { text.as_str() } else { OTHERS };
        if !templates.contains_key(key) {
            let example = log.message.chars().take(200).collect();
            let template = Template { severity: log.severity, example, first_ms: at_ms, minutes: VecDeque::new() };
            templates.insert(key.to_owned(), template);
        }
        let Some(template) = templates.get_mut(key) else { return };
        template.severity = template.severity.max(log.severity);
        let minute = at_ms.div_euclid(60_000);
        match template.minutes.back_mut() {
            Some((last, count)) if *last >= minute => *count += 1,
            _ => template.minutes.push_back((minute, 1)),
        }
        while template.minutes.front().is_some_and(|(first, _)| *first < minute - MINUTES) {
            template.minutes.pop_front();
        }
        self.scratch = text;
    }

    /// Templates at or above a severity in `from_ms..=to_ms` (whole minutes), most frequent first.
    pub(crate) fn top(&self, from_ms: i64, to_ms: i64, severity: Severity) -> Vec<TemplateCount> {
        let minutes = from_ms.div_euclid(60_000)..=to_ms.div_euclid(60_000);
        let mut top = Vec::new();
        for (service, templates) in &self.templates {
            for (text, template) in templates.iter().filter(|(_, template)| template.severity >= severity) {
                let within = template.minutes.iter().filter(|(minute, _)| minutes.contains(minute));
                let count = within.map(|(_, count)| count).sum();
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

/// The template that a line follows, and what stands in it where the template has `<*>`, in order.
pub fn template<'a>(message: &'a str, text: &mut String, parameters: &mut Vec<&'a str>) {
    parameters.clear();
    mask(message, text, |varying| parameters.push(varying));
}

/// Replaces what varies (words with digits, long words) with `<*>`, and tells what it was.
fn mask<'a>(message: &'a str, out: &mut String, mut varying: impl FnMut(&'a str)) {
    out.clear();
    for word in message.split_whitespace().take(40) {
        if out.len() > TEMPLATE_BYTES {
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let (key, value) = word.split_once('=').map_or(("", word), |(key, value)| (key, value));
        if !key.is_empty() {
            out.push_str(start(key));
            out.push('=');
        }
        let varies = value.len() > 40 || value.bytes().any(|byte| byte.is_ascii_digit());
        if varies {
            varying(value);
        }
        out.push_str(if varies { OTHERS } else { value });
    }
}

/// As much of a word as a template holds.
fn start(word: &str) -> &str {
    if word.len() <= TEMPLATE_BYTES { word } else { word.split_at(word.floor_char_boundary(TEMPLATE_BYTES)).0 }
}

/// Reads `… key=K from=A to=B …`, in that order, whatever stands around it.
fn setting_change(message: &str) -> Option<(String, String, String)> {
    // Nearly no line is one, and every line is asked.
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
    let sane = !key.is_empty() && [&key, &from, &to].iter().all(|text| text.len() <= 200);
    sane.then_some((key, from, to))
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
    fn lines_that_differ_in_numbers_are_one_template() {
        let mut logs = Logs::default();
        logs.observe("a", &line(0, "call failed peer=b: deadline of 2000 ms"));
        logs.observe("a", &line(5, "call failed peer=b: deadline of 17 ms"));
        logs.observe("a", &line(9, "something else"));
        let top = logs.top(0, 60_000, Severity::High);
        assert_eq!((top[0].count, top[0].template.as_str()), (2, "call failed peer=b: deadline of <*> ms"));
        assert_eq!(top.len(), 2);
        assert!(logs.top(0, 60_000, Severity::Critical).is_empty());
    }

    #[test]
    fn what_varies_is_told_in_order() {
        let (mut text, mut parameters) = (String::new(), Vec::new());
        template("took 17 ms peer=b2 id=x", &mut text, &mut parameters);
        assert_eq!((text.as_str(), parameters.as_slice()), ("took <*> ms peer=<*> id=x", ["17", "b2"].as_slice()));
    }

    #[test]
    fn setting_changes_are_read_whatever_the_words_around_them() {
        let mut logs = Logs::default();
        logs.observe("a", &line(7, "options re-read key=slots from=20 to=1"));
        logs.observe("a", &line(8, "mail from=a@b to=c@d"));
        let expected =
            SettingChange { service: "a".into(), at_ms: 7, key: "slots".into(), from: "20".into(), to: "1".into() };
        assert_eq!(logs.changes(0, 10), vec![expected]);
    }

    proptest! {
        /// Hostile lines: whatever is written, memory stays bounded and nothing panics.
        #[test]
        fn any_line_becomes_a_template(lines in prop::collection::vec("(?s).{0,200}", 1..40)) {
            let mut logs = Logs::default();
            for (at_ms, message) in (0..).zip(&lines) {
                logs.observe("a", &line(at_ms, message));
            }
            prop_assert!(logs.top(0, 100, Severity::High).iter().map(|top| top.count).sum::<u64>() <= lines.len() as u64);
        }
    }
}
