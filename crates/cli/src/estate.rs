//! `wardroom entities`, `wardroom events` and `wardroom signals`: what the server knows of the estate it watches.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use crate::client::RemoteOutputArgs;
use crate::columns::{Column, severity_tone};
use crate::duration::parse_time_or_age;
use crate::output::{CommandResult, print_rows};
use crate::presentation::OutputArgs;

/// List entities: services, databases, nodes and the like; or what is around one of them.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom entities --kind database
  wardroom entities --search cart -o wide
  wardroom entities --around service:cart --hops 2")]
pub struct EntitiesArgs {
    /// Only this kind, such as service, database or node.
    #[arg(long)]
    kind: Option<String>,
    /// Only this name.
    #[arg(long)]
    name: Option<String>,
    /// Only entities with this text in a field.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// List the relations around this entity: kind:name.
    #[arg(long, value_name = "ENTITY", conflicts_with_all = ["kind", "name", "search"])]
    around: Option<String>,
    /// Relations between it and the entities that are listed.
    #[arg(long, default_value_t = 1, requires = "around")]
    hops: u32,
    /// Maximum number of rows.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

const ENTITY_COLUMNS: &[Column] = &[
    Column::text("KIND", "/kind"),
    Column::text("NAME", "/name"),
    Column::text("NAMESPACE", "/namespace"),
    Column::text("ENVIRONMENT", "/environment"),
    Column::text("CLUSTER", "/cluster"),
    Column::time("LAST SEEN", "/last_seen"),
    Column::text("ALIASES", "/aliases").wide(),
    Column::text("ID", "/id").wide(),
];

const RELATION_COLUMNS: &[Column] =
    &[Column::text("FROM", "/from"), Column::text("RELATION", "/kind"), Column::text("TO", "/to")];

/// Lists entities.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list_entities(args: EntitiesArgs) -> CommandResult {
    let EntitiesArgs { kind, name, search, around, hops, limit, remote } = args;
    let client = remote.client();
    if let Some(entity) = around {
        let topology = client.get_with("/api/v1/topology", &[("entity", entity), ("hops", hops.to_string())])?;
        return print_relations(&topology, &remote.output);
    }
    let parameters = given([("kind", kind), ("name", name), ("text", search)]);
    let entities = client.list("/api/v1/entities", "entities", &parameters, limit)?;
    print_rows(&entities, "entities", ENTITY_COLUMNS, &remote.output)
}

/// Prints relations; in a table with the kinds and names of what they relate, in place of ids.
fn print_relations(topology: &Value, output: &OutputArgs) -> CommandResult {
    if output.is_document() {
        return print_rows(topology, "relations", RELATION_COLUMNS, output);
    }
    let entities = topology["entities"].as_array().into_iter().flatten();
    let names: BTreeMap<&str, String> =
        entities.filter_map(|entity| Some((entity["id"].as_str()?, entity_text(entity)))).collect();
    let named = |id: &Value| id.as_str().and_then(|id| names.get(id)).map_or_else(|| id.clone(), |name| json!(name));
    let relations = topology["relations"].as_array().into_iter().flatten();
    let relations: Vec<Value> =
        relations.map(|it| json!({ "from": named(&it["from"]), "kind": it["kind"], "to": named(&it["to"]) })).collect();
    print_rows(&json!({ "relations": relations }), "relations", RELATION_COLUMNS, output)
}

/// List events: deployments, changes of configuration, restarts, alerts and the like.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom events --since 2h
  wardroom events --entity cart --kind deployment")]
pub struct EventsArgs {
    /// Start: a duration before now such as 2h, or RFC 3339.
    #[arg(long, value_name = "TIME", default_value = "1h")]
    since: String,
    /// End: a duration before now, or RFC 3339; now by default.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only of this entity.
    #[arg(long, value_name = "NAME")]
    entity: Option<String>,
    /// Maximum number of rows.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

const EVENT_COLUMNS: &[Column] = &[
    Column::time("AT", "/at"),
    Column::text("KIND", "/kind"),
    Column::made("ENTITY", |event| entity_text(&event["entity"])),
    Column::text("SOURCE", "/source").wide(),
    Column::made("ATTRIBUTES", |event| pairs_text(&event["attributes"])),
];

/// Lists events.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list_events(args: EventsArgs) -> CommandResult {
    let since = parse_time_or_age("--since", &args.since)?.to_string();
    let until = args.until.as_deref().map(|until| parse_time_or_age("--until", until)).transpose()?;
    let until = until.map(|until| until.to_string());
    let parameters = given([("since", Some(since)), ("until", until), ("kind", args.kind), ("entity", args.entity)]);
    let events = args.remote.client().list("/api/v1/events", "events", &parameters, args.limit)?;
    print_rows(&events, "events", EVENT_COLUMNS, &args.remote.output)
}

/// List signals: what detection judges of each entity, and how it is now.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  wardroom signals --bad
  wardroom signals --entity cart --kind latency")]
pub struct SignalsArgs {
    /// Only of this entity.
    #[arg(long, value_name = "NAME")]
    entity: Option<String>,
    /// Only this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only signals that are beyond their limit.
    #[arg(long)]
    bad: bool,
    /// Maximum number of rows.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

const SIGNAL_COLUMNS: &[Column] = &[
    Column::made("ENTITY", |signal| entity_text(&signal["entity"])),
    Column::text("SIGNAL", "/kind"),
    Column::text("PEER", "/peer/name"),
    Column::text("RESOURCE", "/resource"),
    Column::number("VALUE", "/value"),
    Column::number("LIMIT", "/bad/limit"),
    Column::text("SEVERITY", "/bad/severity").toned(severity_tone),
    Column::text("RULE", "/bad/rule").wide(),
    Column::time("BAD SINCE", "/bad/since"),
    Column::time("AT", "/at").wide(),
    Column::text("METRIC", "/metric"),
];

/// Lists signals.
///
/// # Errors
/// Returns an error if the server does not answer.
pub fn list_signals(args: SignalsArgs) -> CommandResult {
    let bad = args.bad.then(|| "true".to_owned());
    let parameters = given([("entity", args.entity), ("kind", args.kind), ("bad", bad)]);
    let signals = args.remote.client().list("/api/v1/signals", "signals", &parameters, args.limit)?;
    print_rows(&signals, "signals", SIGNAL_COLUMNS, &args.remote.output)
}

/// The parameters that were given.
fn given<const N: usize>(parameters: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// An entity as `kind:name`; a text as it is.
fn entity_text(entity: &Value) -> String {
    match entity {
        Value::String(text) => text.clone(),
        _ => format!("{}:{}", entity["kind"].as_str().unwrap_or_default(), entity["name"].as_str().unwrap_or_default()),
    }
}

/// The fields of an object as `name=value`.
fn pairs_text(object: &Value) -> String {
    let pairs = object.as_object().into_iter().flatten();
    let pairs =
        pairs.map(|(name, value)| format!("{name}={}", value.as_str().map_or(value.to_string(), str::to_owned)));
    pairs.collect::<Vec<_>>().join(" ")
}
