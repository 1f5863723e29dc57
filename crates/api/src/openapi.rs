//! The API's description, OpenAPI 3.1. The server holds it to the mounted routes, both ways, wherever
//! debug assertions are on.

use serde_json::{Value, json};

/// The OpenAPI document of this build.
pub fn document() -> Value {
    let mut paths = serde_json::Map::new();
    for (method, path, summary, access) in OPERATIONS {
        let security = if *access == "public" { json!([]) } else { json!([{ "bearer": [] }, { "basic": [] }]) };
        let responses = json!({
            "2XX": { "description": "as described in docs/api.md" },
            "4XX": { "description": "RFC 9457 problem document", "content": { "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" } } } },
            "503": { "description": "try again; Retry-After says when" },
        });
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let operation = json!({ "summary": summary, "x-access": access, "security": security,
            "parameters": parameters, "responses": responses });
        let entry = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert((*method).to_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Wardroom", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0" } },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "basic": { "type": "http", "scheme": "basic", "description": "any user, the token as password" },
            },
            "schemas": { "Problem": { "type": "object", "required": ["type", "title", "status", "code", "detail"],
                "properties": { "type": { "type": "string" }, "title": { "type": "string" },
                    "status": { "type": "integer" }, "code": { "type": "string" }, "detail": { "type": "string" },
                    "accepted": { "type": "integer" }, "rejected": { "type": "integer" } } } },
        },
    })
}

/// Method, path and access of everything described, sorted.
pub fn described() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut all: Vec<_> = OPERATIONS.iter().map(|(method, path, _, access)| (*method, *path, *access)).collect();
    all.sort_unstable();
    all
}

/// Method, path, what it does, who may.
const OPERATIONS: &[(&str, &str, &str, &str)] = &[
    ("POST", "/api/v1/write", "Prometheus remote_write 1.0 and 2.0", "send"),
    ("POST", "/v1/metrics", "OTLP metrics, protobuf or JSON", "send"),
    ("POST", "/v1/logs", "OTLP logs, protobuf or JSON", "send"),
    ("POST", "/v1/traces", "OTLP traces, protobuf or JSON", "send"),
    ("POST", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", "OTLP metrics over gRPC", "send"),
    ("POST", "/opentelemetry.proto.collector.logs.v1.LogsService/Export", "OTLP logs over gRPC", "send"),
    ("POST", "/opentelemetry.proto.collector.trace.v1.TraceService/Export", "OTLP traces over gRPC", "send"),
    ("POST", "/ingest/metrics", "Metrics as JSON: one object or an array", "send"),
    ("POST", "/ingest/logs", "Logs as JSON: one object or an array", "send"),
    ("POST", "/ingest/deployment", "Deployments as JSON: one object or an array", "send"),
    ("GET", "/api/v1/incidents", "Incidents, newest first", "read"),
    ("GET", "/api/v1/incidents/{id}", "One incident with timeline, hypotheses, evidence and plan", "read"),
    ("POST", "/api/v1/incidents/{id}/approve", "Approve the plan with this hash", "respond"),
    ("POST", "/api/v1/incidents/{id}/reject", "Reject the plan", "respond"),
    ("POST", "/api/v1/incidents/{id}/verdict", "Say whether it was real, noise, or another cause", "respond"),
    ("POST", "/api/v1/incidents/{id}/close", "Close an escalated incident", "respond"),
    ("GET", "/api/v1/incidents/{id}/postmortem", "The postmortem in Markdown", "read"),
    ("GET", "/api/v1/anomalies", "Anomalies, oldest first", "read"),
    ("GET", "/api/v1/dead-letters", "Records that detection could not take", "read"),
    ("GET", "/api/v1/dead-letters/{id}", "One of them", "read"),
    ("POST", "/api/v1/dead-letters/{id}/replay", "Put it back on the bus, once", "respond"),
    (
        "POST",
        "/api/v1/quarantine/{offset}/redrive",
        "Judge the refused records of a request again, by the limits of today",
        "respond",
    ),
    ("GET", "/api/v1/deployments", "Recent deployments, oldest first", "read"),
    ("GET", "/api/v1/samples", "Raw samples of everything that is retained", "read"),
    ("GET", "/api/v1/series", "Live series, as Prometheus answers", "read"),
    ("POST", "/api/v1/series", "Live series, as Prometheus answers; parameters as a form", "read"),
    ("GET", "/api/v1/labels", "Names of labels, as Prometheus answers", "read"),
    ("POST", "/api/v1/labels", "Names of labels, as Prometheus answers; parameters as a form", "read"),
    ("GET", "/api/v1/label/{name}/values", "Values of a label, as Prometheus answers", "read"),
    ("GET", "/api/v1/query_exemplars", "Exemplars, as Prometheus answers", "read"),
    ("POST", "/api/v1/query_exemplars", "Exemplars, as Prometheus answers; parameters as a form", "read"),
    ("GET", "/api/v1/metadata", "What senders say of their metrics, as Prometheus answers", "read"),
    (
        "POST",
        "/api/v1/sql",
        "A query over the tables: SQL as it is or as JSON; answers JSON, CSV, Arrow or text",
        "read",
    ),
    ("GET", "/api/v1/lake", "What the tables hold, and what retention lets go next", "read"),
    ("GET", "/api/v1/ask", "The questions that have a name, with their SQL", "read"),
    ("GET", "/api/v1/ask/{name}", "The answer to one of them", "read"),
    ("GET", "/api/v1/logs", "Log lines that meet a filter, newest first", "read"),
    ("GET", "/api/v1/traces/{id}", "The spans of a trace, in the order in which they began", "read"),
    ("GET", "/", "Incidents as a page", "read"),
    ("GET", "/incidents/{id}", "One incident as a page", "read"),
    ("POST", "/incidents/{id}/approve", "The page's Approve button", "respond"),
    ("GET", "/health", "Whether the process is alive", "public"),
    ("GET", "/healthz", "Whether the process is alive", "public"),
    ("GET", "/readyz", "Whether it can do its work, and what is degraded", "public"),
    ("GET", "/metrics", "Metrics in Prometheus' text format", "public"),
    ("GET", "/openapi.json", "This document", "public"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The document as clients see it; a change here is a change of the interface.
    #[test]
    fn the_document_is_golden() {
        insta::assert_json_snapshot!("openapi", document());
    }
}
