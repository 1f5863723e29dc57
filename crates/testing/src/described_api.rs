//! A server of an API that its vendor publishes a description of: it accepts what the description allows and nothing
//! else, and answers only what the description allows.
//!
//! The description (operations with paths, parameters, and schemas of bodies and answers) is cut from what the vendor
//! publishes; a test gives the behaviour, a function from a request to an answer. Whatever breaks the description is
//! answered with an error and noted in [`DescribedApi::violations`], whether the client or the behaviour is at fault.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A request that fits the description.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// Identifier of the operation.
    pub operation: String,
    /// Parameters of the path.
    pub path: BTreeMap<String, String>,
    /// Parameters of the query.
    pub query: BTreeMap<String, String>,
    /// Body; null if there is none.
    pub body: Value,
}

impl ApiRequest {
    /// Returns a parameter of the path or the query; empty if it is absent.
    pub fn parameter(&self, name: &str) -> &str {
        self.path.get(name).or_else(|| self.query.get(name)).map_or("", String::as_str)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct ApiAnswer {
    /// Status.
    pub status: u16,
    /// Body; null for none.
    pub body: Value,
    /// Whether the answer is lost on its way: the client sees the status 503 instead.
    pub is_lost: bool,
}

impl ApiAnswer {
    /// Creates an answer.
    pub fn new(status: u16, body: Value) -> Self {
        Self { status, body, is_lost: false }
    }
}

/// A running server.
pub struct DescribedApi {
    /// Base URL.
    pub url: String,
    state: Arc<State>,
    _runtime: tokio::runtime::Runtime,
}

type Behaviour = Box<dyn FnMut(&ApiRequest) -> ApiAnswer + Send>;

struct State {
    operations: Vec<Operation>,
    token: String,
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<ApiRequest>>,
    violations: Mutex<Vec<String>>,
}

/// One operation of a description.
struct Operation {
    id: String,
    method: String,
    path: Vec<String>,
    query: Vec<String>,
    media: String,
    request: Option<jsonschema::Validator>,
    /// Schema of the answer by status; `None` for an answer without a body.
    responses: BTreeMap<String, Option<jsonschema::Validator>>,
}

impl DescribedApi {
    /// Starts a server on a free loopback port. Requests without `Authorization: Bearer {token}` are answered 401,
    /// unless the token is empty.
    ///
    /// # Errors
    /// Returns an error if the description is malformed or no port can be bound.
    pub fn start(
        description: &str,
        token: &str,
        behaviour: impl FnMut(&ApiRequest) -> ApiAnswer + Send + 'static,
    ) -> anyhow::Result<Self> {
        let state = Arc::new(State {
            operations: operations(description)?,
            token: token.to_owned(),
            behaviour: Mutex::new(Box::new(behaviour)),
            requests: Mutex::default(),
            violations: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::clone(&state);
        let handle = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let state = Arc::clone(&shared);
            async move { state.handle(&method, &uri, &headers, &body) }
        };
        runtime.spawn(async move { axum::serve(listener, axum::Router::new().fallback(handle)).await });
        Ok(Self { url, state, _runtime: runtime })
    }

    /// Returns what did not fit the description, so far.
    pub fn violations(&self) -> Vec<String> {
        self.state.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the requests that fitted the description, so far.
    pub fn requests(&self) -> Vec<ApiRequest> {
        self.state.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl State {
    fn handle(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response {
        let authorization =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_authorized = ["Bearer ", "token "]
            .iter()
            .any(|scheme| authorization.strip_prefix(scheme).is_some_and(|token| token == self.token));
        if !self.token.is_empty() && !is_authorized {
            return answer(401, &json!({ "message": "Unauthorized", "status": "401" }));
        }
        let result = self.parse(method, uri, headers, body).and_then(|(operation, request)| {
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            let response = (self.behaviour.lock().unwrap_or_else(PoisonError::into_inner))(&request);
            check_answer(operation, &response)?;
            Ok(response)
        });
        match result {
            Ok(response) if response.is_lost => answer(503, &json!({ "message": "the connection was lost" })),
            Ok(response) => answer(response.status, &response.body),
            Err(violation) => {
                let violation = format!("{method} {uri}: {violation}");
                self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(violation.clone());
                answer(400, &json!({ "message": violation }))
            }
        }
    }

    fn parse(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(&Operation, ApiRequest), String> {
        let found = self.operations.iter().find_map(|operation| {
            let path =
                (operation.method == method.as_str()).then(|| match_path(&operation.path, uri.path())).flatten()?;
            Some((operation, path))
        });
        let (operation, path) = found.ok_or("no such operation is described")?;
        let mut query = BTreeMap::new();
        for (name, value) in parse_query(uri.query().unwrap_or_default()) {
            if !operation.query.contains(&name) {
                return Err(format!("{} has no parameter {name:?}", operation.id));
            }
            query.insert(name, value);
        }
        let body =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(body).map_err(|e| e.to_string())? };
        match &operation.request {
            None if !body.is_null() && body != json!({}) => return Err(format!("{} takes no body", operation.id)),
            None => {}
            Some(_) if body.is_null() => {}
            Some(schema) => {
                let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
                if !media.starts_with(&operation.media) {
                    return Err(format!("{} takes {}, not {media:?}", operation.id, operation.media));
                }
                check_schema(schema, &body, "the body")?;
            }
        }
        Ok((operation, ApiRequest { operation: operation.id.clone(), path, query, body }))
    }
}

fn check_answer(operation: &Operation, response: &ApiAnswer) -> Result<(), String> {
    match operation.responses.get(&response.status.to_string()) {
        None => Err(format!("{} is not described to answer {}", operation.id, response.status)),
        Some(Some(schema)) => check_schema(schema, &response.body, "the answer"),
        Some(None) if response.body.is_null() => Ok(()),
        Some(None) => Err(format!("{} is described to answer {} without a body", operation.id, response.status)),
    }
}

fn check_schema(schema: &jsonschema::Validator, value: &Value, what: &str) -> Result<(), String> {
    let errors: Vec<String> =
        schema.iter_errors(value).take(5).map(|error| format!("{} at {}", error, error.instance_path())).collect();
    if errors.is_empty() { Ok(()) } else { Err(format!("{what}: {}", errors.join("; "))) }
}

/// Reads a description: operations, and the definitions that their schemas refer to.
fn operations(description: &str) -> anyhow::Result<Vec<Operation>> {
    let description: Value = serde_json::from_str(description)?;
    let definitions = &description["definitions"];
    let compile = |schema: &Value| -> anyhow::Result<Option<jsonschema::Validator>> {
        if schema.is_null() {
            return Ok(None);
        }
        let whole = json!({ "allOf": [schema], "definitions": definitions });
        jsonschema::validator_for(&whole).map(Some).map_err(|error| anyhow::anyhow!("schema: {error}"))
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = description["operations"].as_array().context("no operations")?;
    list.iter()
        .map(|operation| {
            let responses = operation["responses"].as_object().context("no responses")?;
            Ok(Operation {
                id: text(&operation["id"]),
                method: text(&operation["method"]),
                path: text(&operation["path"]).split('/').map(str::to_owned).collect(),
                query: operation["query"].as_array().into_iter().flatten().map(text).collect(),
                media: text(&operation["media"]),
                request: compile(&operation["request"])?,
                responses: responses
                    .iter()
                    .map(|(status, schema)| Ok((status.clone(), compile(schema)?)))
                    .collect::<anyhow::Result<_>>()?,
            })
        })
        .collect()
}

/// Matches a path with a template such as `/pods/{name}/eviction`.
fn match_path(template: &[String], path: &str) -> Option<BTreeMap<String, String>> {
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() != template.len() {
        return None;
    }
    let mut parameters = BTreeMap::new();
    for (pattern, part) in template.iter().zip(parts) {
        // A template's part may end in a verb: `{nodePoolsId}:setSize`.
        match pattern.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((name, verb)) => {
                let value = part.strip_suffix(verb).filter(|value| !value.is_empty())?;
                if verb.is_empty() && value.contains(':') && template.iter().any(|part| part.contains(':')) {
                    return None;
                }
                parameters.insert(name.to_owned(), percent_decode(value));
            }
            None if pattern == part => {}
            None => return None,
        }
    }
    Some(parameters)
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (percent_decode(name), percent_decode(&value.replace('+', " "))))
        .collect()
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if body.is_null() {
        return status.into_response();
    }
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
