//! The incident list and an incident as server-rendered HTML; the only script is the one of passkeys.
//!
//! The template escapes all text from telemetry, and the content security policy forbids all other scripts. Each
//! decision requires the same origin and a form token bound to the caller and to what is decided (CSRF protection).

use axum::extract::{Extension, Form, Path};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;
use utoipa::ToSchema;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{Timestamp, visible_text};
use wardroom_edge::{Access, Problem, Routes, check_form_origin, extract_secret, secrets_match};

use crate::access_backend::Asking;
use crate::approve_form::ApprovalForm;
use crate::backend::{ApprovalProof, Backend, Decision, DecisionRequest};
use crate::incident_query::IncidentQuery;
use crate::problem_responses::{FormErrors, GuardErrors, IncidentErrors};
use crate::request::{Caller, check_reason, parse_incident_id};
use crate::views::{ChartView, IncidentDetail, IncidentSummary, PlanView};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let copy = || backend.clone();
    let (index_backend, show_backend, approve_backend, reject_backend, close_backend) =
        (copy(), copy(), copy(), copy(), copy());
    Routes::new()
        .get("/", Access::Read, move |caller: Caller| index(index_backend.clone(), caller))
        .get("/incidents/{id}", Access::Read, move |caller: Asking, id: Path<String>| {
            show(show_backend.clone(), caller, id)
        })
        .post(
            "/incidents/{id}/approve",
            Access::Respond,
            move |caller: Caller, id: Path<String>, uri: Uri, headers: HeaderMap, form: Form<ApproveForm>| {
                approve(approve_backend.clone(), caller, id, uri, headers, form)
            },
        )
        .post(
            "/incidents/{id}/reject",
            Access::Respond,
            move |caller: Caller, id: Path<String>, uri: Uri, headers: HeaderMap, form: Form<ReasonForm>| {
                reject(reject_backend.clone(), caller, id, (uri, headers), form)
            },
        )
        .post(
            "/incidents/{id}/close",
            Access::Respond,
            move |caller: Caller, id: Path<String>, uri: Uri, headers: HeaderMap, form: Form<ReasonForm>| {
                close(close_backend.clone(), caller, id, (uri, headers), form)
            },
        )
}

/// A decision that needs a reason only: name, state in which it can be made, text of its button.
type ReasonDecision = (&'static str, &'static str, &'static str);
const REJECT: ReasonDecision = ("reject", "awaiting_approval", "Reject");
const CLOSE: ReasonDecision = ("close", "escalated", "Close");

/// HTML page: the incidents.
#[utoipa::path(
    get, path = "/", operation_id = "pageIncidents", tag = "pages",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn index(backend: Backend, caller: Caller) -> Result<Response, Problem> {
    let incidents =
        (backend.incidents)(caller.tenant.clone(), IncidentQuery { limit: 100, ..IncidentQuery::default() })
            .await?
            .incidents;
    Ok(page(
        "Incidents",
        false,
        &html! {
            h1 { "Incidents" }
            p { a href="account" { (caller.principal) } }
            @if incidents.is_empty() { p { "No incidents." } }
            @for incident in &incidents { (row(incident)) }
        },
    ))
}

fn row(incident: &IncidentSummary) -> Markup {
    html! {
        p { a href={ "incidents/" (incident.id) } { b { (incident.id) } " " (incident.title) } " "
            span class={ "state " (incident.state) } { (display_state(&incident.state)) } " "
            small { (display_state(&incident.severity)) ", opened " (incident.opened_at) } }
    }
}

/// HTML page: one incident.
#[utoipa::path(
    get, path = "/incidents/{id}", operation_id = "pageIncident", tag = "pages",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), IncidentErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn show(backend: Backend, asking: Asking, id: Path<String>) -> Result<Response, Problem> {
    let caller = Extension(asking.identity.clone());
    let detail = (backend.incident)(caller.tenant.clone(), parse_incident_id(&id)?).await?;
    let mut script = None;
    let approval = match &detail.plan {
        Some(plan) if detail.summary.state == "awaiting_approval" => {
            let approval = backend.access.may_approve(asking.clone()).await?;
            let token = form_token(&backend, &caller, &plan.plan_sha256);
            let authenticated = backend.authenticated;
            // Only a passkey needs one.
            script = approval.proofs.iter().any(|proof| proof == "passkey").then_some("../assets/access.js");
            ApprovalForm { caller: &asking, approval: &approval, token: &token, authenticated }.render(&detail, plan)
        }
        _ => html! {},
    };
    let decisions = html! {
        @for decision in [REJECT, CLOSE] { (reason_form(&backend, &caller, &detail.summary, decision)) }
    };
    // Refresh only in states without a form, so that no input is lost.
    let refreshing_states = ["open", "investigating", "mitigating", "verifying", "mitigated"];
    let refresh = refreshing_states.contains(&detail.summary.state.as_str());
    let body = render(&detail, &approval, &decisions);
    let title = format!("{} {}", detail.summary.id, detail.summary.title);
    Ok(page_of(&title, refresh, script, &body))
}

