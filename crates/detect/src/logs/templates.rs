//! Log templates: the text of a line without its variable parts.
//!
//! Words with digits, and very long ones, are variable at once. Names of users, hosts and files have no digits: a
//! position is learned to be variable when many lines are equal in all other words and have many different words
//! there. A few words at one position, such as the states `Started` and `Paused`, stay templates of their own.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Approximate length limit of a template, in bytes.
pub(super) const MAX_TEMPLATE_BYTES: usize = 400;
/// Replaces the variable parts of a line, and names everything beyond a limit.
pub(super) const WILDCARD: &str = "<*>";
/// Words of a line that its template has.
const MAX_WORDS: usize = 40;
/// Length from which a word is variable, in bytes.
const MAX_WORD_BYTES: usize = 40;
/// Different words at a position from which on it is variable: more than the states, methods and levels that lines of
/// one statement name.
const MIN_DISTINCT_WORDS: usize = 9;
/// The same where a line with a number at this position shows that values stand there.
const MIN_DISTINCT_BESIDE_NUMBER: usize = 4;
/// Positions that are learned at once: lines that are equal in fewer words are of different statements.
const MAX_LEARNED_POSITIONS: usize = 3;
/// Words that all lines of a learned template have in common, at least.
const MIN_FIXED_WORDS: usize = 2;
/// Sets of positions that are tried for one new template.
const MAX_POSITION_SETS: usize = 16;
/// Templates that [`TemplateMiner`] compares with, by service.
const MAX_MINED_TEMPLATES: usize = 200;
/// Services of [`TemplateMiner`]; lines of further ones are masked without learning.
const MAX_MINED_SERVICES: usize = 2000;

/// What is kept of each template.
pub(super) trait Merge {
    /// Adds what is kept of another template that turned out to be the same.
    fn merge(&mut self, other: Self);
}

impl Merge for () {
    fn merge(&mut self, (): Self) {}
}

/// The templates of one service, by text.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Templates<T> {
    known: BTreeMap<String, T>,
    /// The texts in `known` that have learned positions.
    learned: BTreeSet<String>,
}

impl<T> Default for Templates<T> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), learned: BTreeSet::new() }
    }
}

impl<T: Merge> Templates<T> {
    /// Returns the number of templates.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns all templates, by text.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &T)> {
        self.known.iter()
    }

    /// Removes templates that are no longer of use.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let before = self.known.len();
        self.known.retain(|_, kept| keep(kept));
        if self.known.len() < before {
            self.learned.retain(|text| self.known.contains_key(text));
        }
    }

    /// Returns the text of the known template that a masked line belongs to.
    pub(super) fn resolve(&self, masked: &str) -> Option<&str> {
        if let Some((known, _)) = self.known.get_key_value(masked) {
            return Some(known);
        }
        self.learned.iter().find(|pattern| matches(pattern, masked)).map(String::as_str)
    }

    /// Returns what is kept of a template.
    pub(super) fn get_mut(&mut self, text: &str) -> Option<&mut T> {
        self.known.get_mut(text)
    }

    /// Adds a template, which may show that known ones are the same: returns the text that it has then.
    pub(super) fn insert(&mut self, masked: &str, kept: T) -> String {
        self.known.insert(masked.to_owned(), kept);
        let Some(pattern) = self.generalize(masked) else { return masked.to_owned() };
        let same: Vec<String> = self.known.keys().filter(|text| matches(&pattern, text)).cloned().collect();
        for text in same {
            let Some(kept) = self.known.remove(&text) else { continue };
            self.learned.remove(&text);
            match self.known.get_mut(&pattern) {
                Some(merged) => merged.merge(kept),
                None => drop(self.known.insert(pattern.clone(), kept)),
            }
        }
        self.learned.insert(pattern.clone());
        pattern
    }

    /// Returns the template that this one and known ones are lines of, if they differ in enough words.
    fn generalize(&self, masked: &str) -> Option<String> {
        let new: Vec<&str> = masked.split(' ').collect();
        let others = self.known.keys().map(|text| text.split(' ').collect::<Vec<_>>());
        let others: Vec<Vec<&str>> = others.filter(|words| words.len() == new.len()).collect();
        let mut sets: Vec<Vec<usize>> = others.iter().filter_map(|words| differing(&new, words)).collect();
        sets.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        sets.dedup();
        let varies = |set: &Vec<usize>| {
            let same: Vec<&Vec<&str>> = others.iter().filter(|words| equal_outside(&new, words, set)).collect();
            set.iter().all(|position| {
                let distinct: BTreeSet<&str> = same.iter().map(|words| words[*position]).collect();
                let has_number = distinct.iter().any(|word| word.ends_with(WILDCARD));
                let enough = if has_number { MIN_DISTINCT_BESIDE_NUMBER } else { MIN_DISTINCT_WORDS };
                distinct.len() >= enough
            })
        };
        let set = sets.iter().filter(|set| !set.is_empty()).take(MAX_POSITION_SETS).find(|set| varies(set))?;
        let words = new.iter().enumerate().map(|(position, word)| match word.split_once('=') {
            _ if !set.contains(&position) => (*word).to_owned(),
            Some((key, _)) if !key.is_empty() => format!("{key}={WILDCARD}"),
            _ => WILDCARD.to_owned(),
        });
        Some(words.collect::<Vec<_>>().join(" "))
    }
}

