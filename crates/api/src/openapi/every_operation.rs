//! What holds for many operations: credentials, the errors of the guard, and the headers of requests and responses.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Headers of every response, each with the name of its description.
const RESPONSE_HEADERS: [(&str, &str); 2] = [("X-Request-Id", "RequestId"), ("wardroom-warning", "Warning")];

/// Completes every operation of the document.
pub(super) fn complete(document: &mut Value) {
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer" },
        "basic": { "type": "http", "scheme": "basic", "description": "Any user name, the token as password" },
    });
    let header = |kind: &str, text: &str| json!({ "description": text, "schema": { "type": kind } });
    document["components"]["headers"] = json!({
        "RequestId": header("string", "The request's `X-Request-Id`, or a new one; the server's log has it"),
        "Warning": header("string", "What was asked for and ignored; may repeat"),
        "RetryAfter": header("integer", "Seconds until the next attempt"),
        "ETag": header("string", "Revision of the incident, for `If-Match`"),
    });
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            let Some(operation) = operation.as_object_mut() else { continue };
            describe_form(method, operation);
            describe_bytes(operation);
            unique_id(operation, &mut ids);
            add_request_headers(method, path, operation);
            add_errors(path, operation);
            add_login(method, path, operation);
            add_response_headers(operation);
            if (method.as_str(), path.as_str()) == ("get", "/api/v1/incidents/{id}") {
                operation["responses"]["200"]["headers"]["ETag"] = json!({ "$ref": "#/components/headers/ETag" });
            }
            let is_public = access(operation) == "public";
            operation.insert(
                "security".to_owned(),
                if is_public { json!([]) } else { json!([{ "bearer": [] }, { "basic": [] }]) },
            );
        }
    }
}

fn access(operation: &Map<String, Value>) -> String {
    operation.get("x-access").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A `POST` that takes the parameters of its query as a form, too, as Prometheus' clients send them.
fn describe_form(method: &str, operation: &mut Map<String, Value>) {
    let is_form = operation.remove("x-form").is_some();
    if method != "post" || !is_form {
        return;
    }
    let parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    let in_query = parameters.filter(|parameter| parameter["in"] == "query");
    let properties: Map<String, Value> = in_query
        .filter_map(|parameter| Some((parameter["name"].as_str()?.to_owned(), parameter["schema"].clone())))
        .collect();
    let schema = json!({ "type": "object", "properties": properties });
    operation.insert(
        "requestBody".to_owned(),
        json!({
            "description": "The parameters as a form, after those of the query",
            "content": { "application/x-www-form-urlencoded": { "schema": schema } },
        }),
    );
}

/// A body that is neither JSON nor text is bytes.
fn describe_bytes(operation: &mut Map<String, Value>) {
    let mut bodies: Vec<&mut Value> = Vec::new();
    for (name, value) in operation.iter_mut() {
        match name.as_str() {
            "requestBody" => bodies.push(value),
            "responses" => {
                bodies.extend(value.as_object_mut().into_iter().flatten().map(|(_, response)| response));
            }
            _ => {}
        }
    }
    for (kind, content) in bodies.into_iter().filter_map(|body| body.get_mut("content")?.as_object_mut()).flatten() {
        if !["json", "text/", "form-urlencoded"].iter().any(|part| kind.contains(part)) {
            content["schema"] = json!({ "type": "string", "format": "binary" });
        }
    }
}

/// Two methods of one handler have the same id at first.
fn unique_id(operation: &mut Map<String, Value>, ids: &mut BTreeSet<String>) {
    let Some(id) = operation.get("operationId").and_then(Value::as_str).map(str::to_owned) else { return };
    if ids.insert(id.clone()) {
        return;
    }
    let other = format!("{id}ByForm");
    operation.insert("operationId".to_owned(), json!(other));
    ids.insert(other);
}

fn add_request_headers(method: &str, path: &str, operation: &mut Map<String, Value>) {
    let is_write = method == "post" && ["respond", "admin"].contains(&access(operation).as_str());
    if !is_write || !path.starts_with("/api/") {
        return;
    }
    let mut headers = vec![json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "1 to 128 visible characters. A repetition of the request with the same key is answered like \
                        the first and changes nothing; keys are kept for a day",
        "schema": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$" },
    })];
    if path.starts_with("/api/v1/incidents/{id}/") {
        headers.push(json!({
            "name": "If-Match", "in": "header", "required": false,
            "description": "`ETag` of the incident as read: if it has changed since, nothing is done (412)",
            "schema": { "type": "string" },
        }));
        add_error(operation, "412", "`changed_since`: the incident is not the one of `If-Match`");
    }
    add_error(operation, "409", "`wrong_state`; `key_in_use` or `key_of_other_request` of an `Idempotency-Key`");
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.extend(headers);
    }
}

fn add_errors(path: &str, operation: &mut Map<String, Value>) {
    let has_body = operation.contains_key("requestBody");
    let has_parameters = operation.get("parameters").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let access = access(operation);
    add_error(operation, "403", "The caller's role does not allow it; `wrong_origin`, `host_not_allowed`");
    if has_body || has_parameters {
        add_error(operation, "400", "A parameter or the body is not valid; `detail` names the field and the remedy");
    }
    if has_body {
        add_error(operation, "413", "`body_too_large`");
    }
    add_error(operation, "429", "More requests than this client may send; retry after `Retry-After` seconds");
    if access == "public" {
        return;
    }
    add_error(operation, "401", "No credential, or an unknown, expired or revoked one");
    add_error(operation, "503", "A dependency is unavailable or overloaded; retry after `Retry-After` seconds");
    if path.starts_with("/api/v1/incidents/{id}") || path.starts_with("/incidents/{id}") {
        add_error(operation, "404", "`no_such_incident`");
    }
}

/// A browser that asks for a page without a credential is sent to the login, which returns to the page.
fn add_login(method: &str, path: &str, operation: &mut Map<String, Value>) {
    if method != "get" || path.starts_with("/api/") || access(operation) == "public" {
        return;
    }
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    if let Some(responses) = responses.as_object_mut() {
        responses.entry("303").or_insert_with(|| json!({ "description": "To the login, without a credential" }));
    }
}

/// Adds the response of an error, unless the operation describes it itself.
fn add_error(operation: &mut Map<String, Value>, status: &str, description: &str) {
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else { return };
    let response = responses.entry(status).or_insert_with(|| json!({ "description": description }));
    response["content"]["application/problem+json"] = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
}

fn add_response_headers(operation: &mut Map<String, Value>) {
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
    for (status, response) in responses.into_iter().flatten() {
        for (name, described) in RESPONSE_HEADERS {
            response["headers"][name] = json!({ "$ref": format!("#/components/headers/{described}") });
        }
        if ["429", "503"].contains(&status.as_str()) {
            response["headers"]["Retry-After"] = json!({ "$ref": "#/components/headers/RetryAfter" });
        }
    }
}
