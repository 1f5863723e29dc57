//! The OpenAPI 3.1 document. Operations with typed bodies are documented beside their handlers (`#[utoipa::path]`);
//! the others are listed in [`OPERATIONS`].

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::body::Bytes;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use wardroom_edge::Routes;

use crate::problem_responses::ProblemDocument;
use crate::query_parameters::known_parameters;
use crate::{autonomy, incidents, safeguards};

/// The operations with typed bodies.
#[derive(OpenApi)]
#[openapi(
    paths(
        incidents::list,
        incidents::show,
        incidents::approve,
        incidents::reject,
        incidents::verdict,
        incidents::close,
        incidents::postmortem,
        safeguards::stop_state,
        safeguards::stop_all,
        safeguards::resume,
        safeguards::review,
        autonomy::list,
        autonomy::set
    ),
    components(schemas(ProblemDocument))
)]
struct TypedOperations;

/// Returns the text of the document. It is made once: the route needs no credential, and making it takes as long as
/// many requests do.
pub(crate) fn document_text() -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());
    TEXT.clone()
}

/// Returns the OpenAPI document of this build.
pub fn document() -> Value {
    let mut document =
        serde_json::to_value(TypedOperations::openapi()).expect("an OpenAPI document serialises to JSON");
    document["info"] =
        json!({ "title": "Wardroom", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0" } });
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer" },
        "basic": { "type": "http", "scheme": "basic", "description": "any user name, the token as password" },
    });
    if let Some(paths) = document["paths"].as_object_mut() {
        for operation in OPERATIONS {
            let path = paths.entry(operation.path).or_insert_with(|| json!({}));
            path[operation.method.to_lowercase()] = operation.to_json();
        }
        for operation in paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
            operation["security"] =
                if operation["x-access"] == "public" { json!([]) } else { json!([{ "bearer": [] }, { "basic": [] }]) };
        }
    }
    document
}

/// Compares the document with mounted routes, both ways. Returns one line per operation that is missing on one side or
/// has another access rule.
pub fn document_mismatches(routes: &Routes) -> Vec<String> {
    let document = document();
    let mut documented = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let access = operation["x-access"].as_str().unwrap_or_default().to_owned();
            documented.insert((method.to_uppercase(), path.clone()), access);
        }
    }
    let mut mismatches = Vec::new();
    for route in routes.list() {
        let (method, path, access) = (route.method, route.path, route.access.as_str());
        match documented.remove(&(method.to_owned(), path.to_owned())) {
            Some(documented) if documented == access => {}
            Some(documented) => {
                mismatches.push(format!("{method} {path}: access is {access}, documented as {documented}"));
            }
            None => mismatches.push(format!("{method} {path}: mounted but not documented")),
        }
    }
    let unmounted = documented.into_keys();
    mismatches.extend(unmounted.map(|(method, path)| format!("{method} {path}: documented but not mounted")));
    mismatches
}

/// An operation without typed bodies.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    access: &'static str,
}

impl Operation {
    fn to_json(&self) -> Value {
        let in_path = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path =
            in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
        let in_query = known_parameters(self.path).iter();
        let in_query = in_query.map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }));
        let parameters: Vec<Value> = in_path.chain(in_query).collect();
        let responses = json!({
            "2XX": { "description": "as described in docs/api.md" },
            "4XX": { "description": "RFC 9457 problem document", "content": { "application/problem+json": {
                "schema": { "$ref": "#/components/schemas/Problem" } } } },
            "503": { "description": "unavailable; retry after `Retry-After` seconds" },
        });
        json!({ "summary": self.summary, "parameters": parameters, "responses": responses, "x-access": self.access })
    }
}

const fn operation(method: &'static str, path: &'static str, summary: &'static str, access: &'static str) -> Operation {
    Operation { method, path, summary, access }
}

