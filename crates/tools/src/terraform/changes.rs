//! The changes of a plan, from `terraform show -json`.

use serde_json::{Map, Value, json};
use wardroom_respond::{Risk, ToolError};

/// Most resources that are described one by one.
const MAX_DESCRIBED: usize = 40;
/// Most attributes that are described for one resource.
const MAX_ATTRIBUTES: usize = 12;
/// Longest value that is shown, in characters.
const MAX_VALUE_CHARS: usize = 80;
/// Major version of the format that is understood.
const FORMAT_MAJOR: &str = "1.";

/// What a plan changes.
#[derive(Debug)]
pub(super) struct Changes {
    resources: Vec<ResourceChange>,
    outputs: usize,
    /// Text that is equal for equal changes.
    pub(super) fingerprint: String,
}

/// The change of one resource.
#[derive(Debug)]
struct ResourceChange {
    address: String,
    kind: Kind,
    /// Changed attributes: path, before, after.
    attributes: Vec<(String, String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Create,
    Update,
    Delete,
    Replace,
    /// Changes of the state only: imported, moved or forgotten.
    State,
}

impl Kind {
    fn read(change: &Value) -> Option<Self> {
        let actions: Vec<&str> = change["actions"].as_array()?.iter().filter_map(Value::as_str).collect();
        match actions.as_slice() {
            ["no-op"] if change["importing"].is_object() => Some(Self::State),
            ["no-op" | "read"] => None,
            ["create"] => Some(Self::Create),
            ["update"] => Some(Self::Update),
            ["delete"] => Some(Self::Delete),
            ["forget"] => Some(Self::State),
            // An action that is not known here counts as the worst.
            _ => Some(Self::Replace),
        }
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::Create => "+",
            Self::Update => "~",
            Self::Delete => "-",
            Self::Replace => "-/+",
            Self::State => "=",
        }
    }

    const fn removes(self) -> bool {
        matches!(self, Self::Delete | Self::Replace)
    }
}

impl Changes {
    /// Reads the changes.
    pub(super) fn read(plan: &Value) -> Result<Self, ToolError> {
        let version = plan["format_version"].as_str().unwrap_or_default();
        if !version.starts_with(FORMAT_MAJOR) {
            return Err(ToolError::Invalid(format!(
                "the plan has format {version:?}; this build reads {FORMAT_MAJOR}x"
            )));
        }
        if plan["errored"] == true {
            return Err(ToolError::Invalid("the plan is incomplete: Terraform met an error".to_owned()));
        }
        let empty = Vec::new();
        let all = plan["resource_changes"].as_array().unwrap_or(&empty);
        let mut resources = Vec::new();
        for resource in all {
            let change = &resource["change"];
            let Some(kind) = Kind::read(change) else { continue };
            let address = resource["address"].as_str().unwrap_or_default().to_owned();
            resources.push(ResourceChange { address, kind, attributes: attributes(change) });
        }
        let outputs = plan["output_changes"].as_object().into_iter().flatten();
        let outputs = outputs.filter(|(_, change)| change["actions"] != json!(["no-op"])).count();
        let fingerprint = json!([plan["resource_changes"], plan["output_changes"], plan["variables"]]).to_string();
        Ok(Self { resources, outputs, fingerprint })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.outputs == 0
    }

    pub(super) fn count(&self) -> usize {
        self.resources.len()
    }

    pub(super) fn removed(&self) -> usize {
        self.resources.iter().filter(|resource| resource.kind.removes()).count()
    }

    pub(super) fn removed_addresses(&self) -> Vec<&str> {
        let removed = self.resources.iter().filter(|resource| resource.kind.removes());
        removed.take(MAX_DESCRIBED).map(|resource| resource.address.as_str()).collect()
    }

    pub(super) fn risk(&self) -> Risk {
        if self.removed() > 0 { Risk::High } else { Risk::Medium }
    }