/// Returns the positions at which two lines of equal length differ; `None` if they are of different statements.
fn differing(a: &[&str], b: &[&str]) -> Option<Vec<usize>> {
    let mut positions = Vec::new();
    let mut fixed = 0;
    for (position, (a, b)) in a.iter().zip(b).enumerate() {
        if a != b {
            if key_of(a) != key_of(b) || positions.len() == MAX_LEARNED_POSITIONS {
                return None;
            }
            positions.push(position);
        } else if !a.ends_with(WILDCARD) {
            fixed += 1;
        }
    }
    (fixed >= MIN_FIXED_WORDS).then_some(positions)
}

fn equal_outside(a: &[&str], b: &[&str], positions: &[usize]) -> bool {
    let mut words = a.iter().zip(b).enumerate();
    words.all(|(position, (a, b))| if positions.contains(&position) { key_of(a) == key_of(b) } else { a == b })
}

/// Returns the key of a `key=value` word; empty for other words.
fn key_of(word: &str) -> &str {
    word.split_once('=').map_or("", |(key, _)| key)
}

/// Returns whether a masked line belongs to a learned template.
fn matches(pattern: &str, masked: &str) -> bool {
    let (mut expected, mut words) = (pattern.split(' '), masked.split(' '));
    loop {
        match (expected.next(), words.next()) {
            (None, None) => return true,
            (Some(expected), Some(word)) if is_word_of(expected, word) => {}
            _ => return false,
        }
    }
}

/// Returns whether a word of a line may stand at the position of a template's word.
fn is_word_of(expected: &str, word: &str) -> bool {
    expected == word || expected.strip_suffix(WILDCARD).is_some_and(|key| key.is_empty() || word.starts_with(key))
}

/// Learns the templates of lines by service, without counts: for tables that store the template of each line. A
/// template that is learned later does not change what was stored before.
#[derive(Debug, Default)]
pub struct TemplateMiner {
    services: BTreeMap<String, Templates<()>>,
    text: String,
}

impl TemplateMiner {
    /// Learns from a line of a service.
    pub fn learn(&mut self, service: &str, message: &str) {
        let mut text = std::mem::take(&mut self.text);
        mask(message, &mut text, |_| ());
        if let Some(templates) = self.service(service)
            && templates.resolve(&text).is_none()
        {
            if templates.len() >= MAX_MINED_TEMPLATES {
                *templates = Templates::default();
            }
            templates.insert(&text, ());
        }
        self.text = text;
    }

    fn service(&mut self, service: &str) -> Option<&mut Templates<()>> {
        if !self.services.contains_key(service) {
            if self.services.len() >= MAX_MINED_SERVICES {
                return None;
            }
            self.services.insert(service.to_owned(), Templates::default());
        }
        self.services.get_mut(service)
    }

    /// Computes the template of a line by what is learned so far, and the values behind its `<*>`, in order.
    pub fn template<'a>(&self, service: &str, message: &'a str, text: &mut String, parameters: &mut Vec<&'a str>) {
        template(message, text, parameters);
        let templates = self.services.get(service);
        let Some(pattern) = templates.and_then(|templates| templates.resolve(text)).filter(|found| found != text)
        else {
            return;
        };
        parameters.clear();
        for (word, expected) in message.split_whitespace().zip(pattern.split(' ')) {
            if expected.ends_with(WILDCARD) {
                parameters.push(value_of(word).1);
            }
        }
        text.clear();
        text.push_str(pattern);
    }
}

/// Computes the template of a line, and the values behind its `<*>`, in order; without learning.
pub fn template<'a>(message: &'a str, text: &mut String, parameters: &mut Vec<&'a str>) {
    parameters.clear();
    mask(message, text, |on_parameter| parameters.push(on_parameter));
}

