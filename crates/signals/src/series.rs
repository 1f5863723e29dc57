//! The meaning of one series: the first rule that fits, else the shape of its name.

use wardroom_domain::entity_names::{authority_of, host_of, is_loopback};
use wardroom_domain::{Entity, EntityKind, MetricMetadata, Relation, RelationKind, SignalKind};

use crate::compiled::{Naming, Peer, Rule, Shape, Shared};
use crate::context::{Context, without_exporter};
use crate::convention::SampleUnit;
use crate::convention_index::{ExporterOf, Tables};
use crate::meaning::{Outcome, Part, SeriesMeaning, SeriesUse, SignalUnit};
use crate::outcome::outcome_of_labels;
use crate::series_part::{base_name, part_of, usual_direction};
use crate::template::Template;
use crate::{peer, shape};

/// Resource of the availability of an exporter, as opposed to that of what it watches.
const EXPORTER: &str = "exporter";

/// Returns what a series means.
pub(crate) fn meaning(tables: &Tables, context: &Context<'_>, metadata: Option<&MetricMetadata>) -> SeriesMeaning {
    let name = context.view.get("__name__").unwrap_or_default();
    let mut builder: Option<(Builder<'_>, SeriesMeaning)> = None;
    for (rule, shape) in tables.candidates(name) {
        if !rule.fits(context) {
            continue;
        }
        let Some(convention) = tables.conventions.get(rule.convention) else { continue };
        let (builder, meaning) = builder.get_or_insert_with(|| {
            let builder = Builder { tables, context, convention, name, metadata };
            let meaning = builder.series_meaning(rule);
            (builder, meaning)
        });
        builder.add_use(rule, shape, meaning);
        if !rule.also {
            break;
        }
    }
    match builder {
        Some((_, meaning)) => meaning,
        None => unknown(tables, context, name, metadata),
    }
}

/// The meaning of a series that no convention knows.
fn unknown(tables: &Tables, context: &Context<'_>, name: &str, metadata: Option<&MetricMetadata>) -> SeriesMeaning {
    let mut meaning = own_meaning(context, context.rules.entity_of(&context.view));
    if shape::is_internal(name) {
        meaning.is_internal = true;
        return meaning;
    }
    let entity = meaning.entity.clone().unwrap_or_default();
    let Some(mut found) = shape::series_use(context, name, metadata, entity, &meaning.instance) else { return meaning };
    match tables.exporter_of(context) {
        ExporterOf::Known(convention, exporter) if exporter.relays => {
            meaning.entity = convention.entity.as_ref().and_then(|naming| naming.entity_of(context));
            (meaning.aliases, meaning.relations) = (Vec::new(), Vec::new());
            found.entity = meaning.entity.clone().unwrap_or_default();
        }
        ExporterOf::Known(..) => {
            // What the process of an exporter counts is no traffic of what it watches.
            meaning.is_internal = true;
            return meaning;
        }
        ExporterOf::Unknown | ExporterOf::None => {}
    }
    if found.entity.is_empty() {
        return meaning;
    }
    if let Some(peer) = &found.peer {
        relate(&mut meaning.relations, &found.entity, RelationKind::Calls, peer.clone());
    }
    meaning.uses.push(found);
    meaning
}

/// The meaning of a series about the reporting process's own entity, without uses.
pub(crate) fn own_meaning(context: &Context<'_>, entity: Option<Entity>) -> SeriesMeaning {
    let instance = instance_of(context).to_owned();
    let (mut aliases, mut relations) = (Vec::new(), Vec::new());
    if let Some(entity) = &entity {
        aliases = own_aliases(context, entity);
        relations.extend(runs_on_node(context, entity));
    }
    SeriesMeaning { entity, instance, aliases, relations, uses: Vec::new(), is_internal: false }
}

/// Returns the name of the reporting process.
fn instance_of<'a>(context: &Context<'a>) -> &'a str {
    let own = context.view.get("instance").or_else(|| context.rules.pod_of(&context.view));
    own.or_else(|| context.rules.node_of(&context.view)).unwrap_or_default()
}

/// Returns the addresses and the pod of the reporting process.
fn own_aliases(context: &Context<'_>, entity: &Entity) -> Vec<String> {
    let mut aliases = Vec::new();
    let mut add = |name: &str| {
        if !name.is_empty() && name != entity.name && !aliases.iter().any(|known| known == name) {
            aliases.push(name.to_owned());
        }
    };
    if let Some(instance) = context.view.get("instance") {
        let host = host_of(instance);
        // Names without a dot or port are ids of processes; those of loopback addresses name no machine.
        if !is_loopback(host) {
            add(authority_of(instance));
            add(host);
        }
    }
    context.rules.pod_of(&context.view).into_iter().for_each(&mut add);
    // The Kubernetes Service beside the workload; DNS names have it.
    if entity.kind == EntityKind::Workload {
        context.view.get("service").into_iter().for_each(&mut add);
    }
    aliases
}