    /// Returns the numbers, as Terraform counts them.
    pub(super) fn summary(&self) -> String {
        let count = |kinds: &[Kind]| self.resources.iter().filter(|resource| kinds.contains(&resource.kind)).count();
        let (add, change) = (count(&[Kind::Create, Kind::Replace]), count(&[Kind::Update, Kind::State]));
        let destroy = count(&[Kind::Delete, Kind::Replace]);
        let outputs = if self.outputs == 0 { String::new() } else { format!(", {} outputs change", self.outputs) };
        format!("{add} to add, {change} to change, {destroy} to destroy{outputs}")
    }

    /// Describes the changes; those that destroy come first.
    pub(super) fn diff(&self) -> String {
        let mut sorted: Vec<&ResourceChange> = self.resources.iter().collect();
        sorted.sort_by_key(|resource| !resource.kind.removes());
        let describe = |resource: &&ResourceChange| {
            let ResourceChange { address, kind, attributes } = resource;
            let shown = attributes.iter().take(MAX_ATTRIBUTES).map(|(path, before, after)| match kind {
                Kind::Create => format!("{path}: {after}"),
                _ => format!("{path}: {before} → {after}"),
            });
            let mut shown: Vec<String> = shown.collect();
            if attributes.len() > MAX_ATTRIBUTES {
                shown.push(format!("and {} more", attributes.len() - MAX_ATTRIBUTES));
            }
            let list = if shown.is_empty() || *kind == Kind::Delete {
                String::new()
            } else {
                format!(" ({})", shown.join(", "))
            };
            format!("{} {address}{list}", kind.sign())
        };
        let mut parts: Vec<String> = sorted.iter().take(MAX_DESCRIBED).map(describe).collect();
        if sorted.len() > MAX_DESCRIBED {
            parts.push(format!("and {} more", sorted.len() - MAX_DESCRIBED));
        }
        parts.join("; ")
    }

    pub(super) fn blast_radius(&self) -> String {
        let mut addresses: Vec<&str> =
            self.resources.iter().take(MAX_DESCRIBED).map(|resource| resource.address.as_str()).collect();
        if self.resources.len() > MAX_DESCRIBED {
            addresses.push("…");
        }
        match addresses.is_empty() {
            true => "outputs only, no resource".to_owned(),
            false => format!("{} resources: {}", self.resources.len(), addresses.join(", ")),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let resource = |resource: &ResourceChange| {
            let attributes: Vec<Value> = (resource.attributes.iter())
                .map(|(path, before, after)| json!({ "path": path, "before": before, "after": after }))
                .collect();
            json!({ "address": resource.address, "change": resource.kind.sign(), "attributes": attributes })
        };
        let resources: Vec<Value> = self.resources.iter().map(resource).collect();
        json!({ "summary": self.summary(), "resources": resources })
    }
}

/// Returns the changed attributes of a resource. Sensitive values are not shown.
fn attributes(change: &Value) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let side = |name: &str| (&change[name], &change[format!("{name}_sensitive")]);
    compare("", side("before"), side("after"), &change["after_unknown"], &mut found);
    found
}

fn compare(
    path: &str,
    (before, before_sensitive): (&Value, &Value),
    (after, after_sensitive): (&Value, &Value),
    unknown: &Value,
    found: &mut Vec<(String, String, String)>,
) {
    if before_sensitive == true || after_sensitive == true {
        if before != after || unknown == true {
            let path = if path.is_empty() { "all attributes" } else { path };
            found.push((path.to_owned(), "(sensitive)".to_owned(), "(sensitive)".to_owned()));
        }
        return;
    }
    if unknown == true {
        found.push((path.to_owned(), show(before), "(known after apply)".to_owned()));
        return;
    }
    let parts = |value: &Value| -> Option<Map<String, Value>> {
        match value {
            Value::Object(fields) => Some(fields.clone()),
            Value::Array(items) => {
                Some(items.iter().enumerate().map(|(index, item)| (index.to_string(), item.clone())).collect())
            }
            _ => None,
        }
    };
    let child = |value: &Value, name: &str| match value {
        Value::Object(_) => value.get(name).cloned().unwrap_or_default(),
        Value::Array(items) => name.parse().ok().and_then(|index: usize| items.get(index)).cloned().unwrap_or_default(),
        _ => Value::Null,
    };
    let (before_parts, after_parts, unknown_parts) = (parts(before), parts(after), parts(unknown));
    if before_parts.is_none() && after_parts.is_none() {
        if before != after {
            found.push((path.to_owned(), show(before), show(after)));
        }
        return;
    }
    let names = [before_parts, after_parts, unknown_parts].into_iter().flatten().flat_map(|parts| parts.into_iter());
    let names: std::collections::BTreeSet<String> = names.map(|(name, _)| name).collect();
    for name in names {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        compare(
            &below,
            (&child(before, &name), &child(before_sensitive, &name)),
            (&child(after, &name), &child(after_sensitive, &name)),
            &child(unknown, &name),
            found,
        );
    }
}

