//! `http`: calls of an HTTP API that the operator declares, with typed arguments.
//!
//! A call that changes something has, besides its request, a request that reads the present state (compared before the
//! action), and one that says whether the action of a key took effect. Without them it is refused when the file is
//! read. The key is sent in a header. The host never depends on an argument: an argument is one segment of the path,
//! one value of the query, or one value in the JSON body.

mod declared_calls;

use std::time::Duration;

use serde_json::{Map, Value, json};
use url::Url;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{Applied, Operation, Run, Tool, ToolError, ToolSpec};

use crate::http_client::{HttpRequest, HttpResponse};
use crate::template::{Values, declared_operation};
use crate::{Context, Declared, SettingError, ToolKind};
use declared_calls::{Call, Condition, Request, Settings, State};

/// Maximum duration of a request that changes nothing.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest response, in bytes.
const RESPONSE_BYTES: usize = 1 << 20;
/// Digits of the hash of a state in a precondition.
const STATE_DIGITS: usize = 32;
/// Beginning of an argument of an undo that is a value of the state before the action.
const FROM_STATE: &str = "state:";

/// The `http` tool.
#[derive(Debug)]
pub(crate) struct HttpTool {
    targets: Vec<Declared<Settings>>,
    context: Context,
}

impl ToolKind for HttpTool {
    const NAME: &'static str = "http";
    type Settings = Settings;

    fn check_settings(settings: &Settings) -> Result<(), SettingError> {
        settings.check()
    }

    fn declared_operations(settings: &Settings) -> Option<Vec<String>> {
        Some(settings.calls.iter().map(|call| call.name.clone()).collect())
    }

    fn new(targets: Vec<Declared<Settings>>, context: Context) -> Self {
        Self { targets, context }
    }
}

impl HttpTool {
    fn declared(&self, call: &ToolCall) -> Result<(&Settings, &Call), ToolError> {
        let target = self.targets.iter().find(|target| target.name() == call.target);
        let declared = target.and_then(|target| {
            let declared = target.settings.calls.iter().find(|declared| declared.name == call.operation)?;
            Some((&target.settings, declared))
        });
        declared.ok_or_else(|| ToolError::Invalid(format!("{:?} declares no call {:?}", call.target, call.operation)))
    }

    fn send(
        &self,
        settings: &Settings,
        request: &Request,
        values: &Values,
        (headers, timeout): (&[(String, String)], Duration),
    ) -> Result<HttpResponse, ToolError> {
        let mut built = HttpRequest::new(request.method.as_str(), request_url(settings, request, values)?, timeout);
        built.response_bytes = RESPONSE_BYTES;
        if let Some(body) = &request.body {
            built = built.json(&values.fill_json(body)?);
        }
        for (name, value) in &settings.headers {
            built = built.header(name, self.context.secrets.resolve(value)?.as_str());
        }
        for (name, value) in headers {
            built = built.header(name, value);
        }
        self.context.http().send(built)
    }

    /// Sends a request that changes nothing and returns its JSON.
    fn ask(&self, settings: &Settings, request: &Request, values: &Values) -> Result<Value, ToolError> {
        let response = self.send(settings, request, values, (&[], ASK_TIMEOUT))?;
        match response.status {
            status if request.expects(status) => response.json(),
            status @ 400..=499 if status != 429 => {
                Err(ToolError::Invalid(format!("{} {} responds with {status}", request.method.as_str(), request.path)))
            }
            status => Err(ToolError::Unavailable(format!(
                "{} {} responds with {status}",
                request.method.as_str(),
                request.path
            ))),
        }
    }

    /// Reads the state: the response, and the part of it that is compared.
    fn read_state(&self, settings: &Settings, state: &State, values: &Values) -> Result<(Value, Value), ToolError> {
        let body = self.ask(settings, &state.request, values)?;
        let mut parts = Map::new();
        for pointer in &state.pointers {
            let pointer = values.fill(pointer, escape_pointer)?;
            let value = body.pointer(&pointer).cloned().unwrap_or_default();
            parts.insert(pointer, value);
        }
        Ok((body, Value::Object(parts)))
    }

