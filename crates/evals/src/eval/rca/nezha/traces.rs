//! Nezha's spans and log lines: what each operation takes by itself, what the path between two services takes, and
//! which operations and log statements belong to one execution of an operation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context as _;
use wardroom_diagnose::{SignalFact, TemplateFact, direction_of};
use wardroom_domain::{Severity, SignalId, SignalKind, Timestamp};
use wardroom_signals::SignalUnit;

use super::super::telemetry::{RcaCase, Recording, calls, fact, signal};
use super::pod::service_of;

/// Width of the bins whose medians are the points of a duration, in ms.
const BIN_MS: i64 = 30_000;
/// Durations with fewer values before, or in a bin, say nothing.
const MIN_DURATIONS: (usize, usize) = (8, 3);
/// Operations with fewer executions before say nothing about what belongs to them.
const MIN_EXECUTIONS: f64 = 3.0;
/// Fewer requests and calls before say nothing about what requests call.
const MIN_REQUESTS: f64 = 8.0;
/// Words of a log line that identify its statement.
const STATEMENT_WORDS: usize = 5;

/// An operation of a service.
type Operation = (String, String);

/// Numbers before and since the start of the fault.
#[derive(Clone, Copy, Default)]
struct Counted {
    before: f64,
    since: f64,
}

/// Durations before and, with their times, since.
#[derive(Clone, Default)]
struct Durations {
    before: Vec<f64>,
    since: Vec<(i64, f64)>,
}

/// A log statement.
#[derive(Clone, Default)]
struct Statement {
    lines: Counted,
    severity: Option<Severity>,
    example: String,
}

/// What was recorded, by operation.
#[derive(Clone, Default)]
pub(super) struct Recorded {
    executions: BTreeMap<Operation, Counted>,
    /// Time that an operation takes without those it calls, in seconds.
    own: BTreeMap<Operation, Durations>,
    /// Time between a call at the caller and its execution at the callee, in seconds: (caller, callee).
    between: BTreeMap<(String, String), Durations>,
    /// Requests that a service gets from others.
    requests: BTreeMap<String, Counted>,
    /// Calls of one service to another: (caller, callee).
    calls: BTreeMap<(String, String), Counted>,
    /// Operations that an operation calls.
    called: BTreeMap<(Operation, Operation), Counted>,
    /// Statements that an operation logs.
    statements: BTreeMap<(Operation, String), Statement>,
}

struct Span {
    operation: Operation,
    parent: Option<usize>,
    at_ms: i64,
    seconds: f64,
    called_seconds: f64,
    /// Whether it waits for another service, so that its own time is that of the path.
    calls_out: bool,
}

impl Recorded {
    pub(super) fn is_empty(&self) -> bool {
        self.executions.is_empty()
    }

    /// Adds everything of a recording without a fault.
    pub(super) fn add_all_as_before(&mut self, other: &Self) {
        for (key, counted) in &other.executions {
            self.executions.entry(key.clone()).or_default().before += counted.before;
        }
        for (key, durations) in &other.own {
            self.own.entry(key.clone()).or_default().before.extend(&durations.before);
        }
        for (key, durations) in &other.between {
            self.between.entry(key.clone()).or_default().before.extend(&durations.before);
        }
        for (key, counted) in &other.requests {
            self.requests.entry(key.clone()).or_default().before += counted.before;
        }
        for (key, counted) in &other.calls {
            self.calls.entry(key.clone()).or_default().before += counted.before;
        }
        for (key, counted) in &other.called {
            self.called.entry(key.clone()).or_default().before += counted.before;
        }
        for (key, statement) in &other.statements {
            let known = self
                .statements
                .entry(key.clone())
                .or_insert_with(|| Statement { lines: Counted::default(), ..statement.clone() });
            known.lines.before += statement.lines.before;
        }
    }

    /// Reads spans and log lines; what began before `began_ms` is the past.
    pub(super) fn read(&mut self, traces: &[PathBuf], logs: &[PathBuf], began_ms: i64) -> anyhow::Result<()> {
        let (spans, ids) = read_spans(traces)?;
        for span in &spans {
            let is_before = span.at_ms < began_ms;
            count(self.executions.entry(span.operation.clone()).or_default(), is_before);
            if !span.calls_out {
                let own = span.seconds - span.called_seconds;
                note(self.own.entry(span.operation.clone()).or_default(), is_before, span.at_ms, own);
            }
            let parent = span.parent.map(|index| &spans[index]);
            if parent.is_none_or(|parent| parent.operation.0 != span.operation.0) {
                count(self.requests.entry(span.operation.0.clone()).or_default(), is_before);
            }
            let Some(parent) = parent else { continue };
            count(self.called.entry((parent.operation.clone(), span.operation.clone())).or_default(), is_before);
            if parent.operation.0 != span.operation.0 {
                let key = (parent.operation.0.clone(), span.operation.0.clone());
                let path = parent.seconds - parent.called_seconds;
                count(self.calls.entry(key.clone()).or_default(), is_before);
                note(self.between.entry(key).or_default(), is_before, span.at_ms, path);
            }
        }
        for path in logs {
            self.read_log(path, &spans, &ids, began_ms)?;
        }
        Ok(())
    }