/// Returns the machine on which the reporting process runs. In a container, `host.name` is the pod.
pub(crate) fn runs_on_node(context: &Context<'_>, entity: &Entity) -> Option<Relation> {
    const KUBERNETES_NODE: [&str; 5] = ["k8s.node.name", "k8s_node_name", "node", "nodename", "kubernetes_node"];
    let in_pod = context.rules.pod_of(&context.view).is_some();
    let node = if in_pod { context.view.value(&KUBERNETES_NODE) } else { context.rules.node_of(&context.view) };
    let node = node.filter(|node| *node != entity.name && !is_loopback(node))?;
    let is_process = !matches!(entity.kind, EntityKind::Node | EntityKind::Endpoint | EntityKind::Certificate);
    let to = context.of_host(EntityKind::Node, node, true);
    is_process.then(|| Relation { from: entity.clone(), kind: RelationKind::RunsOn, to })
}

pub(crate) fn relate(relations: &mut Vec<Relation>, from: &Entity, kind: RelationKind, to: Entity) {
    if *from != to {
        relations.push(Relation { from: from.clone(), kind, to });
    }
}

/// Builds the meaning of a series that a convention knows.
struct Builder<'a> {
    tables: &'a Tables,
    context: &'a Context<'a>,
    convention: &'a Shared,
    name: &'a str,
    metadata: Option<&'a MetricMetadata>,
}