fn render(detail: &IncidentDetail, approval: &Markup, decisions: &Markup) -> Markup {
    let summary = &detail.summary;
    let markers = markers(detail);
    html! {
        p { a href="../" { "All incidents" } " · "
            a href={ "../api/v1/incidents/" (summary.id) "/postmortem" } { "Postmortem" } }
        h1 { (summary.id) ": " (summary.title) }
        p { span class={ "state " (summary.state) } { (display_state(&summary.state)) }
            " severity " b { (summary.severity) } ", affects " b { (summary.services.join(", ")) }
            ", since " (summary.began_at) }
        @if let Some(plan) = &detail.plan { (plan_box(detail, plan, approval)) }
        (decisions)
        @if let Some(outcome) = &detail.outcome { p { "Outcome: " b { (display_state(outcome)) } } }
        h2 { "Probable causes" }
        @if detail.hypotheses.is_empty() { p { "No probable cause yet." } }
        ol { @for cause in &detail.hypotheses {
            li { b { (cause.entity.name) } " (" (display_state(&cause.entity.kind)) ") · " (cause.rule) " · "
                (format!("{:.0} %", cause.confidence * 100.0))
                br; (cause.reasoning)
                @if let Some(reservation) = &cause.reservation { br; (reservation) }
                @if !cause.next_checks.is_empty() {
                    ul { @for check in &cause.next_checks { li { "Check: " (check) } }
                } } }
        } }
        h2 { "Signals" }
        p class="legend" { span class="limit" { "threshold" } span class="began" { "incident start" }
            span class="done" { "action" } }
        div class="charts" { @for chart in &detail.charts { (chart_svg(chart, &markers)) } }
        h2 { "Evidence" }
        table { @for item in &detail.evidence {
            tr { td { code { (item.id) } } td { (time_of_day(&item.at)) } td { (item.summary) } }
        } }
        h2 { "Timeline" }
        table { @for item in &detail.timeline {
            tr { td { (time_of_day(&item.at)) } td { @if let Some(state) = &item.state { span class={ "state " (state) } { (display_state(state)) } } }
                td { (item.text) } }
        } }
    }
}

fn plan_box(detail: &IncidentDetail, plan: &PlanView, approval: &Markup) -> Markup {
    html! {
        div class="plan" {
            h2 { (if detail.execution.is_some() { "Executed: " } else { "Proposed: " })
                (plan.tool) " " (plan.operation) " of " (plan.target)
                @for step in plan.steps.iter().skip(1) { ", then " (step.tool) " " (step.operation) " of " (step.target) } }
            @if plan.steps.is_empty() { p { (plan.diff) } } @else {
                ol { @for step in &plan.steps { li { (step.diff)
                    " (risk " (step.risk) @if !step.reversible { ", not reversible" } ")"
                    @if let Some(outcome) = &step.outcome { ": " b { (display_state(outcome)) } }
                    @if let Some(undo) = &step.undo { ", undo " (display_state(undo)) } } } }
            }
            p { "Blast radius: " (plan.blast_radius) ". Risk " b { (plan.risk) } ", "
                @if plan.reversible { "reversible" } @else { "not reversible" }
                ". Runbook " code { (plan.runbook) } ". Control: " (plan.control) "." }
            @if let Some(policy) = &detail.policy {
                p { "Policy: " b { (policy.answer) } ", " (policy.reason) " " small { "(" (policy.rules.join(", ")) ")" }
                    @for approval in &policy.partial_approvals { ". Approved by " b { (approval.by) } }
                }
            }
            p { small { "Plan " code { (plan.plan_sha256) } ", valid until " (plan.expires_at) } }
            (approval)
            @if let Some(approval) = &detail.approval {
                p { "Approved by " b { (approval.by) } " at " (approval.at)
                    @match approval.proof.as_deref() {
                        Some("ssh") => ", signed",
                        Some("passkey") => ", by a passkey",
                        Some("oidc") => ", authenticated by their provider",
                        Some("token") => { ", by a token (" b { "weak" } ": the server has seen it)" }
                        _ => {}
                    }
                    @if !approval.reason.is_empty() { ": " (approval.reason) } }
            }
        }
    }
}

