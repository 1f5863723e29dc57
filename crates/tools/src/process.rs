//! `process`: controls a supervised service through its supervisor's control API.
//!
//! `GET {url}/services/{name}` returns version, settings and the key of the last operation.
//! `POST {url}/services/{name}/{restart|rollback|settings}` with `Idempotency-Key` and `If-Match` executes one.
//! The probe compares the last key, which the supervisor sets together with the effect. If the last key is neither this
//! operation's nor the one in the plan, another operation came in between and the outcome is unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Operation, Tool, ToolError, ToolSpec, parse_arguments};

use crate::Target;

/// The `process` tool.
#[derive(Debug)]
pub struct ProcessTool {
    targets: Vec<Target>,
    agent: ureq::Agent,
}

/// Arguments of `restart` and `rollback`: none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

/// Arguments of `settings`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SettingArguments {
    /// Name of the setting.
    key: String,
    /// New value.
    value: Value,
}

/// State of a service as the supervisor reports it.
#[derive(Debug, Deserialize)]
struct State {
    version: String,
    previous_version: Option<String>,
    #[serde(default)]
    settings: BTreeMap<String, Value>,
    last_key: Option<String>,
}

impl ProcessTool {
    /// Creates the tool with these targets; targets of other tools are ignored.
    pub fn new(targets: Vec<Target>) -> Self {
        let targets = targets.into_iter().filter(|target| target.tool == "process").collect();
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(15)))
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        Self { targets, agent: config.new_agent() }
    }

    fn target(&self, call: &ToolCall) -> Result<&Target, ToolError> {
        let known = self.targets.iter().find(|target| target.name == call.target);
        let target = known.ok_or_else(|| {
            ToolError::Invalid(format!(
                "target {:?} is not declared for this tenant in the executor's configuration",
                call.target
            ))
        })?;
        let is_allowed = target.operations.as_ref().is_none_or(|allowed| allowed.contains(&call.operation));
        if !is_allowed {
            return Err(ToolError::Invalid(format!(
                "operation {:?} is not allowed on {:?}",
                call.operation, call.target
            )));
        }
        Ok(target)
    }

    fn read(&self, target: &Target) -> Result<State, ToolError> {
        let mut request = self.agent.get(format!("{}/services/{}", target.url, target.name));
        if let Some(token) = &target.token {
            request = request.header("Authorization", format!("Bearer {}", token.expose_secret()));
        }
        let mut response = request.call().map_err(|error| ToolError::Unavailable(error.to_string()))?;
        if response.status() != 200 {
            return Err(ToolError::Invalid(format!(
                "the supervisor responds with {} for {:?}",
                response.status(),
                target.name
            )));
        }
        response.body_mut().read_json().map_err(|error| ToolError::Unavailable(error.to_string()))
    }
}

impl Tool for ProcessTool {
    fn spec(&self) -> ToolSpec {
        let operation = |name, summary, risk, arguments: schemars::Schema| Operation {
            name,
            summary,
            risk,
            arguments: arguments.to_value(),
        };
        ToolSpec {
            name: "process",
            summary: "a supervised service",
            operations: vec![
                operation("restart", "restart the service", "low", schema_for!(NoArguments)),
                operation("rollback", "roll back to the previous version", "medium", schema_for!(NoArguments)),
                operation("settings", "change one setting", "medium", schema_for!(SettingArguments)),
            ],
        }
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        self.target(call)?;
        match call.operation.as_str() {
            "restart" | "rollback" => parse_arguments::<NoArguments>(&call.arguments).map(drop),
            "settings" => parse_arguments::<SettingArguments>(&call.arguments).map(drop),
            other => Err(unknown_operation(other)),
        }
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let target = self.target(call)?;
        let state = self.read(target)?;
        let (diff, undo, precondition) = match call.operation.as_str() {
            "restart" => {
                parse_arguments::<NoArguments>(&call.arguments)?;
                (format!("{} {} is restarted", target.name, state.version), None, fingerprint(&state, None))
            }
            "rollback" => {
                parse_arguments::<NoArguments>(&call.arguments)?;
                let Some(previous) = &state.previous_version else {
                    return Err(ToolError::Invalid(format!("{:?} has no previous version to go back to", target.name)));
                };
                let undo = ToolCall { arguments: Map::new(), ..call.clone() };
                let diff = format!("{} goes from version {} to {previous}", target.name, state.version);
                (diff, Some(undo), fingerprint(&state, Some(previous_part(&state))))
            }
            "settings" => {
                let arguments: SettingArguments = parse_arguments(&call.arguments)?;
                let Some(current_value) = state.settings.get(&arguments.key) else {
                    let known: Vec<&str> = state.settings.keys().map(String::as_str).collect();
                    let detail = format!("no setting {:?}; there are {}", arguments.key, known.join(", "));
                    return Err(ToolError::Invalid(detail));
                };
                let precondition = fingerprint(&state, Some(setting_part(&state, &arguments.key)));
                let previous = json!({ "key": arguments.key, "value": current_value });
                let undo = ToolCall { arguments: previous.as_object().cloned().unwrap_or_default(), ..call.clone() };
                (
                    format!(
                        "{}: {} goes from {current_value} to {}",
                        target.name,
                        arguments.key,
                        display_text(&arguments.value)
                    ),
                    Some(undo),
                    precondition,
                )
            }
            other => return Err(unknown_operation(other)),
        };
        let risk = self
            .spec()
            .operations
            .iter()
            .find(|operation| operation.name == call.operation)
            .map_or("high", |operation| operation.risk);
        Ok(DryRun {
            diff,
            blast_radius: format!("{} and its callers, for the seconds of the change", target.name),
            risk: risk.to_owned(),
            reversible: undo.is_some(),
            precondition,
            undo,
        })
    }