    fn state_of(&self, call: &ToolCall) -> Result<(Value, Value, String), ToolError> {
        let (settings, declared) = self.declared(call)?;
        let state = declared.state.as_ref().ok_or_else(|| ToolError::Invalid("the call only reads".to_owned()))?;
        let (body, parts) = self.read_state(settings, state, &Values::new(&call.arguments, None))?;
        // A hash: the state may hold a credential, and is compared only.
        let digits: String = sha256_hex(parts.to_string().as_bytes()).chars().take(STATE_DIGITS).collect();
        Ok((body, parts, format!("state sha256 {digits}")))
    }

    /// Returns the part of the state that is shown with a plan.
    fn shown_parts(&self, declared: &Call, parts: &Value, values: &Values) -> Result<Value, ToolError> {
        let Some(shown) = declared.state.as_ref().and_then(|state| state.shown.as_ref()) else {
            return Ok(parts.clone());
        };
        let mut found = Map::new();
        for pointer in shown {
            let pointer = values.fill(pointer, escape_pointer)?;
            found.insert(pointer.clone(), parts[&pointer].clone());
        }
        Ok(Value::Object(found))
    }

    fn headers(
        &self,
        settings: &Settings,
        declared: &Call,
        body: &Value,
        key: &str,
    ) -> Result<Vec<(String, String)>, ToolError> {
        let mut headers = vec![(settings.idempotency_header.clone(), key.to_owned())];
        if let Some(pointer) = &declared.if_match {
            let value = body.pointer(pointer).and_then(|value| {
                value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|value| value.to_string()))
            });
            let missing = || ToolError::Unavailable(format!("the state has no text or whole number at {pointer}"));
            headers.push(("If-Match".to_owned(), value.ok_or_else(missing)?));
        }
        Ok(headers)
    }
}

/// Builds the URL of a request. The host is that of the configuration, and what an argument adds to the path stays
/// within its segment.
fn request_url(settings: &Settings, request: &Request, values: &Values) -> Result<String, ToolError> {
    let encode =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
    let path = values.fill(&request.path, encode)?;
    if path.split('/').skip(1).any(|segment| segment.is_empty() || segment == "." || segment == "..") && path != "/" {
        return Err(ToolError::Invalid("an argument makes an empty, `.` or `..` segment of the path".to_owned()));
    }
    let base = settings.url.trim_end_matches('/');
    let mut text = format!("{base}{path}");
    for (index, (name, value)) in request.query.iter().enumerate() {
        let separator = if index == 0 { '?' } else { '&' };
        text += &format!("{separator}{}={}", encode(name), values.fill(value, encode)?);
    }
    let invalid = || ToolError::Invalid("the arguments do not make a valid URL".to_owned());
    let (url, declared) = (Url::parse(&text).map_err(|_| invalid())?, Url::parse(base).map_err(|_| invalid())?);
    if url.origin() != declared.origin() || !url.path().starts_with(declared.path().trim_end_matches('/')) {
        return Err(invalid());
    }
    Ok(text)
}