    fn read_log(
        &mut self,
        path: &PathBuf,
        spans: &[Span],
        ids: &BTreeMap<String, usize>,
        began_ms: i64,
    ) -> anyhow::Result<()> {
        for row in rows(path)? {
            let Some(span) = row.get(6).and_then(|id| ids.get(id)).map(|index| &spans[*index]) else { continue };
            let Some(nanos) = row.get(1).and_then(|text| text.parse::<i64>().ok()) else { continue };
            let (service, text) =
                (service_of(row.get(3).unwrap_or_default()).name, message(row.get(7).unwrap_or_default()));
            let statement = statement_of(&text);
            let operation = (service, span.operation.1.clone());
            let known = self.statements.entry((operation, statement)).or_default();
            count(&mut known.lines, nanos / 1_000_000 < began_ms);
            if known.example.is_empty() {
                known.severity = text.split_whitespace().find_map(Severity::from_known_level);
                known.example = text;
            }
        }
        Ok(())
    }

    /// Adds signals, relations and templates to a case.
    pub(super) fn add_to(&self, case: &mut RcaCase) {
        let from_ms = case.facts.began_at.millis();
        let mut relations = BTreeSet::new();
        for ((from, to), durations) in &self.between {
            let (from, to) = (wardroom_domain::Entity::service(from), wardroom_domain::Entity::service(to));
            relations.insert(calls(&from, &to));
            let metric = format!("network latency from {} to {}", from.name, to.name);
            let signal = SignalId { peer: Some(to), ..signal(&from, SignalKind::Latency, "", &metric) };
            case.spelling.insert(signal.labels().to_string(), format!("|{metric}"));
            case.facts.signals.extend(durations.fact(signal, from_ms));
        }
        case.facts.relations.extend(relations);
        self.add_calls(case);
        for ((service, name), durations) in &self.own {
            let entity = wardroom_domain::Entity::service(service);
            let signal = signal(&entity, SignalKind::Latency, "", name);
            case.spelling.insert(signal.labels().to_string(), format!("|time within {name}"));
            case.facts.signals.extend(durations.fact(signal, from_ms));
        }
        for ((caller, callee), counted) in &self.called {
            let text = format!("{} calls {} of {}", caller.1, callee.1, callee.0);
            self.add_template(case, caller, &text, (*counted, Severity::Warning, &text));
        }
        for ((operation, text), statement) in &self.statements {
            let severity = statement.severity.unwrap_or(Severity::Info).max(Severity::Warning);
            self.add_template(case, operation, text, (statement.lines, severity, &statement.example));
        }
    }

    /// Adds the rates of the calls between services, compared with what the requests of the caller make expect.
    fn add_calls(&self, case: &mut RcaCase) {
        let seconds = case.facts.now.seconds_since(case.facts.began_at);
        for ((from, to), calls) in &self.calls {
            let requests = self.requests.get(from).copied().unwrap_or_default();
            if requests.before < MIN_REQUESTS || requests.since < MIN_EXECUTIONS || calls.before < MIN_REQUESTS {
                continue;
            }
            let expected = calls.before * requests.since / requests.before;
            // The spread of counts is that of a Poisson process, and what makes expect is a count, too.
            let spread = (expected.max(1.0) * (1.0 + expected / calls.before)).sqrt().max(0.05 * expected);
            let (from, to) = (wardroom_domain::Entity::service(from), wardroom_domain::Entity::service(to));
            let metric = format!("calls of {}", to.name);
            let signal = SignalId { peer: Some(to), ..signal(&from, SignalKind::Traffic, "", &metric) };
            case.facts.signals.push(SignalFact {
                unit: SignalUnit::PerSecond,
                direction: direction_of(signal.kind),
                value: calls.since / seconds,
                expected: expected / seconds,
                z: (calls.since - expected) / spread,
                onset: None,
                interval_ms: 0,
                is_bad: false,
                is_gone: false,
                is_internal: false,
                signal,
            });
        }
    }