/// The form of a decision, in the state in which it can be made.
fn reason_form(backend: &Backend, caller: &Caller, summary: &IncidentSummary, decision: ReasonDecision) -> Markup {
    let (name, state, button) = decision;
    html! {
        @if summary.state == state {
            form method="post" action={ (summary.id) "/" (name) } {
                input type="hidden" name="form_token" value=(form_token(backend, caller, &subject(name, &summary.id)));
                label { "Reason " input name="reason" maxlength="200"; } " "
                button { (button) }
            }
        }
    }
}

/// What the form token of a decision without a plan is bound to.
fn subject(name: &str, id: &str) -> String {
    format!("{name} {id}")
}

/// A decision with a reason, as the page sends it.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ReasonForm {
    /// The token of the page's form.
    form_token: String,
    /// Free text, at most 4096 bytes.
    #[serde(default)]
    reason: String,
}

/// Form of the HTML page: reject the plan.
#[utoipa::path(
    post, path = "/incidents/{id}/reject", operation_id = "pageReject", tag = "pages",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body(content = ReasonForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "Done; to the page of the incident"), FormErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn reject(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    request: (Uri, HeaderMap),
    form: Form<ReasonForm>,
) -> Result<Response, Problem> {
    decide(backend, caller, id, request, REJECT, form).await
}

/// Form of the HTML page: close the incident.
#[utoipa::path(
    post, path = "/incidents/{id}/close", operation_id = "pageClose", tag = "pages",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body(content = ReasonForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "Done; to the page of the incident"), FormErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn close(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    request: (Uri, HeaderMap),
    form: Form<ReasonForm>,
) -> Result<Response, Problem> {
    decide(backend, caller, id, request, CLOSE, form).await
}

async fn decide(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    (uri, headers): (Uri, HeaderMap),
    (name, ..): ReasonDecision,
    Form(form): Form<ReasonForm>,
) -> Result<Response, Problem> {
    let subject = subject(name, &id);
    check_form(&backend, &caller, (&uri, &headers), &form.form_token, &subject)?;
    let reason = check_reason(form.reason)?;
    let decision = if name == CLOSE.0 { Decision::Close { reason } } else { Decision::Reject { reason } };
    (backend.decide)(caller.0, DecisionRequest { number: parse_incident_id(&id)?, if_match: None, decision }).await?;
    // Relative, as every link: the server may be below a path of a proxy.
    Ok(Redirect::to(&format!("../{}", *id)).into_response())
}

/// An approval, as the page sends it.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ApproveForm {
    /// Hash of the plan.
    plan_sha256: String,
    /// The token of the page's form.
    form_token: String,
    /// Free text, at most 4096 bytes.
    #[serde(default)]
    reason: String,
    /// Token of the approver; the request's credential by default.
    #[serde(default)]
    proof: String,
}

/// Form of the HTML page: approve the plan.
#[utoipa::path(
    post, path = "/incidents/{id}/approve", operation_id = "pageApprove", tag = "pages",
    params(("id" = String, Path, description = "Incident id", example = "INC-42")),
    request_body(content = ApproveForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "Done; to the page of the incident"), FormErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn approve(
    backend: Backend,
    caller: Caller,
    id: Path<String>,
    uri: Uri,
    headers: HeaderMap,
    Form(form): Form<ApproveForm>,
) -> Result<Response, Problem> {
    check_form(&backend, &caller, (&uri, &headers), &form.form_token, &form.plan_sha256)?;
    let proof = extract_secret(&headers).unwrap_or(form.proof);
    let decision = Decision::Approve {
        plan_sha256: form.plan_sha256,
        reason: check_reason(form.reason)?,
        proof: ApprovalProof(proof),
        channel: "page".into(),
    };
    (backend.decide)(caller.0, DecisionRequest { number: parse_incident_id(&id)?, if_match: None, decision }).await?;
    // Relative, as every link: the server may be below a path of a proxy.
    Ok(Redirect::to(&format!("../{}", *id)).into_response())
}