/// Escapes a value that becomes one token of a JSON pointer.
fn escape_pointer(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

fn holds(conditions: &[Condition], body: &Value, values: &Values) -> Result<bool, ToolError> {
    for condition in conditions {
        let pointer = values.fill(&condition.pointer, escape_pointer)?;
        let expected = values.fill_json(&condition.equals)?;
        if body.pointer(&pointer) != Some(&expected) {
            return Ok(false);
        }
    }
    Ok(!conditions.is_empty())
}

impl Tool for HttpTool {
    fn spec(&self) -> ToolSpec {
        let operations = self.targets.iter().flat_map(|target| self.operations(target.name())).collect();
        ToolSpec::new("http", "calls of an HTTP API that the executor's file declares", operations)
    }

    fn operations(&self, target: &str) -> Vec<Operation> {
        let declared = self.targets.iter().filter(|declared| declared.name() == target);
        let calls = declared.flat_map(|declared| &declared.settings.calls);
        calls
            .map(|call| {
                let flags = (call.risk, call.read_only, call.undo.is_some() || call.read_only);
                declared_operation(&call.name, &call.summary, &call.arguments, flags)
            })
            .collect()
    }

    fn check(&self, call: &ToolCall) -> Result<(), ToolError> {
        let (settings, declared) = self.declared(call)?;
        let values = Values::new(&call.arguments, Some("key"));
        declared.requests().try_for_each(|request| request_url(settings, request, &values).map(drop))
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let (settings, declared) = self.declared(call)?;
        let (body, parts, precondition) = self.state_of(call)?;
        let values = Values::new(&call.arguments, Some("KEY"));
        let shown = self.shown_parts(declared, &parts, &values)?;
        let request = &declared.request;
        let url = request_url(settings, request, &values)?;
        let sent = match &request.body {
            Some(body) => format!(" with {}", values.fill_json(body)?),
            None => String::new(),
        };
        let undo = match &declared.undo {
            Some(undo) => {
                let mut arguments = Map::new();
                for (name, value) in &undo.arguments {
                    let pointer = value.as_str().and_then(|text| text.strip_prefix(FROM_STATE));
                    let value = match pointer {
                        Some(pointer) => {
                            body.pointer(&values.fill(pointer, escape_pointer)?).cloned().unwrap_or_default()
                        }
                        None => values.fill_json(value)?,
                    };
                    arguments.insert(name.clone(), value);
                }
                Some(ToolCall { operation: undo.call.clone(), arguments, ..call.clone() })
            }
            None => None,
        };
        Ok(DryRun {
            diff: format!("{} {url}{sent}; now {shown}", request.method.as_str()),
            blast_radius: settings.blast_radius.clone(),
            affected: None,
            risk: declared.risk.as_str().to_owned(),
            reversible: undo.is_some(),
            precondition,
            undo,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        let (settings, declared) = self.declared(call)?;
        if self.probe(call, run.precondition, run.key)? == Outcome::Applied {
            return Ok(Applied::new(Outcome::Applied, "it was applied before"));
        }
        let (body, _, found) = self.state_of(call)?;
        if found != run.precondition {
            return Err(ToolError::Stale(format!("the target is at {found}, the plan expects {}", run.precondition)));
        }
        let headers = self.headers(settings, declared, &body, run.key)?;
        let values = Values::new(&call.arguments, Some(run.key));
        let response = self.send(settings, &declared.request, &values, (&headers, run.timeout))?;
        let (status, output) = (response.status, response.text());
        if matches!(status, 412 | 428) {
            return Err(ToolError::Stale(format!("the target responds with {status}")));
        }
        // A response is not trusted in either direction: the effect is probed.
        let outcome = self.probe(call, run.precondition, run.key)?;
        let detail = match (outcome, declared.request.expects(status)) {
            (Outcome::Applied, true) => format!("{} done ({status})", call.operation),
            (Outcome::Applied, false) => format!("applied, although the target responds with {status}"),
            (Outcome::NotApplied, true) => {
                format!("the target responds with {status}, but the change did not take effect")
            }
            (_, _) if (300..400).contains(&status) => format!("the target redirects ({status}), which is not followed"),
            (_, _) => format!("the target responds with {status}"),
        };
        Ok(Applied { outcome, detail, output })
    }

    fn probe(&self, call: &ToolCall, _precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let (settings, declared) = self.declared(call)?;
        let probe = declared.probe.as_ref().ok_or_else(|| ToolError::Invalid("the call only reads".to_owned()))?;
        let values = Values::new(&call.arguments, Some(key));
        let response = self.send(settings, &probe.request, &values, (&[], ASK_TIMEOUT))?;
        if probe.not_applied_status.contains(&response.status) {
            return Ok(Outcome::NotApplied);
        }
        if !probe.request.expects(response.status) {
            return Err(ToolError::Unavailable(format!("the probe is answered with {}", response.status)));
        }
        let body = response.json()?;
        if holds(&probe.applied, &body, &values)? {
            return Ok(Outcome::Applied);
        }
        let is_not_applied = probe.not_applied.is_empty() || holds(&probe.not_applied, &body, &values)?;
        Ok(if is_not_applied { Outcome::NotApplied } else { Outcome::Unknown })
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        self.state_of(call).map(|(_, _, state)| state)
    }

    fn read(&self, call: &ToolCall, timeout: Duration) -> Result<Value, ToolError> {
        let (settings, declared) = self.declared(call)?;
        let values = Values::new(&call.arguments, None);
        let response = self.send(settings, &declared.request, &values, (&[], timeout))?;
        let body = serde_json::from_slice(&response.body).unwrap_or_else(|_| Value::String(response.text()));
        Ok(json!({ "status": response.status, "body": body }))
    }
}
