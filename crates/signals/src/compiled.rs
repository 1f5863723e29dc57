//! Conventions made ready for matching: templates parsed, names spelled out.

use std::collections::BTreeMap;

use wardroom_domain::entity_rules::matches_pattern;
use wardroom_domain::{Entity, EntityKind, SignalKind};

use crate::context::Context;
use crate::convention::{Condition, Convention, EntityNaming, PeerNaming, SampleUnit, SeriesRule};
use crate::meaning::{Direction, Outcome, Part};
use crate::template::Template;

/// A parsed [`EntityNaming`].
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    kind: EntityKind,
    name: Vec<Template>,
    namespace: Vec<String>,
    elsewhere: bool,
}

impl Naming {
    fn new(naming: &EntityNaming) -> Result<Self, String> {
        if naming.name.is_empty() {
            return Err("an entity has no name; add a template such as \"{label}\"".into());
        }
        let name = naming.name.iter().map(|text| Template::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self { kind: naming.kind, name, namespace: naming.namespace.clone(), elsewhere: naming.elsewhere })
    }

    /// Returns the entity that a series' labels name. Its namespace is that of the naming's label, else that of the
    /// entity rules.
    pub(crate) fn entity_of(&self, context: &Context<'_>) -> Option<Entity> {
        let (template, name) = self.name.iter().find_map(|template| Some((template, template.fill(context)?)))?;
        let by_address = template.is_watched() && context.watched().is_some_and(|(_, by_address)| by_address);
        let mut entity = context.of_host(self.kind, &name, by_address || self.elsewhere);
        let namespaces: Vec<&str> = self.namespace.iter().map(String::as_str).collect();
        if let Some(namespace) = context.view.value(&namespaces) {
            namespace.clone_into(&mut entity.namespace);
        }
        Some(entity)
    }
}

/// How the called entity is found.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    ByAttributes,
    Named(Naming),
}

/// The parts of a convention that its rules share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) id: Box<str>,
    pub(crate) verified: bool,
    pub(crate) entity: Option<Naming>,
    pub(crate) member: Vec<Template>,
    pub(crate) exporter: Option<Exporter>,
    pub(crate) is_process: bool,
}

/// A parsed exporter section.
#[derive(Clone, Debug)]
pub(crate) struct Exporter {
    ports: Vec<u16>,
    words: Vec<String>,
    jobs: Vec<String>,
    pub(crate) entity: Option<Naming>,
    pub(crate) relays: bool,
}

impl Exporter {
    /// Returns whether a scrape target is of this exporter. `names` are its job, pod and container.
    pub(crate) fn is_target(&self, names: &[&str], port: Option<u16>, (in_pod, says_exporter): (bool, bool)) -> bool {
        let by_port = port.is_some_and(|port| self.ports.contains(&port)) && (!in_pod || says_exporter);
        let has_word = |word: &String| names.iter().any(|name| name.contains(word.as_str()));
        let by_word = says_exporter && self.words.iter().any(has_word);
        let is_job = |pattern: &String| names.first().is_some_and(|job| matches_pattern(pattern, job));
        by_port || by_word || self.jobs.iter().any(is_job)
    }
}

/// A rule for series.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// Index of the convention.
    pub(crate) convention: usize,
    conditions: Vec<(Box<str>, Box<str>, Vec<String>)>,
    pub(crate) signal: Option<SignalKind>,
    pub(crate) resource: Box<str>,
    pub(crate) part: Option<Part>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) unit: Option<SampleUnit>,
    pub(crate) offset: f64,
    pub(crate) factor: f64,
    pub(crate) direction: Option<Direction>,
    pub(crate) family: Box<str>,
    pub(crate) member: Vec<Template>,
    pub(crate) entity: Option<Naming>,
    pub(crate) peer: Option<Peer>,
    pub(crate) called_by: Option<Naming>,
    pub(crate) part_of: Option<Naming>,
    pub(crate) runs_on: Option<Naming>,
    pub(crate) uses: Option<Naming>,
    pub(crate) aliases: Vec<Template>,
    pub(crate) internal: bool,
    pub(crate) delta: bool,
    pub(crate) also: bool,
}

impl Rule {
    /// Returns whether the labels fulfil all conditions.
    pub(crate) fn fits(&self, context: &Context<'_>) -> bool {
        self.conditions.iter().all(|(dotted, plain, patterns)| {
            let value = context.label(dotted, plain);
            let (mut needed, mut found) = (false, false);
            for pattern in patterns {
                match pattern.strip_prefix('!') {
                    Some(pattern) if value.is_some_and(|value| matches_pattern(pattern, value)) => return false,
                    Some(_) => {}
                    None => {
                        needed = true;
                        found |= value.is_some_and(|value| matches_pattern(pattern, value));
                    }
                }
            }
            found || !needed
        })
    }
}

/// Which series of a family a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Bucket,
    Sum,
    Count,
}

/// A spelled-out metric name of a rule.
pub(crate) struct SpelledName {
    pub(crate) name: String,
    pub(crate) shape: Shape,
}