/// Replaces variable words (with digits, or longer than 40 bytes) with `<*>` and passes each to `on_parameter`.
pub(super) fn mask<'a>(message: &'a str, out: &mut String, mut on_parameter: impl FnMut(&'a str)) {
    out.clear();
    for word in message.split_whitespace().take(MAX_WORDS) {
        if out.len() > MAX_TEMPLATE_BYTES {
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let (key, value) = value_of(word);
        if !key.is_empty() {
            out.push_str(truncate(key));
            out.push('=');
        }
        let varies = value.len() > MAX_WORD_BYTES || value.bytes().any(|byte| byte.is_ascii_digit());
        if varies {
            on_parameter(value);
        }
        out.push_str(if varies { WILDCARD } else { value });
    }
}

/// Splits a `key=value` word; the key of other words is empty.
fn value_of(word: &str) -> (&str, &str) {
    word.split_once('=').map_or(("", word), |(key, value)| (key, value))
}

/// Truncates a word to [`MAX_TEMPLATE_BYTES`].
fn truncate(word: &str) -> &str {
    if word.len() <= MAX_TEMPLATE_BYTES { word } else { word.split_at(word.floor_char_boundary(MAX_TEMPLATE_BYTES)).0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: [&str; 16] = [
        "admin",
        "oracle",
        "postgres",
        "guest",
        "deploy",
        "backup",
        "nagios",
        "ftpuser",
        "webmaster",
        "git",
        "jenkins",
        "ubuntu",
        "test9",
        "mysql",
        "tomcat",
        "zabbix",
    ];

    /// Returns the distinct templates of lines that arrive in one request.
    fn templates(lines: &[String]) -> BTreeSet<String> {
        let mut miner = TemplateMiner::default();
        lines.iter().for_each(|line| miner.learn("a", line));
        let (mut text, mut parameters) = (String::new(), Vec::new());
        let found = lines.iter().map(|line| {
            miner.template("a", line, &mut text, &mut parameters);
            assert_eq!(text.matches(WILDCARD).count(), parameters.len(), "{text}: {parameters:?}");
            text.clone()
        });
        found.collect()
    }

    #[test]
    fn names_of_users_and_hosts_are_variable() {
        let lines: Vec<String> =
            USERS.iter().zip(1..).map(|(user, n)| format!("Invalid user {user} from 192.0.2.{n}")).collect();
        assert_eq!(templates(&lines), BTreeSet::from(["Invalid user <*> from <*>".to_owned()]));
        let hosts = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "theta", "zeta", "lambda"];
        let lines: Vec<String> = USERS[..10]
            .iter()
            .zip(hosts)
            .map(|(user, host)| format!("session of {user} opened from {host}.example.org by user={user}"))
            .collect();
        let expected = "session of <*> opened from <*> by user=<*>";
        assert_eq!(templates(&lines), BTreeSet::from([expected.to_owned()]));
    }

    #[test]
    fn states_and_methods_stay_templates_of_their_own() {
        let states = ["Started", "Paused", "Resumed", "Stopped"];
        let lines: Vec<String> = (0..32)
            .map(|n| format!("[instance: 9f3c2b1a-0d4e-{n:012}] VM {} (Lifecycle Event)", states[n % 4]))
            .collect();
        assert_eq!(templates(&lines).len(), 4);
        let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
        let lines: Vec<String> = methods.iter().map(|method| format!("{method} request refused by filter")).collect();
        assert_eq!(templates(&lines).len(), 7);
        // Lines of different statements have no more than their length in common.
        let words = ["disk", "node", "queue", "cache", "table", "shard", "lease", "index", "group", "quota"];
        let lines: Vec<String> = words.iter().map(|word| format!("{word} went {word}ward twice")).collect();
        assert_eq!(templates(&lines).len(), 1, "two learned positions");
        let lines: Vec<String> = words.iter().map(|word| format!("{word} {word}s")).collect();
        assert_eq!(templates(&lines).len(), 10);
    }

    #[test]
    fn learned_positions_survive_a_change_of_names() {
        let mut miner = TemplateMiner::default();
        USERS.iter().for_each(|user| miner.learn("a", &format!("login of {user} refused")));
        let (mut text, mut parameters) = (String::new(), Vec::new());
        miner.template("a", "login of mallory refused", &mut text, &mut parameters);
        assert_eq!((text.as_str(), parameters.as_slice()), ("login of <*> refused", ["mallory"].as_slice()));
        miner.template("b", "login of mallory refused", &mut text, &mut parameters);
        assert_eq!(text, "login of mallory refused", "another service");
    }
}
