//! The OpenAPI 3.1 document: what every route takes and answers, made from the types of the handlers.
//!
//! Each operation is described beside its handler (`#[utoipa::path]`): its own parameters, bodies and errors. What
//! holds for many (credentials, the errors of the guard, headers) is added in `every_operation`, so that no handler can
//! forget it. The routes of intake, which another crate has, are described in `ingest`.
//!
//! A route without a description, or a description without a route, fails the first request for the document in builds
//! with debug assertions, and with it a test: [`check_routes`].

mod every_operation;
mod ingest;

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use axum::body::Bytes;
use serde_json::{Value, json};
use utoipa::OpenApi;
use wardroom_edge::{Route, Routes};

use crate::incident_query::IncidentSort;
use crate::metric_ranges::Reduction;
use crate::plans::PlanState;
use crate::problem_responses::ProblemDocument;
use crate::request::TableFormat;
use crate::{
    anomalies, audit_log, autonomy, dead_letters, entities, health, incident_lifecycle, incident_list, incident_notes,
    incidents, login, metric_ranges, named_queries, page, passkeys, plans, prometheus, raw_samples, safeguards,
    sessions, source_health, sql, stream, table_reads, tokens, users,
};

/// Every operation. The order is the order of the reference page.
#[derive(OpenApi)]
#[openapi(
    paths(
        incident_list::list,
        incident_lifecycle::create,
        incidents::show,
        incidents::approve,
        incidents::reject,
        incidents::verdict,
        incidents::close,
        incidents::postmortem,
        incident_notes::acknowledge,
        incident_notes::assign,
        incident_notes::comment,
        incident_notes::merge,
        incident_notes::suppress,
        incident_lifecycle::split,
        incident_lifecycle::reopen,
        incident_notes::history,
        safeguards::review,
        safeguards::stop_state,
        safeguards::stop_all,
        safeguards::resume,
        autonomy::list,
        autonomy::set,
        plans::list_plans,
        plans::policy,
        plans::list_tools,
        plans::list_approvers,
        anomalies::list_anomalies,
        anomalies::list_deployments,
        entities::list_events,
        entities::list_entities,
        entities::topology,
        entities::list_signals,
        stream::stream,
        metric_ranges::read_range,
        raw_samples::list,
        prometheus::series,
        prometheus::label_names,
        prometheus::label_values,
        prometheus::exemplars,
        prometheus::metadata,
        named_queries::search_logs,
        table_reads::log_templates,
        table_reads::log_histogram,
        table_reads::list_traces,
        named_queries::show_trace,
        named_queries::list,
        named_queries::run,
        named_queries::table_usage,
        sql::run_sql,
        dead_letters::list,
        dead_letters::show,
        dead_letters::replay,
        dead_letters::redrive,
        audit_log::list,
        audit_log::show,
        audit_log::export,
        audit_log::verify,
        passkeys::approval_request,
        tokens::whoami,
        tokens::list,
        tokens::create,
        tokens::revoke,
        tokens::tenants,
        tokens::configuration,
        sessions::show,
        sessions::log_out,
        sessions::options,
        sessions::log_in,
        users::list,
        users::create,
        users::change,
        users::end_sessions,
        passkeys::list,
        passkeys::options,
        passkeys::register,
        passkeys::delete,
        source_health::list,
        ingest::remote_write,
        ingest::otlp_metrics,
        ingest::otlp_logs,
        ingest::otlp_traces,
        ingest::grpc_metrics,
        ingest::grpc_logs,
        ingest::grpc_traces,
        ingest::json_metrics,
        ingest::json_logs,
        ingest::json_deployment,
        page::index,
        page::show,
        page::approve,
        page::reject,
        page::close,
        login::login_page,
        login::log_in,
        login::log_out,
        login::begin_login,
        login::finish_login,
        login::begin_approval,
        login::finish_approval,
        passkeys::account,
        passkeys::script,
        health::health,
        health::healthz,
        health::readyz,
        health::metrics,
        health::openapi_document,
        health::reference,
    ),
    components(schemas(ProblemDocument, TableFormat, IncidentSort, PlanState, Reduction))
)]
struct Operations;