impl Builder<'_> {
    /// Returns the meaning without uses.
    fn series_meaning(&self, rule: &Rule) -> SeriesMeaning {
        let context = self.context;
        let named = |naming: &Option<Naming>| naming.as_ref().and_then(|naming| naming.entity_of(context));
        let convention_entity = named(&self.convention.entity);
        let is_own = rule.entity.is_none();
        let entity = named(&rule.entity).or(convention_entity);
        let entity = entity.or_else(|| context.rules.entity_of(&context.view));
        let mut meaning = own_meaning(context, entity);
        if !is_own || !self.convention.member.is_empty() {
            // The scrape target's address is not the entity's.
            meaning.aliases.clear();
        } else if meaning.entity.as_ref().is_some_and(|entity| entity.kind == EntityKind::Node) {
            // Exporters of machines run in pods of their own.
            meaning.aliases.retain(|alias| Some(alias.as_str()) == context.host());
        }
        if let Some(member) = fill_all(&self.convention.member, context) {
            meaning.instance = member;
        }
        meaning.aliases.extend(rule.aliases.iter().filter_map(|alias| Some(alias.fill(context)?.into_owned())));
        meaning.is_internal = rule.internal;
        if let Some(entity) = meaning.entity.clone() {
            let relations = &mut meaning.relations;
            if let Some(whole) = named(&rule.part_of) {
                relate(relations, &entity, RelationKind::PartOf, whole);
            }
            if let Some(node) = named(&rule.runs_on) {
                relate(relations, &entity, RelationKind::RunsOn, node);
            }
            if let Some(used) = named(&rule.uses) {
                relate(relations, &entity, RelationKind::Uses, used);
            }
            if let Some(caller) = named(&rule.called_by) {
                relate(relations, &caller, RelationKind::Calls, entity);
            }
        }
        meaning
    }

    /// Adds the rule's use of the series.
    fn add_use(&self, rule: &Rule, shape: Shape, meaning: &mut SeriesMeaning) {
        let of_rule = rule.entity.as_ref().and_then(|naming| naming.entity_of(self.context));
        let Some(mut entity) = of_rule.or_else(|| meaning.entity.clone()) else { return };
        let Some(rule_part) = rule.part else { return };
        let mut resource = rule.resource.to_string();
        if self.convention.is_process {
            match self.tables.exporter_of(self.context) {
                ExporterOf::None => {}
                _ if rule_part != Part::Up => {
                    meaning.is_internal = true;
                    return;
                }
                ExporterOf::Known(convention, exporter) => {
                    let watched = exporter.entity.as_ref().or(convention.entity.as_ref());
                    entity = watched.and_then(|naming| naming.entity_of(self.context)).unwrap_or(entity);
                    resource = EXPORTER.to_owned();
                    meaning.entity = Some(entity.clone());
                    if exporter.entity.is_some() {
                        // The target's address is that of what is probed.
                        meaning.aliases.clear();
                    }
                }
                ExporterOf::Unknown => {
                    without_exporter(&entity.name.clone()).clone_into(&mut entity.name);
                    resource = EXPORTER.to_owned();
                    meaning.entity = Some(entity.clone());
                }
            }
        }
        let (unit, scale) = self.unit(rule);
        let Some(part) = self.part((rule, rule_part), shape, scale) else { return };
        let peer = self.peer(rule, &entity, meaning);
        let extra = fill_all(&rule.member, self.context);
        let member = match extra {
            Some(extra) if meaning.instance.is_empty() => extra,
            Some(extra) => format!("{}/{extra}", meaning.instance),
            None => meaning.instance.clone(),
        };
        let kind = rule.signal.unwrap_or(SignalKind::Other);
        meaning.uses.push(SeriesUse {
            entity,
            peer,
            kind,
            resource,
            family: self.family(rule, shape),
            member,
            part,
            scale: scale * rule.factor,
            offset: rule.offset,
            is_delta: rule.delta,
            unit,
            direction: rule.direction.unwrap_or_else(|| usual_direction(kind)),
        });
    }

    fn peer(&self, rule: &Rule, entity: &Entity, meaning: &mut SeriesMeaning) -> Option<Entity> {
        let called = match rule.peer.as_ref()? {
            Peer::Named(naming) => naming.entity_of(self.context)?,
            Peer::ByAttributes => peer::called(self.context)?.entity,
        };
        let kind = match called.kind {
            EntityKind::Database | EntityKind::Cache | EntityKind::Queue => RelationKind::Uses,
            _ => RelationKind::Calls,
        };
        relate(&mut meaning.relations, entity, kind, called.clone());
        Some(called)
    }

    /// The signal's unit, and the factor from the sample to it.
    fn unit(&self, rule: &Rule) -> (SignalUnit, f64) {
        if let Some(unit) = rule.unit {
            return unit.normal();
        }
        let is_duration = matches!(
            rule.part,
            Some(Part::Bucket(..) | Part::DurationSum(_) | Part::DurationCount(_) | Part::Quantile(_))
        );
        if is_duration {
            let stated = self.metadata.and_then(|metadata| SampleUnit::of_metadata(&metadata.unit));
            return SampleUnit::of_name(base_name(self.name)).or(stated).unwrap_or(SampleUnit::Seconds).normal();
        }
        let unit = match rule.part {
            Some(Part::Requests(_) | Part::Failures | Part::Drained | Part::Added) => SignalUnit::PerSecond,
            Some(Part::Up) => SignalUnit::Ratio,
            Some(Part::Time) => SignalUnit::Seconds,
            _ if rule.signal == Some(SignalKind::Latency) => SignalUnit::Seconds,
            _ => SignalUnit::Number,
        };
        (unit, 1.0)
    }

    fn part(&self, (rule, part): (&Rule, Part), shape: Shape, scale: f64) -> Option<Part> {
        let outcome = rule.outcome.unwrap_or_else(|| match rule.peer {
            Some(_) => client_outcome(self.context),
            None => outcome_of_labels(self.context),
        });
        part_of(self.context, part, shape, outcome, scale)
    }

    fn family(&self, rule: &Rule, shape: Shape) -> String {
        if !rule.family.is_empty() {
            return rule.family.to_string();
        }
        match shape {
            Shape::Plain if rule.part.is_some_and(Part::is_of_requests) => {
                self.name.strip_suffix("_total").unwrap_or(self.name).to_owned()
            }
            Shape::Plain => self.name.to_owned(),
            _ => base_name(self.name).to_owned(),
        }
    }
}

/// Returns the outcome as the caller sees it: whatever has an error's type failed, and so did a request that the called
/// service refused because there were too many.
fn client_outcome(context: &Context<'_>) -> Outcome {
    let has_error = context.view.value(&["error.type", "error_type"]).is_some_and(|error| !error.is_empty());
    let is_refused = context.rules.code_of(&context.view).is_some_and(|code| matches!(code, "408" | "429"));
    if has_error || is_refused { Outcome::Failed } else { outcome_of_labels(context) }
}

fn fill_all(templates: &[Template], context: &Context<'_>) -> Option<String> {
    let filled = templates.iter().filter_map(|template| template.fill(context)).collect::<Vec<_>>();
    (!filled.is_empty()).then(|| filled.join("/"))
}
