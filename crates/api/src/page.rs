//! The incident as one plain server-rendered page; the console will take its place.
//!
//! Everything from telemetry is escaped by the template; there is no script on the page and its content
//! security policy allows none. Approving needs the same origin and a form token bound to the plan.

use axum::extract::{Form, Path};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;
use wardroom_domain::Timestamp;
use wardroom_domain::canonical::sha256_hex;
use wardroom_edge::{Access, Problem, Routes, same_secret, secret};

use crate::backend::{Backend, Decision, Proof};
use crate::incidents::{Who, number};
use crate::view::{Chart, IncidentDetail, IncidentSummary, PlanView};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let (b1, b2, b3) = (backend.clone(), backend.clone(), backend.clone());
    Routes::new()
        .get("/", Access::Read, move |who: Who| index(b1.clone(), who))
        .get("/incidents/{id}", Access::Read, move |who: Who, id: Path<String>| show(b2.clone(), who, id))
        .post(
            "/incidents/{id}/approve",
            Access::Respond,
            move |who: Who, id: Path<String>, headers: HeaderMap, form: Form<ApproveForm>| {
                approve(b3.clone(), who, id, headers, form)
            },
        )
}

async fn index(backend: Backend, who: Who) -> Result<Response, Problem> {
    let incidents = (backend.incidents)(who.tenant.clone(), i64::MAX, 100).await?;
    Ok(page(
        "Incidents",
        false,
        &html! {
            h1 { "Incidents" }
            @if incidents.is_empty() { p { "None. Everything that is watched is well." } }
            @for incident in &incidents { (row(incident)) }
        },
    ))
}

fn row(incident: &IncidentSummary) -> Markup {
    html! {
        p { a href={ "/incidents/" (incident.id) } { b { (incident.id) } " " (incident.title) } " "
            span class={ "state " (incident.state) } { (words(&incident.state)) } " "
            small { (words(&incident.severity)) ", opened " (incident.opened_at) } }
    }
}

async fn show(backend: Backend, who: Who, id: Path<String>) -> Result<Response, Problem> {
    let detail = (backend.incident)(who.tenant.clone(), number(&id)?).await?;
    let form_token = detail.plan.as_ref().map(|plan| form_token(&backend, &who, &plan.plan_sha256));
    // Not while a person may be typing into the form.
    let moving = ["open", "investigating", "mitigating", "verifying", "mitigated"];
    let moving = moving.contains(&detail.summary.state.as_str());
    let body = render(&detail, form_token.as_deref(), backend.authenticated);
    Ok(page(&format!("{} {}", detail.summary.id, detail.summary.title), moving, &body))
}

fn render(detail: &IncidentDetail, form_token: Option<&str>, authenticated: bool) -> Markup {
    let summary = &detail.summary;
    let marks = marks(detail);
    html! {
        p { a href="/" { "All incidents" } " · "
            a href={ "/api/v1/incidents/" (summary.id) "/postmortem" } { "Postmortem" } }
        h1 { (summary.id) ": " (summary.title) }
        p { span class={ "state " (summary.state) } { (words(&summary.state)) }
            " severity " b { (summary.severity) } ", services " b { (summary.services.join(", ")) }
            ", since " (summary.began_at) }
        @if let Some(plan) = &detail.plan { (plan_box(detail, plan, form_token, authenticated)) }
        @if let Some(outcome) = &detail.outcome { p { "Outcome: " b { (words(outcome)) } } }
        h2 { "Why" }
        @if detail.hypotheses.is_empty() { p { "No cause named yet." } }
        ol { @for cause in &detail.hypotheses {
            li { b { (text(cause, "service")) } " · " (text(cause, "kind")) " · "
                (format!("{:.0} %", cause["confidence"].as_f64().unwrap_or_default() * 100.0))
                br; (text(cause, "reasoning")) }
        } }
        h2 { "What was seen" }
        p class="legend" { span class="limit" { "limit" } span class="began" { "trouble begins" }
            span class="done" { "action" } }
        div class="charts" { @for chart in &detail.charts { (svg(chart, &marks)) } }
        h2 { "Evidence" }
        table { @for item in &detail.evidence {
            tr { td { code { (item.id) } } td { (clock(&item.at)) } td { (item.summary) } }
        } }
        h2 { "Timeline" }
        table { @for item in &detail.timeline {
            tr { td { (clock(&item.at)) } td { @if let Some(state) = &item.state { span class={ "state " (state) } { (words(state)) } } }
                td { (item.text) } }
        } }
    }
}