fn show(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= MAX_VALUE_CHARS {
        return text;
    }
    text.chars().take(MAX_VALUE_CHARS).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Part of a plan of Terraform 1.11.4.
    fn plan() -> Value {
        json!({ "format_version": "1.2", "errored": false, "output_changes": { "names": { "actions": ["update"] } },
            "resource_changes": [
            { "address": "terraform_data.service[0]", "change": { "actions": ["update"],
                "before": { "id": "a", "input": { "image": "checkout:2.4.0", "password": "CANARY1" }, "output": 1 },
                "after": { "id": "a", "input": { "image": "checkout:2.4.1", "password": "CANARY2" } },
                "after_unknown": { "input": {}, "output": true },
                "before_sensitive": { "input": { "password": true } }, "after_sensitive": { "input": { "password": true } } } },
            { "address": "terraform_data.db", "change": { "actions": ["delete", "create"],
                "before": { "triggers_replace": ["a"] }, "after": { "triggers_replace": ["b"] },
                "after_unknown": { "id": true }, "before_sensitive": {}, "after_sensitive": {} } },
            { "address": "terraform_data.old", "change": { "actions": ["delete"], "before": { "input": "x" }, "after": null,
                "after_unknown": {}, "before_sensitive": false, "after_sensitive": false } },
            { "address": "terraform_data.same", "change": { "actions": ["no-op"], "before": {}, "after": {} } },
            { "address": "terraform_data.all", "change": { "actions": ["update"], "before": { "a": "CANARY3" },
                "after": { "a": "CANARY4" }, "after_unknown": {}, "before_sensitive": true, "after_sensitive": true } },
        ] })
    }

    #[test]
    fn changes_are_counted_and_described_with_what_destroys_first() {
        let changes = Changes::read(&plan()).unwrap();
        assert_eq!(changes.summary(), "1 to add, 2 to change, 2 to destroy, 1 outputs change");
        assert_eq!((changes.count(), changes.removed(), changes.risk()), (4, 2, Risk::High));
        assert_eq!(
            changes.diff(),
            "-/+ terraform_data.db (id: null → (known after apply), triggers_replace.0: \"a\" → \"b\"); \
             - terraform_data.old; \
             ~ terraform_data.service[0] (input.image: \"checkout:2.4.0\" → \"checkout:2.4.1\", \
             input.password: (sensitive) → (sensitive), output: 1 → (known after apply)); \
             ~ terraform_data.all (all attributes: (sensitive) → (sensitive))"
        );
        let shown = format!("{} {} {}", changes.diff(), changes.blast_radius(), changes.to_json());
        assert!(!shown.contains("CANARY"), "{shown}");
    }

    #[test]
    fn what_is_not_understood_is_refused_or_counts_as_the_worst() {
        let mut plan = plan();
        plan["resource_changes"][0]["change"]["actions"] = json!(["explode"]);
        assert_eq!(Changes::read(&plan).unwrap().removed(), 3);
        plan["errored"] = true.into();
        assert!(Changes::read(&plan).is_err());
        assert!(Changes::read(&json!({ "format_version": "2.0" })).is_err());
    }
}
