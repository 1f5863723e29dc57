//! Fields of a target of `http`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wardroom_respond::Risk;

use crate::http_client::check_url;
use crate::template::{Argument, check_arguments, check_template, default_risk, names};
use crate::{Secret, SettingError};

/// Fields of a target of `http`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Base URL; the paths of the requests are appended to it.
    pub url: String,
    /// What the calls act on and who is affected, in one line: it is shown with every plan.
    pub blast_radius: String,
    /// Headers of every request, such as `Authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Header with the idempotency key of a call that changes something. Default `Idempotency-Key`.
    #[serde(default = "default_idempotency_header")]
    pub idempotency_header: String,
    /// The calls.
    pub calls: Vec<Call>,
}

fn default_idempotency_header() -> String {
    "Idempotency-Key".to_owned()
}

/// A declared call.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Call {
    /// Name of the operation.
    pub name: String,
    /// Description, one line.
    pub summary: String,
    /// What a mistake can cost: `low`, `medium` or `high`. Default `high`.
    #[serde(default = "default_risk")]
    pub risk: Risk,
    /// Whether it changes nothing. Then `state`, `probe`, `if-match` and `undo` are left out.
    #[serde(default)]
    pub read_only: bool,
    /// Arguments, by name.
    #[serde(default)]
    pub arguments: BTreeMap<String, Argument>,
    /// The request.
    pub request: Request,
    /// JSON pointer to the value of the state that is sent as `If-Match`, such as `/version`.
    #[serde(default)]
    pub if_match: Option<String>,
    /// Reads what the call changes, as it is now: a change between dry run and execution makes the plan stale.
    #[serde(default)]
    pub state: Option<State>,
    /// Says whether the action of a key took effect.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// The call that undoes it.
    #[serde(default)]
    pub undo: Option<Undo>,
}

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Method {
    /// Reads.
    Get,
    /// Creates or acts.
    Post,
    /// Replaces.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A request.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Request {
    /// Method.
    pub method: Method,
    /// Path below the base URL, such as `/caches/{name}/flush`; an argument is encoded and stays one segment.
    pub path: String,
    /// Query parameters.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// JSON body. A text that is nothing but `{name}` becomes the argument itself, with its type.
    #[serde(default)]
    pub body: Option<Value>,
    /// Status codes of success. Default: 200 to 299.
    #[serde(default)]
    pub expect: Vec<u16>,
}

impl Request {
    pub(super) fn expects(&self, status: u16) -> bool {
        if self.expect.is_empty() { (200..300).contains(&status) } else { self.expect.contains(&status) }
    }
}

/// The request that reads the state.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct State {
    /// The request; its response is JSON.
    pub request: Request,
    /// JSON pointers to the values that are compared, such as `/settings/{name}`. Values that change by themselves,
    /// such as times and counters, would make every plan stale.
    pub pointers: Vec<String>,
    /// Those of the pointers whose values are shown with the plan. Default: all.
    #[serde(default)]
    pub shown: Option<Vec<String>>,
}

/// The request that finds out whether an action took effect.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Probe {
    /// The request; its response is JSON. `{key}` is the idempotency key.
    pub request: Request,
    /// It took effect if all of these hold.
    pub applied: Vec<Condition>,
    /// It did not if all of these hold; if neither holds it is unknown, and a person decides. Default: it did not take
    /// effect unless `applied` holds.
    #[serde(default)]
    pub not_applied: Vec<Condition>,
    /// Status codes that say that it did not take effect, such as 404 for an operation that the server does not know.
    #[serde(default)]
    pub not_applied_status: Vec<u16>,
}

/// A condition on a JSON response.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Condition {
    /// JSON pointer.
    pub pointer: String,
    /// The value there; `{key}` and `{name}` are replaced.
    pub equals: Value,
}

/// The call that undoes another one.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Undo {
    /// Name of a call of the same target.
    pub call: String,
    /// Its arguments; `{name}` is replaced by an argument of the call, and `state:/pointer` by the value that the state
    /// had before.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

impl Call {
    /// Returns all requests.
    pub(super) fn requests(&self) -> impl Iterator<Item = &Request> {
        let state = self.state.as_ref().map(|state| &state.request);
        let probe = self.probe.as_ref().map(|probe| &probe.request);
        [Some(&self.request), state, probe].into_iter().flatten()
    }
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        check_url(&self.url).map_err(|reason| SettingError::new("url", reason))?;
        self.headers.iter().try_for_each(|(name, value)| value.check(&format!("headers.{name}")))?;
        if self.calls.is_empty() {
            return Err(SettingError::new("calls", "there must be at least one"));
        }
        for (index, call) in self.calls.iter().enumerate() {
            let field = format!("calls[{index}]");
            if self.calls.iter().take(index).any(|other| other.name == call.name) {
                return Err(SettingError::new(format!("{field}.name"), "another call has this name"));
            }
            call.check(&field)?;
            self.check_undo(call, &field)?;
        }
        Ok(())
    }

    fn check_undo(&self, call: &Call, field: &str) -> Result<(), SettingError> {
        let Some(undo) = &call.undo else { return Ok(()) };
        let place = format!("{field}.undo");
        let undoing = self.calls.iter().find(|other| other.name == undo.call && !other.read_only);
        let Some(undoing) = undoing else {
            return Err(SettingError::new(place + ".call", "there is no call of this name that changes something"));
        };
        let given: BTreeSet<&String> = undo.arguments.keys().collect();
        if given != undoing.arguments.keys().collect() {
            return Err(SettingError::new(place + ".arguments", "they must be those of the undoing call"));
        }
        check_body(&Value::Object(undo.arguments.clone()), &call.arguments, false, &format!("{place}.arguments"))
    }
}

