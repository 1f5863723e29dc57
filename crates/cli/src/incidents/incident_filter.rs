//! Which incidents a list shows.

use clap::Args;
use serde_json::Value;

use crate::client::Client;
use crate::duration::parse_time_or_age;

/// States in which an incident is over.
const ENDED: [&str; 3] = ["resolved", "suppressed", "closed"];
/// States of an incident.
const STATES: [&str; 10] = [
    "open",
    "investigating",
    "awaiting_approval",
    "mitigating",
    "verifying",
    "mitigated",
    "resolved",
    "suppressed",
    "escalated",
    "closed",
];
/// Severities of an incident.
const SEVERITIES: [&str; 4] = ["info", "warning", "high", "critical"];
/// Orders of a list.
const SORTS: [&str; 3] = ["newest", "oldest", "updated"];

#[derive(Clone, Debug, Args)]
pub(super) struct FilterArgs {
    /// Only these states; several separated by commas.
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = STATES, conflicts_with = "active")]
    state: Vec<String>,
    /// Only incidents that are not over.
    #[arg(long)]
    active: bool,
    /// Only these severities; several separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = SEVERITIES)]
    severity: Vec<String>,
    /// Only incidents that affect this entity: its name, or kind:name such as service:cart.
    #[arg(long, alias = "service", value_name = "NAME")]
    entity: Option<String>,
    /// Only incidents that were opened since then: a duration before now such as 24h, or RFC 3339.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only incidents that were opened before then: a duration before now, or RFC 3339.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only incidents that this principal takes care of.
    #[arg(long, value_name = "PRINCIPAL")]
    owner: Option<String>,
    /// Only incidents whose id, title, entities, causes or comments contain all these words; case is ignored.
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// Order.
    #[arg(long, value_parser = SORTS, default_value = "newest")]
    sort: String,
    /// Maximum number of incidents.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// What is asked for.
pub(super) struct Filter {
    parameters: Vec<(&'static str, String)>,
    /// The kind of an entity that it must affect, with its name.
    entity: Option<(String, String)>,
    limit: usize,
}

impl FilterArgs {
    /// Reads the times; those relative to now are so from here on.
    pub(super) fn parse(self) -> anyhow::Result<Filter> {
        let Self { state, active, severity, entity, since, until, owner, search, sort, limit } = self;
        let time = |flag: &str, at: Option<String>| {
            at.map(|at| Ok::<_, anyhow::Error>(parse_time_or_age(flag, &at)?.to_string())).transpose()
        };
        let active: Vec<&str> = STATES.into_iter().filter(|state| active && !ENDED.contains(state)).collect();
        let states = [active.join(","), state.join(",")].concat();
        let kind_and_name = entity.as_deref().and_then(|entity| entity.split_once(':'));
        let name = kind_and_name.map_or_else(|| entity.clone(), |(_, name)| Some(name.to_owned()));
        let given = [
            ("state", Some(states)),
            ("severity", Some(severity.join(","))),
            ("service", name),
            ("since", time("--since", since)?),
            ("until", time("--until", until)?),
            ("owner", owner),
            ("text", search),
            ("sort", Some(sort)),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name, value?)));
        Ok(Filter {
            parameters: given.filter(|(_, value)| !value.is_empty()).collect(),
            entity: kind_and_name.map(|(kind, name)| (kind.to_owned(), name.to_owned())),
            limit,
        })
    }
}

impl Filter {
    /// Returns the incidents, as the API returns them.
    pub(super) fn fetch(&self, client: &Client) -> anyhow::Result<Value> {
        client.list_where("/api/v1/incidents", "incidents", &self.parameters, self.limit, |row| self.affects(row))
    }

    /// Whether an incident affects the entity of that kind. The server filters by name only.
    fn affects(&self, incident: &Value) -> bool {
        let Some((kind, name)) = &self.entity else { return true };
        let mut entities = incident["entities"].as_array().into_iter().flatten();
        entities.any(|entity| entity["kind"] == kind.as_str() && entity["name"] == name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn filter(arguments: &[&str]) -> Filter {
        let arguments = Arguments::try_parse_from(["list"].iter().chain(arguments)).unwrap();
        arguments.filter.parse().unwrap()
    }

    #[test]
    fn arguments_become_parameters() {
        let query = |arguments: &[&str]| {
            let parameters = filter(arguments).parameters;
            parameters.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
        };
        assert_eq!(query(&[]), "sort=newest");
        assert_eq!(
            query(&["--active", "--severity", "high,critical", "--severity", "info"]),
            "state=open,investigating,awaiting_approval,mitigating,verifying,mitigated,escalated\
             &severity=high,critical,info&sort=newest"
        );
        assert_eq!(
            query(&["--state", "open", "--service", "cart", "--since", "2026-01-02T00:00:00Z", "--search", "a b"]),
            "state=open&service=cart&since=2026-01-02T00:00:00.000Z&text=a b&sort=newest"
        );
    }

    #[test]
    fn a_kind_of_entity_is_filtered_here() {
        let incident = json!({ "entities": [{ "kind": "service", "name": "cart" }, { "kind": "node", "name": "n1" }] });
        for (entity, expected) in [("cart", true), ("service:cart", true), ("node:n1", true), ("service:n1", false)] {
            assert_eq!(filter(&["--entity", entity]).affects(&incident), expected, "{entity}");
        }
    }

    #[test]
    fn unknown_values_are_refused_with_the_known_ones() {
        let error = Arguments::try_parse_from(["list", "--state", "opened"]).unwrap_err().to_string();
        assert!(error.contains("awaiting_approval"), "{error}");
    }
}