/// What is made of the document, once, when it is asked for first: making it takes as long as many requests do. The
/// document itself has tens of thousands of values and is not kept.
struct Made {
    text: Bytes,
    /// Names of the query parameters, by path.
    parameters: BTreeMap<String, Vec<String>>,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let document = document();
    let mounted = MOUNTED.get().map(Vec::as_slice);
    debug_assert!(mounted.is_none_or(|routes| mismatches(&document, routes).is_empty()), "routes and document differ");
    let paths = document["paths"].as_object().into_iter().flatten();
    let parameters = paths.map(|(path, operations)| (path.clone(), query_parameters(operations))).collect();
    Made { text: document.to_string().into(), parameters }
});

/// The routes of the server, which the document is compared with.
static MOUNTED: OnceLock<Vec<Route>> = OnceLock::new();

/// Has the document compared with the routes of the server when it is made, in builds with debug assertions.
pub fn check_routes(routes: &Routes) {
    if cfg!(debug_assertions) {
        // Of several servers in one process, as in tests, the first counts.
        drop(MOUNTED.set(routes.list()));
    }
}

/// Returns the text of the document.
pub(crate) fn document_text() -> Bytes {
    MADE.text.clone()
}

/// Returns the names of a path's query parameters, as documented: others are reported as unknown.
pub(crate) fn known_parameters(path: &str) -> &'static [String] {
    MADE.parameters.get(path).map_or(&[], Vec::as_slice)
}