impl Call {
    fn check(&self, field: &str) -> Result<(), SettingError> {
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        if !is_name(&self.name) {
            return Err(SettingError::new(format!("{field}.name"), "it has letters, digits, _ and - only"));
        }
        check_arguments(&self.arguments, &format!("{field}.arguments"))?;
        for (name, is_there) in [("state", self.state.is_some()), ("probe", self.probe.is_some())] {
            if is_there == self.read_only {
                let reason = if self.read_only {
                    "a call that is read only has none"
                } else {
                    "a call that changes something needs it: without it there is no telling whether it took effect"
                };
                return Err(SettingError::new(format!("{field}.{name}"), reason));
            }
        }
        if self.read_only && (self.undo.is_some() || self.if_match.is_some() || self.request.method != Method::Get) {
            let reason = "then there is neither undo nor if-match, and the method is GET";
            return Err(SettingError::new(format!("{field}.read-only"), reason));
        }
        self.request.check(&self.arguments, true, &format!("{field}.request"))?;
        if let Some(state) = &self.state {
            let place = format!("{field}.state");
            state.request.check_reading(&self.arguments, false, &format!("{place}.request"))?;
            if state.pointers.is_empty() {
                return Err(SettingError::new(place + ".pointers", "there must be at least one"));
            }
            if state.shown.iter().flatten().any(|shown| !state.pointers.contains(shown)) {
                return Err(SettingError::new(place + ".shown", "each must be one of `pointers`"));
            }
            for pointer in &state.pointers {
                check_pointer(pointer, &self.arguments, false, &format!("{place}.pointers"))?;
            }
        }
        if let Some(probe) = &self.probe {
            let place = format!("{field}.probe");
            probe.request.check_reading(&self.arguments, true, &format!("{place}.request"))?;
            probe.check(&self.arguments, &place)?;
        }
        Ok(())
    }
}

impl Probe {
    fn check(&self, arguments: &BTreeMap<String, Argument>, place: &str) -> Result<(), SettingError> {
        if self.applied.is_empty() {
            return Err(SettingError::new(format!("{place}.applied"), "there must be at least one condition"));
        }
        for condition in self.applied.iter().chain(&self.not_applied) {
            check_pointer(&condition.pointer, arguments, true, &format!("{place}.applied"))?;
            check_body(&condition.equals, arguments, true, &format!("{place}.applied"))?;
        }
        Ok(())
    }
}

impl Request {
    fn check(&self, arguments: &BTreeMap<String, Argument>, with_key: bool, field: &str) -> Result<(), SettingError> {
        let place = format!("{field}.path");
        let is_path = self.path.starts_with('/')
            && !self.path.contains("//")
            && !self.path.contains(['?', '#', '\\', '%'])
            && !self.path.chars().any(|character| character.is_whitespace() || character.is_control());
        if !is_path {
            let reason =
                "it begins with / and has no //, ?, #, %, backslash or white space; use `query` for parameters";
            return Err(SettingError::new(place, reason));
        }
        check_template(&self.path, arguments, with_key, &place)?;
        for value in self.query.values() {
            check_template(value, arguments, with_key, &format!("{field}.query"))?;
        }
        self.body.as_ref().map_or(Ok(()), |body| check_body(body, arguments, with_key, &format!("{field}.body")))
    }

    fn check_reading(
        &self,
        arguments: &BTreeMap<String, Argument>,
        with_key: bool,
        field: &str,
    ) -> Result<(), SettingError> {
        if self.method != Method::Get {
            return Err(SettingError::new(format!("{field}.method"), "what only reads uses GET"));
        }
        self.check(arguments, with_key, field)
    }
}

fn check_pointer(
    pointer: &str,
    arguments: &BTreeMap<String, Argument>,
    with_key: bool,
    field: &str,
) -> Result<(), SettingError> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(SettingError::new(field, "a JSON pointer begins with /"));
    }
    check_template(pointer, arguments, with_key, field)
}

fn check_body(
    body: &Value,
    arguments: &BTreeMap<String, Argument>,
    with_key: bool,
    field: &str,
) -> Result<(), SettingError> {
    match body {
        Value::String(text) => check_template(text, arguments, with_key, field),
        Value::Array(items) => items.iter().try_for_each(|item| check_body(item, arguments, with_key, field)),
        Value::Object(fields) => {
            if fields.keys().any(|name| names(name).is_ok_and(|names| !names.is_empty())) {
                return Err(SettingError::new(field, "names of fields are no templates"));
            }
            fields.values().try_for_each(|value| check_body(value, arguments, with_key, field))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