    fn execute(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Applied, ToolError> {
        let target = self.target(call)?;
        let body = match call.operation.as_str() {
            "restart" | "rollback" => json!({}),
            "settings" => {
                let arguments: SettingArguments = parse_arguments(&call.arguments)?;
                json!({ "key": arguments.key, "value": parse_number(&arguments.value) })
            }
            other => return Err(unknown_operation(other)),
        };
        let url = format!("{}/services/{}/{}", target.url, target.name, call.operation);
        let mut request =
            self.agent.post(url).header("Idempotency-Key", key).header("If-Match", version_of(precondition));
        if let Some(token) = &target.token {
            request = request.header("Authorization", format!("Bearer {}", token.expose_secret()));
        }
        let mut response = request.send_json(body).map_err(|error| ToolError::Unavailable(error.to_string()))?;
        let text = response.body_mut().read_to_string().unwrap_or_default();
        match response.status().as_u16() {
            200..=299 => {
                // A success response is not trusted: probe for the effect.
                let outcome = self.probe(call, precondition, key)?;
                let detail = match outcome {
                    Outcome::Applied => format!("{} of {} done", call.operation, call.target),
                    Outcome::NotApplied => {
                        "the supervisor reported success, but the change did not take effect".to_owned()
                    }
                    Outcome::Unknown => {
                        "the supervisor reported success, but shows a change by another operation".to_owned()
                    }
                };
                Ok(Applied { outcome, detail })
            }
            412 => Err(ToolError::Stale(text)),
            400..=499 => Ok(Applied { outcome: Outcome::NotApplied, detail: text }),
            _ => Err(ToolError::Unavailable(text)),
        }
    }

    fn probe(&self, call: &ToolCall, precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let state = self.read(self.target(call)?)?;
        Ok(if state.last_key.as_deref() == Some(key) {
            Outcome::Applied
        } else if precondition.ends_with(&last_key_suffix(&state)) {
            Outcome::NotApplied
        } else {
            // Another operation came after this one, or instead of it.
            Outcome::Unknown
        })
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        let state = self.read(self.target(call)?)?;
        let part = match call.operation.as_str() {
            "rollback" => Some(previous_part(&state)),
            "settings" => Some(setting_part(&state, &parse_arguments::<SettingArguments>(&call.arguments)?.key)),
            _ => None,
        };
        Ok(fingerprint(&state, part))
    }
}

fn unknown_operation(name: &str) -> ToolError {
    ToolError::Invalid(format!("process has no operation {name:?}; there are restart, rollback, settings"))
}

/// Precondition of a plan: version, the part of the state that the operation changes, and key of the last operation.
/// Any other operation in between makes the plan stale.
fn fingerprint(state: &State, part: Option<String>) -> String {
    let part = part.map(|part| format!(" {part}")).unwrap_or_default();
    format!("{}{part}{}", state.version, last_key_suffix(state))
}

/// The version that a rollback goes to.
fn previous_part(state: &State) -> String {
    format!("previous={}", state.previous_version.as_deref().unwrap_or("none"))
}

/// The value of a setting.
fn setting_part(state: &State, key: &str) -> String {
    format!("{key}={}", state.settings.get(key).cloned().unwrap_or_default())
}

/// Suffix of a precondition with the key of the last operation.
fn last_key_suffix(state: &State) -> String {
    format!(" after={}", state.last_key.as_deref().unwrap_or("nothing"))
}

/// Returns the version in a precondition, which the supervisor compares.
fn version_of(precondition: &str) -> &str {
    precondition.split_once(' ').map_or(precondition, |(version, _)| version)
}

/// Converts a number in a string, as found in logs, to a number.
fn parse_number(value: &Value) -> Value {
    value
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .filter(Value::is_number)
        .unwrap_or_else(|| value.clone())
}

fn display_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