fn plan_box(detail: &IncidentDetail, plan: &PlanView, form_token: Option<&str>, authenticated: bool) -> Markup {
    html! {
        div class="plan" {
            h2 { (if detail.execution.is_some() { "Done: " } else { "Proposed: " })
                (plan.tool) " " (plan.operation) " of " (plan.target) }
            p { (plan.diff) }
            p { "Who feels it: " (plan.blast_radius) ". Risk " b { (plan.risk) } ", "
                @if plan.reversible { "can be taken back" } @else { "cannot be taken back" }
                ". Runbook " code { (plan.runbook) } ". Compared with: " (plan.control) "." }
            p { small { "Plan " code { (plan.plan_sha256) } ", valid until " (plan.expires_at) } }
            @if let (Some(token), "awaiting_approval") = (form_token, detail.summary.state.as_str()) {
                form method="post" action={ "/incidents/" (detail.summary.id) "/approve" } {
                    input type="hidden" name="plan_sha256" value=(plan.plan_sha256);
                    input type="hidden" name="form_token" value=(token);
                    @if !authenticated {
                        label { "Approver's token " input type="password" name="proof" autocomplete="off"; } " "
                    }
                    label { "Reason " input name="reason" maxlength="200"; } " "
                    button { "Approve" }
                }
            }
            @if let Some(who) = &detail.approved_by { p { "Approved by " b { (who) } } }
        }
    }
}

#[derive(Debug, Deserialize)]
struct ApproveForm {
    plan_sha256: String,
    form_token: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    proof: String,
}

async fn approve(
    backend: Backend,
    who: Who,
    id: Path<String>,
    headers: HeaderMap,
    Form(form): Form<ApproveForm>,
) -> Result<Response, Problem> {
    same_origin(&headers)?;
    if !same_secret(&form.form_token, &form_token(&backend, &who, &form.plan_sha256)) {
        return Err(Problem::new(StatusCode::FORBIDDEN, "bad_form_token", "the page is out of date; load it again"));
    }
    let proof = secret(&headers).unwrap_or(form.proof);
    let decision = Decision::Approve {
        plan_sha256: form.plan_sha256,
        reason: form.reason,
        proof: Proof(proof),
        channel: "page".into(),
    };
    (backend.decide)(who.0, number(&id)?, decision).await?;
    Ok(Redirect::to(&format!("/incidents/{}", *id)).into_response())
}

/// A browser says where a form came from; it must be this very host.
fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let value = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (host, origin) = (value(header::HOST), value(header::ORIGIN));
    let of_origin = origin.and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    if host.is_some() && of_origin == host {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "wrong_origin", "approvals are taken from this server's own page only"))
}

fn form_token(backend: &Backend, who: &Who, plan_sha256: &str) -> String {
    sha256_hex(format!("{}\n{}\n{}\n{plan_sha256}", backend.form_secret, who.tenant, who.principal).as_bytes())
}

fn text<'a>(value: &'a serde_json::Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn words(state: &str) -> String {
    state.replace('_', " ")
}

/// The time of day; the whole of it on a pointer.
fn clock(at: &Timestamp) -> Markup {
    let whole = at.to_string();
    html! { time datetime=(whole) title=(whole) { (whole.get(11..19).unwrap_or(&whole)) } }
}

/// Moments that every chart shows: when it began, and when something was done.
fn marks(detail: &IncidentDetail) -> Vec<(f64, &'static str)> {
    let done = detail.timeline.iter().filter(|item| item.state.as_deref() == Some("verifying"));
    let done = done.map(|item| (item.at.seconds_f64(), "done"));
    [(detail.summary.began_at.seconds_f64(), "began")].into_iter().chain(done).collect()
}

/// A line chart without a script: the line, the limit, the moments, newest value and peak.
fn svg(chart: &Chart, marks: &[(f64, &'static str)]) -> Markup {
    let (width, height) = (360.0, 90.0);
    let (first, last) = (chart.points.first().map_or(0.0, |p| p.0), chart.points.last().map_or(1.0, |p| p.0));
    let peak = chart.points.iter().map(|p| p.1).fold(0.0, f64::max);
    // A quiet line shall look quiet: a share without a limit is drawn against the whole.
    let floor = if chart.unit == "ratio" { 1.0 } else { 1e-9 };
    let top = chart.bad_above.unwrap_or(floor).max(peak) * 1.1;
    let x = |at: f64| (at - first) / (last - first).max(1e-9) * width;
    let y = |value: f64| height - value / top * height;
    let line: Vec<String> = chart.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
    let shown = |value: f64| match chart.unit.as_str() {
        "ratio" => format!("{:.1} %", value * 100.0),
        "seconds" => format!("{:.0} ms", value * 1000.0),
        _ => format!("{value:.1}"),
    };
    let now = chart.points.last().map_or_else(String::new, |p| shown(p.1));
    html! {
        figure {
            figcaption { (chart.title) " " b { (now) } " " small { "peak " (shown(peak)) } }
            svg viewBox={ "0 0 " (width) " " (height) } role="img" aria-label=(chart.title) {
                @if let Some(limit) = chart.bad_above {
                    line class="limit" x1="0" x2=(width) y1=(format!("{:.1}", y(limit))) y2=(format!("{:.1}", y(limit))) {}
                }
                @for (at, class) in marks.iter().filter(|(at, _)| (first..=last).contains(at)) {
                    line class=(class) x1=(format!("{:.1}", x(*at))) x2=(format!("{:.1}", x(*at))) y1="0" y2=(height) {}
                }
                polyline points=(line.join(" ")) {}
            }
        }
    }
}

fn page(title: &str, refresh: bool, body: &Markup) -> Response {
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
            body { (body) }
        }
    };
    let mut response = (StatusCode::OK, markup.into_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