/// A rule with the names of its series.
pub(crate) type NamedRule = (Rule, Vec<SpelledName>);

/// Compiles a convention. The error names the rule and what is wrong with it.
pub(crate) fn compile(convention: &Convention, index: usize) -> Result<(Shared, Vec<NamedRule>), String> {
    let exporter = convention.exporter.as_ref().map(|exporter| {
        let entity = exporter.entity.as_ref().map(Naming::new).transpose()?;
        let (ports, words, jobs) = (exporter.ports.clone(), exporter.words.clone(), exporter.jobs.clone());
        Ok::<_, String>(Exporter { ports, words, jobs, entity, relays: exporter.relays })
    });
    let shared = Shared {
        id: convention.convention.as_str().into(),
        verified: convention.verified,
        entity: convention.entity.as_ref().map(Naming::new).transpose()?,
        member: templates(&convention.member)?,
        exporter: exporter.transpose()?,
        is_process: convention.process,
    };
    let rules = convention.series.iter().map(|rule| {
        let named = |error: String| format!("series {:?}: {error}", rule.metric.first().map_or("", String::as_str));
        Ok((compile_rule(rule, index).map_err(named)?, spelled_names(rule).map_err(named)?))
    });
    Ok((shared, rules.collect::<Result<_, String>>()?))
}

fn templates(texts: &[String]) -> Result<Vec<Template>, String> {
    texts.iter().map(|text| Template::parse(text)).collect()
}

fn compile_rule(rule: &SeriesRule, convention: usize) -> Result<Rule, String> {
    let is_of_requests = rule.part.is_some_and(Part::is_of_requests);
    if rule.part.is_some() && rule.signal.is_none() && !is_of_requests {
        return Err("field signal is missing; add one, or leave part out".into());
    }
    let naming = |naming: &Option<EntityNaming>| naming.as_ref().map(Naming::new).transpose();
    Ok(Rule {
        convention,
        conditions: conditions(&rule.conditions),
        signal: if is_of_requests { Some(SignalKind::Traffic) } else { rule.signal },
        resource: rule.resource.as_str().into(),
        part: rule.part,
        outcome: rule.outcome,
        unit: rule.unit,
        offset: rule.offset,
        factor: rule.factor,
        direction: rule.direction,
        family: rule.family.as_str().into(),
        member: templates(&rule.member)?,
        entity: naming(&rule.entity)?,
        peer: match &rule.peer {
            None => None,
            Some(PeerNaming::ByAttributes(_)) => Some(Peer::ByAttributes),
            Some(PeerNaming::Named(peer)) => Some(Peer::Named(Naming::new(peer)?)),
        },
        called_by: naming(&rule.called_by)?,
        part_of: naming(&rule.part_of)?,
        runs_on: naming(&rule.runs_on)?,
        uses: naming(&rule.uses)?,
        aliases: templates(&rule.aliases)?,
        internal: rule.internal,
        delta: rule.delta,
        also: rule.also,
    })
}

fn conditions(conditions: &BTreeMap<String, Condition>) -> Vec<(Box<str>, Box<str>, Vec<String>)> {
    let compiled = conditions.iter().map(|(label, condition)| {
        let patterns = match condition {
            Condition::Is(pattern) => vec![pattern.clone()],
            Condition::OneOf(patterns) => patterns.clone(),
        };
        (label.as_str().into(), label.replace('.', "_").into(), patterns)
    });
    compiled.collect()
}

/// Returns the names that a rule's metric has on the wire.
fn spelled_names(rule: &SeriesRule) -> Result<Vec<SpelledName>, String> {
    let mut names = Vec::new();
    for metric in &rule.metric {
        if metric.is_empty() || metric.matches('*').count() > 1 {
            return Err("a metric name must not be empty and may have one `*`".into());
        }
        for name in if rule.otel { otel_spellings(metric) } else { vec![metric.clone()] } {
            if rule.part == Some(Part::DURATION) {
                for (ending, shape) in [("_bucket", Shape::Bucket), ("_sum", Shape::Sum), ("_count", Shape::Count)] {
                    names.push(SpelledName { name: format!("{name}{ending}"), shape });
                }
            }
            names.push(SpelledName { name, shape: Shape::Plain });
        }
    }
    Ok(names)
}

/// Returns the spellings of an OpenTelemetry metric: with dots; with underscores; with the units and the `_total` that
/// a translation to Prometheus appends.
fn otel_spellings(metric: &str) -> Vec<String> {
    const ENDINGS: [&str; 15] = [
        "",
        "_total",
        "_seconds",
        "_milliseconds",
        "_seconds_total",
        "_milliseconds_total",
        "_bytes",
        "_bytes_total",
        "_ratio",
        "_ratio_total",
        "_percent",
        "_requests",
        "_connections",
        "_operations_total",
        "_by",
    ];
    let plain = metric.replace('.', "_");
    let mut names = vec![metric.to_owned()];
    names.extend(ENDINGS.iter().map(|ending| format!("{plain}{ending}")));
    names.dedup();
    names
}
