//! The OpenAPI document as a page: one section for each operation, without scripts and without anything from elsewhere.

use std::sync::LazyLock;

use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use crate::openapi::document;
use crate::page::page;

/// Levels of a schema that are shown; deeper ones are named only.
const MAX_DEPTH: u32 = 3;

/// Returns the page.
pub(crate) fn reference_page() -> Response {
    static BODY: LazyLock<Markup> = LazyLock::new(|| render(&document()));
    page("API reference", false, &BODY)
}

/// An operation with its method and path.
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    details: &'a Value,
}

impl<'a> Operation<'a> {
    fn text(&self, name: &str) -> &'a str {
        self.details[name].as_str().unwrap_or_default()
    }

    fn tag(&self) -> &'a str {
        self.details["tags"][0].as_str().unwrap_or_default()
    }
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let mut found = Vec::new();
    for (path, methods) in paths {
        for (method, details) in methods.as_object().into_iter().flatten() {
            found.push(Operation { method, path, details });
        }
    }
    found
}

fn render(document: &Value) -> Markup {
    let operations = operations(document);
    let mut tags: Vec<&str> = Vec::new();
    for tag in operations.iter().map(Operation::tag) {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    html! {
        p { a href="./" { "All incidents" } " · " a href="openapi.json" { "OpenAPI document" } }
        h1 { "API reference" }
        p { (document["info"]["description"].as_str().unwrap_or_default()) }
        @for tag in tags {
            h2 id=(tag) { (tag) }
            @for operation in operations.iter().filter(|operation| operation.tag() == tag) {
                (section(document, operation))
            }
        }
    }
}

fn section(document: &Value, operation: &Operation<'_>) -> Markup {
    let parameters = operation.details["parameters"].as_array().into_iter().flatten();
    let bodies = operation.details["requestBody"]["content"].as_object().into_iter().flatten();
    let responses = operation.details["responses"].as_object().into_iter().flatten();
    let body_description = operation.details["requestBody"]["description"].as_str().unwrap_or_default();
    html! {
        details id=(operation.text("operationId")) {
            summary { code { (operation.method.to_uppercase()) " " (operation.path) } " " (operation.text("summary")) }
            p { (operation.text("description")) " Access: " b { (operation.text("x-access")) } "." }
            table { @for parameter in parameters {
                tr { td { code { (parameter["name"].as_str().unwrap_or_default()) } }
                    td { (parameter["in"].as_str().unwrap_or_default()) ", " (type_name(&parameter["schema"]))
                        @if parameter["required"] == true { ", required" } }
                    td { (parameter["description"].as_str().unwrap_or_default()) } }
            } }
            @for (kind, content) in bodies {
                p { "Body: " code { (kind) } " " (body_description) }
                (schema(document, &content["schema"], 0))
            }
            table { @for (status, response) in responses {
                tr { td { (status) } td { (response["description"].as_str().unwrap_or_default()) }
                    td { @for (kind, content) in response["content"].as_object().into_iter().flatten() {
                        code { (kind) } " "
                        @if !kind.contains("problem") { (schema(document, &content["schema"], 0)) }
                    } } }
            } }
        }
    }
}

/// Resolves a reference within the document.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let pointer = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(schema)
}

/// The fields of an object, or of the objects of a list.
fn schema(document: &Value, of: &Value, depth: u32) -> Markup {
    let resolved = resolve(document, of);
    let resolved = if resolved["items"].is_object() { resolve(document, &resolved["items"]) } else { resolved };
    let parts = ["allOf", "oneOf", "anyOf"].into_iter().filter_map(|name| resolved[name].as_array()).flatten();
    html! {
        @if depth < MAX_DEPTH {
            @for part in parts { (schema(document, part, depth)) }
            @if let Some(properties) = resolved["properties"].as_object() {
                ul { @for (name, property) in properties {
                    li { code { (name) } " " (type_name(property)) ": "
                        (property["description"].as_str().unwrap_or_default())
                        (schema(document, property, depth + 1)) }
                } }
            }
        }
    }
}

/// The type of a value, in a few words.
fn type_name(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    for name in ["oneOf", "anyOf", "allOf"] {
        if let Some(parts) = schema[name].as_array() {
            let names: Vec<String> = parts.iter().map(type_name).collect();
            return names.join(" or ");
        }
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("list of {}", type_name(&schema["items"])),
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_operation_and_nothing_from_elsewhere() {
        let document = document();
        let page = render(&document).into_string();
        for operation in operations(&document) {
            let id = format!("id=\"{}\"", operation.text("operationId"));
            assert_eq!(page.matches(&id).count(), 1, "{id}");
        }
        for foreign in ["<script", "src=", "href=\"http", "javascript:"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