/// Returns the names of the query parameters of a path's operations.
fn query_parameters(operations: &Value) -> Vec<String> {
    let operations = operations.as_object().into_iter().flatten().map(|(_, operation)| operation);
    let parameters = operations.flat_map(|operation| operation["parameters"].as_array().into_iter().flatten());
    let in_query = parameters.filter(|parameter| parameter["in"] == "query");
    let mut names: Vec<String> = Vec::new();
    for name in in_query.filter_map(|parameter| parameter["name"].as_str()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Returns the OpenAPI document of this build.
pub fn document() -> Value {
    let mut document = serde_json::to_value(Operations::openapi()).expect("an OpenAPI document serialises to JSON");
    document["info"] = json!({
        "title": "Wardroom",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Lists have `next`: pass it as `cursor` for the next page, unchanged; null on the last page. \
            Errors are problem documents (RFC 9457) with a stable `code`. A parameter that a route does not have is \
            named in `warnings` of the response.",
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
    });
    // Relative to where the document is, so that it is right behind a proxy, too.
    document["servers"] = json!([{ "url": "." }]);
    every_operation::complete(&mut document);
    document
}

/// Compares the document with mounted routes, both ways. Returns one line per operation that is missing on one side or
/// has another access rule.
pub fn document_mismatches(routes: &Routes) -> Vec<String> {
    mismatches(&document(), &routes.list())
}

fn mismatches(document: &Value, routes: &[Route]) -> Vec<String> {
    let mut documented = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let access = operation["x-access"].as_str().unwrap_or_default().to_owned();
            documented.insert((method.to_uppercase(), path.clone()), access);
        }
    }
    let mut mismatches = Vec::new();
    for route in routes {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wardroom_domain::{Cause, Entity, Timestamp};
    use wardroom_edge::Access;

    use super::*;
    use crate::views::{
        ApprovalView, ChartView, CommentView, DecisionView, EntityView, EvidenceView, HypothesisView, IncidentDetail,
        IncidentPage, IncidentSummary, PlanStepView, PlanView, PolicyView, TimelineView, VerdictView,
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

    /// Which role may use which route. A change of the snapshot changes who may do what; `access.rs` of the end-to-end
    /// tests asks a server.
    #[test]
    fn the_authorisation_matrix_matches_the_snapshot() {
        use wardroom_domain::AccessRole;
        let levels = [Access::Public, Access::Send, Access::Read, Access::Respond, Access::Admin];
        let mut lines = Vec::new();
        let document = document();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let access = operation["x-access"].as_str().unwrap();
                let level = levels.into_iter().find(|level| level.as_str() == access).unwrap();
                let roles = AccessRole::ALL.into_iter().filter(|role| level.allows(*role)).map(AccessRole::as_str);
                let roles =
                    if level == Access::Public { "all".to_owned() } else { roles.collect::<Vec<_>>().join(" ") };
                lines.push(format!("{:<5} {path:<60} {roles}", method.to_uppercase()));
            }
        }
        insta::assert_snapshot!("authorisation", lines.join("\n"));
    }

    /// What a reader of the document needs of every operation, and a generator of clients requires.
    #[test]
    fn every_operation_is_described_in_full() {
        let document = document();
        let mut ids = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let name = format!("{method} {path}");
                assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{name}: no summary");
                let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
                assert!(!id.is_empty() && ids.insert(id), "{name}: no operationId, or one that another has");
                assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{name}: not one tag");
                let in_path: Vec<&str> =
                    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
                let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
                let documented =
                    parameters.iter().filter(|it| it["in"] == "path").map(|it| it["name"].as_str().unwrap());
                assert_eq!(documented.collect::<Vec<_>>(), in_path, "{name}: parameters of the path");
                for parameter in parameters {
                    assert!(parameter["schema"].is_object(), "{name}: {parameter} has no type");
                    assert!(parameter["description"].is_string(), "{name}: {parameter} has no description");
                }
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.keys().any(|status| status.starts_with(['2', '3'])), "{name}: no success");
                for (status, response) in responses {
                    assert!(response["description"].is_string(), "{name} {status}: no description");
                    let is_problem = response["content"].get("application/problem+json").is_some();
                    let is_error = status.starts_with(['4', '5']);
                    // What is not ready is in the document of readiness, and a refused login on its page.
                    assert!(
                        is_problem || !is_error || ["/readyz", "/login"].contains(&path.as_str()),
                        "{name} {status}: errors are problem documents"
                    );
                }
                if operation["x-access"] != "public" {
                    for status in ["401", "403", "503"] {
                        assert!(responses.contains_key(status), "{name}: {status} is missing");
                    }
                }
            }
        }
        assert!(ids.len() > 40, "{ids:?}");
    }

    #[test]
    fn every_reference_resolves() {
        fn collect<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
            if let Some(reference) = value["$ref"].as_str() {
                references.push(reference);
            }
            value
                .as_object()
                .into_iter()
                .flat_map(serde_json::Map::values)
                .for_each(|value| collect(value, references));
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
        check("PlanStepView", json!(detail.plan.as_ref().unwrap().steps[0]));
        check("PolicyView", json!(detail.policy));
        check("VerdictView", json!(detail.verdict));
        check("ApprovalView", json!(detail.approval));
        check("ChartView", json!(detail.charts[0]));
        check("CommentView", json!(detail.comments[0]));
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
        properties.extend(schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys).cloned());
        let names = schema["required"].as_array().into_iter().flatten();
        required.extend(names.map(|name| name.as_str().unwrap().to_owned()));
        for part in schema["allOf"].as_array().into_iter().flatten() {
            collect_properties(document, part, properties, required);
        }
    }

    fn text() -> String {
        "text".to_owned()
    }

    /// A plan of several steps.
    fn plan(at: Timestamp) -> PlanView {
        PlanView {
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
            steps: vec![PlanStepView {
                number: 1,
                tool: text(),
                operation: text(),
                target: text(),
                arguments: json!({}),
                diff: text(),
                blast_radius: text(),
                risk: text(),
                reversible: true,
                outcome: Some(text()),
                detail: Some(text()),
                undo: Some(text()),
            }],
            runbook: text(),
            control: text(),
            expires_at: at,
        }
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
                revision: 0,
                owner: None,
                acknowledged_by: None,
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
            plan: Some(plan(at)),
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
            comments: vec![CommentView { by: text(), at, text: text() }],
            acknowledged_at: None,
            merged_into: None,
            split_from: None,
            suppressed_until: None,
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