/// The operations whose bodies are not typed yet.
const OPERATIONS: &[Operation] = &[
    operation("POST", "/api/v1/write", "Prometheus remote_write 1.0 and 2.0", "send"),
    operation("POST", "/v1/metrics", "OTLP metrics, protobuf or JSON", "send"),
    operation("POST", "/v1/logs", "OTLP logs, protobuf or JSON", "send"),
    operation("POST", "/v1/traces", "OTLP traces, protobuf or JSON", "send"),
    operation(
        "POST",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        "OTLP metrics over gRPC",
        "send",
    ),
    operation("POST", "/opentelemetry.proto.collector.logs.v1.LogsService/Export", "OTLP logs over gRPC", "send"),
    operation("POST", "/opentelemetry.proto.collector.trace.v1.TraceService/Export", "OTLP traces over gRPC", "send"),
    operation("POST", "/ingest/metrics", "Metrics as JSON: one object or an array", "send"),
    operation("POST", "/ingest/logs", "Logs as JSON: one object or an array", "send"),
    operation("POST", "/ingest/deployment", "Deployments as JSON: one object or an array", "send"),
    operation("GET", "/api/v1/anomalies", "Anomalies, oldest first", "read"),
    operation("GET", "/api/v1/dead-letters", "Dead letters of detection, oldest first", "read"),
    operation("GET", "/api/v1/dead-letters/{id}", "One dead letter", "read"),
    operation("POST", "/api/v1/dead-letters/{id}/replay", "Replay a dead letter, at most once", "respond"),
    operation(
        "POST",
        "/api/v1/quarantine/{offset}/redrive",
        "Validate the quarantined records of a request again, with the current limits",
        "respond",
    ),
    operation("GET", "/api/v1/deployments", "Recent deployments, oldest first", "read"),
    operation("GET", "/api/v1/samples", "Raw samples of the whole retention", "read"),
    operation("GET", "/api/v1/series", "Live series, in the response format of Prometheus", "read"),
    operation("POST", "/api/v1/series", "Live series, in the response format of Prometheus; form parameters", "read"),
    operation("GET", "/api/v1/labels", "Label names, in the response format of Prometheus", "read"),
    operation("POST", "/api/v1/labels", "Label names, in the response format of Prometheus; form parameters", "read"),
    operation("GET", "/api/v1/label/{name}/values", "Label values, in the response format of Prometheus", "read"),
    operation("GET", "/api/v1/query_exemplars", "Exemplars, in the response format of Prometheus", "read"),
    operation(
        "POST",
        "/api/v1/query_exemplars",
        "Exemplars, in the response format of Prometheus; form parameters",
        "read",
    ),
    operation("GET", "/api/v1/metadata", "Metric metadata, in the response format of Prometheus", "read"),
    operation(
        "POST",
        "/api/v1/sql",
        "Run a SQL query over the tables, sent as text or JSON; returns JSON, CSV, Arrow or text",
        "read",
    ),
    operation("GET", "/api/v1/lake", "Usage of each table: files, rows, bytes, and rows past retention", "read"),
    operation("GET", "/api/v1/ask", "The named queries, with their SQL", "read"),
    operation("GET", "/api/v1/ask/{name}", "Run a named query", "read"),
    operation("GET", "/api/v1/logs", "Search log lines, newest first", "read"),
    operation("GET", "/api/v1/traces/{id}", "The spans of a trace, by start time", "read"),
    operation("GET", "/", "HTML page: the incidents", "read"),
    operation("GET", "/incidents/{id}", "HTML page: one incident", "read"),
    operation("POST", "/incidents/{id}/approve", "Form of the HTML page: approve the plan", "respond"),
    operation("POST", "/incidents/{id}/reject", "Form of the HTML page: reject the plan", "respond"),
    operation("POST", "/incidents/{id}/close", "Form of the HTML page: close the incident", "respond"),
    operation("GET", "/health", "Liveness", "public"),
    operation("GET", "/healthz", "Liveness", "public"),
    operation("GET", "/readyz", "Readiness, and what is degraded", "public"),
    operation("GET", "/metrics", "Metrics in the Prometheus text format", "public"),
    operation("GET", "/openapi.json", "This document", "public"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wardroom_domain::{Cause, Entity, Timestamp};
    use wardroom_edge::Access;

    use super::*;
    use crate::views::{
        ApprovalView, ChartView, DecisionView, EntityView, EvidenceView, HypothesisView, IncidentDetail, IncidentPage,
        IncidentSummary, PlanView, PolicyView, TimelineView, VerdictView,
    };

    /// Regression: a few hundred requests without a credential delayed acknowledgements for seconds.
    #[test]
    fn the_document_is_made_once() {
        let (first, second) = (document_text(), document_text());
        assert_eq!((first.as_ptr(), first.len()), (second.as_ptr(), second.len()));
        assert_eq!(serde_json::from_slice::<Value>(&first).unwrap(), document());
    }

    /// The document as clients see it. A change of the snapshot is a change of the public interface.
    #[test]
    fn document_matches_the_snapshot() {
        insta::assert_json_snapshot!("openapi", document());
    }

    /// The list of the parameters of a route is the document's, and the document's is what the types of the handlers
    /// say.
    #[test]
    fn typed_operations_document_their_query_parameters() {
        for (path, operations) in document()["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let documented: Vec<&str> = parameters
                    .filter(|parameter| parameter["in"] == "query")
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                assert_eq!(documented, known_parameters(path), "{method} {path}");
            }
        }
    }

    #[test]
    fn every_reference_resolves() {
        fn collect<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
            if let Some(reference) = value["$ref"].as_str() {
                references.push(reference);
            }
            value.as_object().into_iter().flat_map(Map::values).for_each(|value| collect(value, references));
            value.as_array().into_iter().flatten().for_each(|value| collect(value, references));
        }
        let document = document();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} does not resolve");
        }
    }

    #[test]
    fn serialised_responses_have_the_properties_of_their_schemas() {
        let document = document();
        let check = |name: &str, response: Value| {
            let (mut properties, mut required) = (BTreeSet::new(), BTreeSet::new());
            collect_properties(&document, &document["components"]["schemas"][name], &mut properties, &mut required);
            let fields: BTreeSet<_> = response.as_object().unwrap().keys().cloned().collect();
            assert_eq!(fields, properties, "{name}");
            assert!(required.is_subset(&fields), "{name}: {required:?}");
        };
        let detail = incident();
        check("IncidentSummary", json!(detail.summary));
        check("TimelineView", json!(detail.timeline[0]));
        check("EntityView", json!(detail.summary.entities[0]));
        check("HypothesisView", json!(detail.hypotheses[0]));
        check("EvidenceView", json!(detail.evidence[0]));
        check("PlanView", json!(detail.plan));
        check("PolicyView", json!(detail.policy));
        check("VerdictView", json!(detail.verdict));
        check("ApprovalView", json!(detail.approval));
        check("ChartView", json!(detail.charts[0]));
        check("IncidentPage", json!(IncidentPage { incidents: vec![detail.summary.clone()], next: None }));
        check("IncidentDetail", json!(detail));
        let verdict = Some("real".to_owned());
        let decision = DecisionView { incident_id: text(), state: text(), execution_id: None, verdict };
        check("DecisionView", json!(decision));
    }

    /// Collects property names and required names of a schema, following `$ref` and `allOf`.
    fn collect_properties(
        document: &Value,
        schema: &Value,
        properties: &mut BTreeSet<String>,
        required: &mut BTreeSet<String>,
    ) {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
            return collect_properties(document, target, properties, required);
        }
        properties.extend(schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned());
        let names = schema["required"].as_array().into_iter().flatten();
        required.extend(names.map(|name| name.as_str().unwrap().to_owned()));
        for part in schema["allOf"].as_array().into_iter().flatten() {
            collect_properties(document, part, properties, required);
        }
    }

    fn text() -> String {
        "text".to_owned()
    }

    /// An incident in which no list is empty and no optional part of its own type is missing.
    fn incident() -> IncidentDetail {
        let at = Timestamp::from_millis(0);
        IncidentDetail {
            summary: IncidentSummary {
                id: "INC-1".to_owned(),
                state: text(),
                severity: text(),
                title: text(),
                services: vec![text()],
                entities: vec![EntityView::from(&Entity::service("text"))],
                began_at: at,
                opened_at: at,
                updated_at: at,
                number: 1,
            },
            trigger: text(),
            timeline: vec![TimelineView { at, kind: text(), state: None, text: text() }],
            hypotheses: vec![HypothesisView::from(&Cause::new(Entity::service("text"), "unknown", 1.0))],
            evidence: vec![EvidenceView {
                id: text(),
                service: text(),
                entity: EntityView::from(&Entity::service("text")),
                at,
                summary: text(),
            }],
            analysis: None,
            plan: Some(PlanView {
                plan_sha256: text(),
                document: json!({}),
                tool: text(),
                operation: text(),
                target: text(),
                arguments: json!({}),
                diff: text(),
                blast_radius: text(),
                risk: text(),
                reversible: true,
                runbook: text(),
                control: text(),
                expires_at: at,
            }),
            policy: Some(PolicyView {
                answer: text(),
                rules: vec![text()],
                reason: text(),
                policy_sha256: text(),
                partial_approvals: Vec::new(),
            }),
            plan_sha256: None,
            approved_by: None,
            approval: Some(ApprovalView { by: text(), at, channel: text(), reason: text(), proof: None }),
            execution: None,
            idempotency_key: None,
            undo: None,
            outcome: None,
            verdict: Some(VerdictView { verdict: text(), cause: None }),
            charts: vec![ChartView {
                title: text(),
                unit: text(),
                points: vec![(0.0, 1.0)],
                bad_above: None,
                low_is_bad: false,
            }],
        }
    }

    #[test]
    fn mismatches_name_missing_operations_and_other_access() {
        let routes =
            Routes::new().get("/health", Access::Read, || async {}).get("/not-documented", Access::Public, || async {});
        let mismatches = document_mismatches(&routes);
        for expected in [
            "GET /health: access is read, documented as public",
            "GET /not-documented: mounted but not documented",
            "POST /api/v1/incidents/{id}/approve: documented but not mounted",
        ] {
            assert!(mismatches.iter().any(|line| line == expected), "{expected} is not in {mismatches:#?}");
        }
    }
}
