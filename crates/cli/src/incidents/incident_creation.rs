//! Incidents that people make: opened by hand, or split from another one.

use clap::Args;
use serde_json::{Value, json};

use super::incident_changes::ChangedArgs;
use crate::client::RemoteOutputArgs;
use crate::duration::parse_time_or_age;
use crate::output::CommandResult;

#[derive(Clone, Debug, Args)]
pub(super) struct CreateArgs {
    /// One line that says what is wrong.
    title: String,
    /// What is affected: a name, kind:name such as database:orders, or an id that `entities -o wide` prints; may
    /// repeat. One that telemetry does not know is a service of this name.
    #[arg(long = "entity", value_name = "NAME", required = true)]
    entities: Vec<String>,
    /// How bad it is.
    #[arg(long, value_parser = ["info", "warning", "high", "critical"], default_value = "high")]
    severity: String,
    /// The first comment.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// When it began: a duration before now such as 20m, or RFC 3339; the newest time of the telemetry by default.
    #[arg(long, value_name = "TIME")]
    began: Option<String>,
    #[command(flatten)]
    remote: RemoteOutputArgs,
}

impl CreateArgs {
    /// Opens the incident, and prints its id.
    pub(super) fn send(&self) -> CommandResult {
        self.remote.post("/api/v1/incidents", &self.body()?, |created| {
            format!("{} opened", created["id"].as_str().unwrap_or_default())
        })
    }

    fn body(&self) -> anyhow::Result<Value> {
        let Self { title, entities, severity, description, began, .. } = self;
        let mut body =
            json!({ "title": title, "entities": entities, "severity": severity, "description": description });
        if let Some(began) = began {
            body["began_at"] = json!(parse_time_or_age("--began", began)?);
        }
        Ok(body)
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct SplitArgs {
    #[command(flatten)]
    incident: ChangedArgs,
    /// An entity of the incident that becomes another one: its name, kind:name, or its id; may repeat.
    #[arg(long = "entity", value_name = "NAME", required_unless_present = "evidence")]
    entities: Vec<String>,
    /// Id of evidence of the incident, whose entity becomes another one; may repeat.
    #[arg(long, value_name = "ID")]
    evidence: Vec<String>,
    /// Title of the new incident; made from its entities by default.
    #[arg(long)]
    title: Option<String>,
    /// Reason, for the timeline and the audit log.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl SplitArgs {
    /// Splits the incident, and prints the id of the new one.
    pub(super) fn send(&self) -> CommandResult {
        let body = json!({
            "entities": self.entities, "evidence": self.evidence, "title": self.title, "reason": self.reason,
        });
        self.incident.send_and("split", &body, |answer| {
            let text = |incident: &Value| incident["id"].as_str().unwrap_or_default().to_owned();
            format!("{} split; the new one is {}", text(&answer["incident"]), text(&answer["created"]))
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        create: CreateArgs,
    }

    #[test]
    fn arguments_become_a_body() {
        let body = |arguments: &[&str]| {
            let arguments = Arguments::try_parse_from(["create"].iter().chain(arguments));
            arguments.map(|arguments| arguments.create.body().unwrap()).map_err(|error| error.to_string())
        };
        let expected = json!({ "title": "late", "entities": ["cart"], "severity": "high", "description": "" });
        assert_eq!(body(&["late", "--entity", "cart"]), Ok(expected));
        let full = ["late", "--entity", "cart", "--entity", "database:orders", "--severity", "critical"];
        let more = ["--description", "customers call", "--began", "2026-01-02T03:04:05Z"];
        let expected = json!({ "title": "late", "entities": ["cart", "database:orders"], "severity": "critical",
            "description": "customers call", "began_at": "2026-01-02T03:04:05Z" });
        assert_eq!(body(&[&full[..], &more].concat()), Ok(expected));
        assert!(body(&["late"]).unwrap_err().contains("--entity"));
    }
}
