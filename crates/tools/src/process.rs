//! `process`: controls a supervised service through its supervisor's control API.
//!
//! `GET {url}/services/{name}` returns version, settings and the key of the last operation.
//! `POST {url}/services/{name}/{restart|rollback|settings}` with `Idempotency-Key` and `If-Match` executes one.
//! The probe compares the last key, which the supervisor sets together with the effect. If the last key is neither this
//! operation's nor the one in the plan, another operation came in between and the outcome is unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{
    Applied, NoArguments, Operation, Risk, Run, Tool, ToolError, ToolSpec, operation, parse_arguments,
};

use crate::http_client::{HttpClient, HttpRequest, HttpResponse, check_url};
use crate::secrets::Secrets;
use crate::{Context, Declared, Secret, SettingError, ToolKind};

/// Maximum duration of a request that changes nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The `process` tool.
#[derive(Debug)]
pub(crate) struct ProcessTool {
    targets: Vec<Declared<Settings>>,
    http: HttpClient,
    secrets: Secrets,
}

/// Fields of a target of `process`, a service of a supervisor.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Base URL of the control API.
    url: String,
    /// Bearer token for the control API.
    #[serde(default)]
    token: Option<Secret>,
}

/// Arguments of `settings`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SettingArguments {
    /// Name of the setting.
    #[schemars(length(min = 1, max = 100))]
    key: String,
    /// New value, in the unit of the setting: text, a number, or true or false.
    #[schemars(with = "SettingValue")]
    value: Value,
}

/// Values that a setting can have.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum SettingValue {
    Text(#[schemars(length(max = 1000))] String),
    Number(#[schemars(range(min = -1e15, max = 1e15))] f64),
    Switch(bool),
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

impl ToolKind for ProcessTool {
    const NAME: &'static str = "process";
    type Settings = Settings;

    fn check_settings(settings: &Settings) -> Result<(), SettingError> {
        check_url(&settings.url).map_err(|reason| SettingError::new("url", reason))?;
        settings.token.as_ref().map_or(Ok(()), |token| token.check("token"))
    }

    fn new(targets: Vec<Declared<Settings>>, context: Context) -> Self {
        Self { targets, http: context.http(), secrets: context.secrets }
    }
}

impl ProcessTool {
    fn target(&self, call: &ToolCall) -> Result<&Declared<Settings>, ToolError> {
        let declared = self.targets.iter().find(|target| target.name() == call.target);
        declared.ok_or_else(|| ToolError::Invalid(format!("target {:?} is not declared", call.target)))
    }

    fn read(&self, target: &Declared<Settings>) -> Result<State, ToolError> {
        let response = self.send(target, HttpRequest::new("GET", service_url(target), READ_TIMEOUT))?;
        if response.status != 200 {
            return Err(ToolError::Invalid(format!(
                "the supervisor responds with {} for {:?}",
                response.status,
                target.name()
            )));
        }
        serde_json::from_slice(&response.body).map_err(|error| ToolError::Unavailable(error.to_string()))
    }

    fn send(&self, target: &Declared<Settings>, mut request: HttpRequest) -> Result<HttpResponse, ToolError> {
        if let Some(token) = &target.settings.token {
            let token = self.secrets.resolve(token)?;
            request = request.header("Authorization", format!("Bearer {}", token.as_str()));
        }
        self.http.send(request)
    }
}

fn service_url(target: &Declared<Settings>) -> String {
    format!("{}/services/{}", target.settings.url.trim_end_matches('/'), target.name())
}

impl Tool for ProcessTool {
    fn spec(&self) -> ToolSpec {
        ToolSpec::new("process", "a service of a supervisor", operations())
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
                (format!("{} {} is restarted", target.name(), state.version), None, fingerprint(&state, None))
            }
            "rollback" => {
                parse_arguments::<NoArguments>(&call.arguments)?;
                let Some(previous) = &state.previous_version else {
                    return Err(ToolError::Invalid(format!(
                        "{:?} has no previous version to go back to",
                        target.name()
                    )));
                };
                let undo = ToolCall { arguments: Map::new(), ..call.clone() };
                let diff = format!("{} goes from version {} to {previous}", target.name(), state.version);
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
                        target.name(),
                        arguments.key,
                        display_text(&arguments.value)
                    ),
                    Some(undo),
                    precondition,
                )
            }
            other => return Err(unknown_operation(other)),
        };
        let operation = operations().into_iter().find(|operation| operation.name == call.operation);
        let risk = operation.map_or(Risk::High, |operation| operation.risk);
        Ok(DryRun {
            diff,
            blast_radius: format!("{} and its callers, for the seconds of the change", target.name()),
            affected: Some(1),
            risk: risk.as_str().to_owned(),
            reversible: undo.is_some(),
            precondition,
            undo,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let target = self.target(call)?;
        let body = match call.operation.as_str() {
            "restart" | "rollback" => json!({}),
            "settings" => {
                let arguments: SettingArguments = parse_arguments(&call.arguments)?;
                json!({ "key": arguments.key, "value": parse_number(&arguments.value) })
            }
            other => return Err(unknown_operation(other)),
        };
        let state = self.read(target)?;
        if state.last_key.as_deref() == Some(run.key) {
            return Ok(Applied::new(Outcome::Applied, "it was applied before"));
        }
        let found = fingerprint(&state, changed_part(&state, call)?);
        if found != run.precondition {
            return Err(ToolError::Stale(format!("the service is at {found}, the plan expects {}", run.precondition)));
        }
        let url = format!("{}/{}", service_url(target), call.operation);
        let request = HttpRequest::new("POST", url, run.timeout)
            .header("Idempotency-Key", run.key)
            .header("If-Match", version_of(run.precondition));
        let response = self.send(target, request.json(&body))?;
        let text = response.text();
        match response.status {
            200..=299 => {
                // A success response is not trusted: probe for the effect.
                let outcome = self.probe(call, run.precondition, run.key)?;
                let detail = match outcome {
                    Outcome::Applied => format!("{} of {} done", call.operation, call.target),
                    Outcome::NotApplied => {
                        "the supervisor reported success, but the change did not take effect".to_owned()
                    }
                    Outcome::Unknown => {
                        "the supervisor reported success, but shows a change by another operation".to_owned()
                    }
                };
                Ok(Applied::new(outcome, detail))
            }
            412 => Err(ToolError::Stale(text)),
            400..=499 => Ok(Applied::new(Outcome::NotApplied, text)),
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
        let part = changed_part(&state, call)?;
        Ok(fingerprint(&state, part))
    }
}

fn operations() -> Vec<Operation> {
    vec![
        operation::<NoArguments>("restart", "restart the service", Risk::Low, false),
        operation::<NoArguments>("rollback", "roll back to the previous version", Risk::Medium, true),
        operation::<SettingArguments>("settings", "change one setting", Risk::Medium, true),
    ]
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

/// The part of the state that an operation changes.
fn changed_part(state: &State, call: &ToolCall) -> Result<Option<String>, ToolError> {
    Ok(match call.operation.as_str() {
        "rollback" => Some(previous_part(state)),
        "settings" => Some(setting_part(state, &parse_arguments::<SettingArguments>(&call.arguments)?.key)),
        _ => None,
    })
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