/// Checks that a form was sent from a page of this server, and that this server made it for the caller and the subject.
fn check_form(
    backend: &Backend,
    caller: &Caller,
    (uri, headers): (&Uri, &HeaderMap),
    token: &str,
    subject: &str,
) -> Result<(), Problem> {
    check_form_origin(&backend.allowed_hosts, uri, headers)?;
    if secrets_match(token, &form_token(backend, caller, subject)) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "bad_form_token", "the form token is invalid; reload the page"))
}

/// The subject is the hash of a plan, or the decision and the incident.
fn form_token(backend: &Backend, caller: &Caller, subject: &str) -> String {
    sha256_hex(format!("{}\n{}\n{}\n{subject}", backend.form_secret, caller.tenant, caller.principal).as_bytes())
}

/// `awaiting_approval` as `awaiting approval`.
fn display_state(state: &str) -> String {
    state.replace('_', " ")
}

/// The time of day, with the full timestamp as tooltip.
fn time_of_day(at: &Timestamp) -> Markup {
    let full = at.to_string();
    html! { time datetime=(full) title=(full) { (full.get(11..19).unwrap_or(&full)) } }
}

/// Vertical markers of every chart, as (seconds since the epoch, CSS class): start of the incident, and actions.
fn markers(detail: &IncidentDetail) -> Vec<(f64, &'static str)> {
    let actions = detail.timeline.iter().filter(|item| item.state.as_deref() == Some("verifying"));
    let actions = actions.map(|item| (item.at.seconds_f64(), "done"));
    [(detail.summary.began_at.seconds_f64(), "began")].into_iter().chain(actions).collect()
}

/// Renders a line chart as SVG: the series, the threshold, the markers, the latest value and the peak.
fn chart_svg(chart: &ChartView, markers: &[(f64, &'static str)]) -> Markup {
    let (width, height) = (360.0, 90.0);
    let (first, last) = (chart.points.first().map_or(0.0, |p| p.0), chart.points.last().map_or(1.0, |p| p.0));
    let peak = chart.points.iter().map(|p| p.1).fold(0.0, f64::max);
    // Without a threshold, a ratio is scaled to 1 so that noise near zero does not fill the chart.
    let min_top = if chart.unit == "ratio" { 1.0 } else { 1e-9 };
    let top = chart.bad_above.unwrap_or(min_top).max(peak) * 1.1;
    let x = |at: f64| (at - first) / (last - first).max(1e-9) * width;
    let y = |value: f64| height - value / top * height;
    let line: Vec<String> = chart.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
    let format_value = |value: f64| match chart.unit.as_str() {
        "ratio" => format!("{:.1} %", value * 100.0),
        "seconds" => format!("{:.0} ms", value * 1000.0),
        _ => format!("{value:.1}"),
    };
    let latest = chart.points.last().map_or_else(String::new, |p| format_value(p.1));
    html! {
        figure {
            figcaption { (chart.title) " " b { (latest) } " " small { "peak " (format_value(peak)) } }
            svg viewBox={ "0 0 " (width) " " (height) } role="img" aria-label=(chart.title) {
                @if let Some(threshold) = chart.bad_above {
                    line class="limit" x1="0" x2=(width) y1=(format!("{:.1}", y(threshold)))
                        y2=(format!("{:.1}", y(threshold))) {}
                }
                @for (at, class) in markers.iter().filter(|(at, _)| (first..=last).contains(at)) {
                    line class=(class) x1=(format!("{:.1}", x(*at))) x2=(format!("{:.1}", x(*at))) y1="0" y2=(height) {}
                }
                polyline points=(line.join(" ")) {}
            }
        }
    }
}

pub(crate) fn page(title: &str, refresh: bool, body: &Markup) -> Response {
    page_of(title, refresh, None, body)
}

/// A page with one of this server's scripts, by its path relative to the page.
pub(crate) fn page_with_script(title: &str, script: &str, body: &Markup) -> Response {
    page_of(title, false, Some(script), body)
}

fn page_of(title: &str, refresh: bool, script: Option<&str>, body: &Markup) -> Response {
    let style = include_str!("page.css");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                @if refresh { meta http-equiv="refresh" content="5"; }
                title { (title) " · Wardroom" }
                style { (PreEscaped(style)) }
            }
            body { (body) @if let Some(script) = script { script src=(script) {} } }
        }
    };
    // Characters that change the direction of text would reorder what an approver reads.
    let text = visible_text(&markup.into_string()).into_owned();
    let mut response = (StatusCode::OK, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy = if script.is_some() {
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'"
    } else {
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    };
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