    /// Adds what belongs to an operation as a template, with the number that its executions make expect.
    fn add_template(
        &self,
        case: &mut RcaCase,
        operation: &Operation,
        text: &str,
        (counted, severity, example): (Counted, Severity, &str),
    ) {
        let executions = self.executions.get(operation).copied().unwrap_or_default();
        if executions.before < MIN_EXECUTIONS || executions.since < 1.0 {
            return;
        }
        case.facts.templates.push(TemplateFact {
            entity: wardroom_domain::Entity::service(&operation.0),
            template: text.to_owned(),
            example: example.to_owned(),
            severity,
            count: counted.since,
            expected: Some(counted.before * executions.since / executions.before),
            at: Timestamp::from_millis(case.facts.began_at.millis()),
        });
        case.spelling.insert(text.to_owned(), format!("|{text}"));
    }
}

impl Durations {
    fn fact(&self, signal: SignalId, from_ms: i64) -> Option<SignalFact> {
        let mut bins: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for (at_ms, seconds) in &self.since {
            bins.entry((at_ms - from_ms).div_euclid(BIN_MS)).or_default().push(*seconds);
        }
        let since: Vec<(i64, f64)> = bins
            .iter()
            .filter(|(_, values)| values.len() >= MIN_DURATIONS.1)
            .filter_map(|(bin, values)| Some((from_ms + bin * BIN_MS, wardroom_diagnose::median(values)?)))
            .collect();
        if self.before.len() < MIN_DURATIONS.0 {
            return None;
        }
        fact(&Recording { signal, unit: SignalUnit::Seconds, before: self.before.clone(), since }, from_ms)
    }
}

fn count(counted: &mut Counted, is_before: bool) {
    *(if is_before { &mut counted.before } else { &mut counted.since }) += 1.0;
}

fn note(durations: &mut Durations, is_before: bool, at_ms: i64, seconds: f64) {
    if is_before {
        durations.before.push(seconds);
    } else {
        durations.since.push((at_ms, seconds));
    }
}

/// Reads the rows of a table without its header. Some lines of the logs are not UTF-8.
fn rows(path: &PathBuf) -> anyhow::Result<Vec<csv::StringRecord>> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(path)?;
    let rows = reader.byte_records().map(|row| Ok(csv::StringRecord::from_byte_record_lossy(row?)));
    rows.collect::<Result<_, csv::Error>>().with_context(|| format!("reading {}", path.display()))
}

/// Reads spans: trace, span, parent, pod, operation, start, end, duration in µs. Returns them with their ids.
fn read_spans(paths: &[PathBuf]) -> anyhow::Result<(Vec<Span>, BTreeMap<String, usize>)> {
    let (mut spans, mut parents) = (Vec::new(), Vec::new());
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    for path in paths {
        for row in rows(path)? {
            if row.len() < 8 {
                continue;
            }
            let (Ok(start), Ok(micros)) = (row[5].parse::<i64>(), row[7].parse::<f64>()) else { continue };
            if ids.contains_key(&row[1]) {
                continue;
            }
            ids.insert(row[1].to_owned(), spans.len());
            parents.push(row[2].to_owned());
            spans.push(Span {
                operation: (service_of(&row[3]).name, row[4].to_owned()),
                parent: None,
                at_ms: start / 1_000_000,
                seconds: micros / 1e6,
                called_seconds: 0.0,
                calls_out: false,
            });
        }
    }
    for (index, parent) in parents.iter().enumerate() {
        let Some(parent) = ids.get(parent).copied().filter(|parent| *parent != index) else { continue };
        let seconds = spans[index].seconds;
        spans[parent].called_seconds += seconds;
        spans[parent].calls_out |= spans[parent].operation.0 != spans[index].operation.0;
        spans[index].parent = Some(parent);
    }
    Ok((spans, ids))
}

/// Returns the text of a container's log line, which may be JSON within JSON.
fn message(line: &str) -> String {
    let field = |text: &str, name: &str| {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        Some(value.get(name)?.as_str()?.to_owned())
    };
    let text = field(line, "log").unwrap_or_else(|| line.to_owned());
    let severity = field(&text, "severity").unwrap_or_default();
    field(&text, "message").map_or(text, |message| format!("{severity} {message}"))
}

/// Returns what identifies the statement of a line: its first words without identifiers, times and numbers. A number
/// after `#` is a source line and stays.
fn statement_of(text: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut skips = false;
    for word in text.split_whitespace() {
        if skips {
            skips = false;
            continue;
        }
        if matches!(word, "TraceID:" | "SpanID:") {
            skips = true;
            continue;
        }
        let is_number = word.chars().any(|c| c.is_ascii_digit()) && !word.contains('#');
        if !is_number {
            words.push(word);
        }
        if words.len() == STATEMENT_WORDS {
            break;
        }
    }
    words.join(" ")
}
