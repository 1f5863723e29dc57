//! `/login`, `/logout` and `/auth/oidc/…`: how a person's browser gets a session.
//!
//! Links and redirects are relative, because the server may be below a path of a proxy.

use axum::extract::{Form, Path};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use utoipa::ToSchema;
use wardroom_domain::{Principal, TenantId};
use wardroom_edge::{Access, Problem, Routes, login_cookie};
use wardroom_identity::cookies::Cookie;
use wardroom_identity::oidc_login::{PendingLogin, local_path};

use crate::access_backend::{Asking, LoginAnswer, NewSession, PasswordLogin, PlanToApprove};
use crate::asking::{Address, clear_cookie, is_secure, set_cookie};
use crate::backend::{ApprovalProof, Backend, Decision, DecisionRequest};
use crate::page::page_with_script;
use crate::problem_responses::{FormErrors, GuardErrors, ProblemDocument};
use crate::query_parameters::QueryParameters;
use crate::request::{check_reason, parse_incident_id};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [show, post, out, begin, finish, ask, approved] = std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/login", Access::Public, move |next: QueryParameters<NextParameter>| login_page(show.clone(), next))
        .post("/login", Access::Public, move |address: Address, headers: HeaderMap, form: Form<LoginForm>| {
            log_in(post.clone(), address, headers, form)
        })
        .post("/logout", Access::Read, move |caller: Asking, headers: HeaderMap| log_out(out.clone(), caller, headers))
        .get(
            "/auth/oidc/{provider}/start",
            Access::Public,
            move |provider: Path<String>, headers: HeaderMap, next: QueryParameters<NextParameter>| {
                begin_login(begin.clone(), provider, headers, next)
            },
        )
        .get(
            "/auth/oidc/{provider}/callback",
            Access::Public,
            move |provider: Path<String>, headers: HeaderMap, answer: QueryParameters<AnswerParameters>| {
                finish_login(finish.clone(), provider, headers, answer)
            },
        )
        .get(
            "/auth/oidc/{provider}/approve",
            Access::Respond,
            move |caller: Asking, provider: Path<String>, headers: HeaderMap, plan: QueryParameters<PlanParameters>| {
                begin_approval(ask.clone(), caller, provider, headers, plan)
            },
        )
        .get(
            "/auth/oidc/{provider}/approved",
            Access::Respond,
            move |caller: Asking,
                  provider: Path<String>,
                  headers: HeaderMap,
                  answer: QueryParameters<AnswerParameters>| {
                finish_approval(approved.clone(), caller, provider, headers, answer)
            },
        )
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct NextParameter {
    /// Path of the page to return to; `/` by default.
    #[serde(default)]
    next: String,
}

/// HTML page: the login.
#[utoipa::path(
    get, path = "/login", operation_id = "pageLogin", tag = "pages", params(NextParameter),
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn login_page(backend: Backend, QueryParameters(next): QueryParameters<NextParameter>) -> Response {
    page_with_script("Log in", "assets/access.js", &login_body(&backend, &local_path(&next.next), None))
}

fn login_body(backend: &Backend, next: &str, error: Option<&str>) -> Markup {
    let options = backend.access.login_options();
    html! {
        h1 { "Wardroom" }
        @if let Some(error) = error { p class="error" role="alert" { (error) } }
        @for provider in &options.providers {
            // A link: the page's policy lets forms be sent to this server only, redirects included.
            p { a class="button" href={ "auth/oidc/" (provider) "/start?next=" (encoded(next)) } {
                "Log in with " (provider) } }
        }
        @if options.has_passkeys {
            p { button type="button" id="passkey-login" data-next=(next) { "Log in with a passkey" } " "
                span id="passkey-error" role="alert" {} }
        }
        form method="post" action="login" {
            input type="hidden" name="next" value=(next);
            label { "Name " input name="principal" autocomplete="username" required; } " "
            label { "Password " input type="password" name="password" autocomplete="current-password" required; } " "
            button { "Log in for reading" }
        }
        form method="post" action="login" {
            input type="hidden" name="next" value=(next);
            label { "Token " input type="password" name="token" autocomplete="off" required; } " "
            button { "Log in with a token" }
        }
    }
}

/// A value in a query.
fn encoded(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

/// A login, as the page sends it: a name and a password, or a token.
#[derive(Deserialize, ToSchema)]
pub(crate) struct LoginForm {
    /// The name.
    #[serde(default)]
    principal: String,
    /// The tenant; `main` by default.
    #[serde(default)]
    tenant: String,
    /// The password.
    #[serde(default)]
    password: String,
    /// A bearer token, in place of name and password.
    #[serde(default)]
    token: String,
    /// Path of the page to return to.
    #[serde(default)]
    next: String,
}

impl std::fmt::Debug for LoginForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginForm").field("principal", &self.principal).finish_non_exhaustive()
    }
}

/// Form of the HTML page: log in with a password, which is for reading, or with a token.
#[utoipa::path(
    post, path = "/login", operation_id = "pageLogIn", tag = "pages",
    request_body(content = LoginForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "Logged in; to the page of `next`"),
        (status = 401, description = "The page again, with the reason", body = String, content_type = "text/html"),
        (status = 415, description = "The body is no form", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 422, description = "The form cannot be read", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 429, description = "The page again: too many logins failed", body = String,
            content_type = "text/html"),
        (status = 503, description = "The database is not available", body = String, content_type = "text/html")),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn log_in(
    backend: Backend,
    Address(address): Address,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Response {
    let next = local_path(&form.next);
    let is_token = !form.token.is_empty();
    let begun = if is_token {
        backend.access.token_login(form.token, address).await
    } else {
        match password_login(form, address) {
            Ok(login) => backend.access.password_login(login).await,
            Err(problem) => Err(problem),
        }
    };
    match begun.and_then(|begun| logged_in(&backend, &headers, &begun, format!(".{next}"))) {
        Ok(response) => response,
        Err(problem) => {
            let body = login_body(&backend, &next, Some(problem.detail()));
            let mut response = page_with_script("Log in", "assets/access.js", &body);
            *response.status_mut() = problem.status();
            response
        }
    }
}

fn password_login(form: LoginForm, address: Option<std::net::IpAddr>) -> Result<PasswordLogin, Problem> {
    // What can be no name is refused as a wrong name is.
    let wrong = |_| Problem::new(StatusCode::UNAUTHORIZED, "bad_login", "the name or the password is wrong");
    let tenant = if form.tenant.is_empty() { Ok(TenantId::main()) } else { TenantId::new(form.tenant) };
    Ok(PasswordLogin {
        tenant: tenant.map_err(wrong)?,
        principal: Principal::new(form.principal).map_err(wrong)?,
        password: form.password,
        address,
    })
}

/// Gives a browser its session.
fn logged_in(
    backend: &Backend,
    headers: &HeaderMap,
    begun: &NewSession,
    location: String,
) -> Result<Response, Problem> {
    let is_secure = is_secure(headers, backend.is_https);
    let mut response = see_other(&location)?;
    let cookies = response.headers_mut();
    cookies.append(header::SET_COOKIE, set_cookie(Cookie::Session, &begun.secret, is_secure)?);
    cookies.append(header::SET_COOKIE, clear_cookie(Cookie::Login, is_secure));
    Ok(response)
}

fn see_other(location: &str) -> Result<Response, Problem> {
    let invalid = |_| Problem::bad_request("bad_location", "the page to return to cannot be represented");
    let location = HeaderValue::from_str(location).map_err(invalid)?;
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response())
}

/// Form of the HTML page: log out.
#[utoipa::path(
    post, path = "/logout", operation_id = "pageLogOut", tag = "pages",
    responses((status = 303, description = "Logged out; to the login"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn log_out(backend: Backend, caller: Asking, headers: HeaderMap) -> Result<Response, Problem> {
    backend.access.logout(caller).await?;
    let mut response = see_other("./login")?;
    let cookie = clear_cookie(Cookie::Session, is_secure(&headers, backend.is_https));
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Sends a browser to a provider's login.
#[utoipa::path(
    get, path = "/auth/oidc/{provider}/start", operation_id = "beginOidcLogin", tag = "pages",
    params(("provider" = String, Path, description = "Name of the provider"), NextParameter),
    responses((status = 303, description = "To the provider"),
        (status = 404, description = "`no_such_provider`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 503, description = "`issuer_unavailable`", body = ProblemDocument,
            content_type = "application/problem+json")),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn begin_login(
    backend: Backend,
    Path(provider): Path<String>,
    headers: HeaderMap,
    QueryParameters(next): QueryParameters<NextParameter>,
) -> Result<Response, Problem> {
    let begun = backend.access.begin_login(provider, local_path(&next.next)).await?;
    let mut response = see_other(&begun.location)?;
    let cookie = set_cookie(Cookie::Login, &begun.cookie, is_secure(&headers, backend.is_https))?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AnswerParameters {
    /// The code that is exchanged for an ID token.
    #[serde(default)]
    code: String,
    /// What the request had.
    #[serde(default)]
    state: String,
    /// The issuer.
    iss: Option<String>,
    /// Why the provider refuses.
    #[serde(default)]
    error: String,
}

impl AnswerParameters {
    /// Checks that the answer is one to what this browser has begun.
    fn answer(self, provider: String, headers: &HeaderMap) -> Result<LoginAnswer, Problem> {
        let refused = |detail: String| Problem::bad_request("login_refused", detail);
        if !self.error.is_empty() {
            let error: String = self.error.chars().filter(char::is_ascii_graphic).take(100).collect();
            return Err(refused(format!("the provider refuses: {error}")));
        }
        let pending = login_cookie(headers).and_then(PendingLogin::from_cookie);
        let other = || refused("this browser has not begun a login, or it took too long; begin again".to_owned());
        let pending = pending.ok_or_else(other)?;
        pending.check_state(&provider, &self.state).map_err(|error| refused(error.to_string()))?;
        Ok(LoginAnswer { provider, code: self.code, issuer: self.iss, pending })
    }
}

/// Ends a login by a provider.
#[utoipa::path(
    get, path = "/auth/oidc/{provider}/callback", operation_id = "finishOidcLogin", tag = "pages",
    params(("provider" = String, Path, description = "Name of the provider"), AnswerParameters),
    responses((status = 303, description = "Logged in; to the page from which the login began"),
        (status = 400, description = "`login_refused`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 404, description = "`no_such_provider`", body = ProblemDocument,
            content_type = "application/problem+json"),
        (status = 503, description = "`issuer_unavailable`", body = ProblemDocument,
            content_type = "application/problem+json")),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn finish_login(
    backend: Backend,
    Path(provider): Path<String>,
    headers: HeaderMap,
    QueryParameters(answer): QueryParameters<AnswerParameters>,
) -> Result<Response, Problem> {
    let answer = answer.answer(provider, &headers)?;
    let location = format!("../../..{}", local_path(&answer.pending.return_to));
    let begun = backend.access.finish_login(answer).await?;
    logged_in(&backend, &headers, &begun, location)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PlanParameters {
    /// Incident id.
    incident: String,
    /// Hash of the plan.
    plan_sha256: String,
    /// Free text for the timeline and the audit log, at most 4096 bytes.
    #[serde(default)]
    reason: String,
}

/// Sends an approver to a provider to authenticate for a plan.
#[utoipa::path(
    get, path = "/auth/oidc/{provider}/approve", operation_id = "beginOidcApproval", tag = "pages",
    params(("provider" = String, Path, description = "Name of the provider"), PlanParameters),
    responses((status = 303, description = "To the provider"),
        (status = 409, description = "`plan_changed`", body = ProblemDocument,
            content_type = "application/problem+json"), FormErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn begin_approval(
    backend: Backend,
    caller: Asking,
    Path(provider): Path<String>,
    headers: HeaderMap,
    QueryParameters(plan): QueryParameters<PlanParameters>,
) -> Result<Response, Problem> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin") {
        let detail = "an approval begins on the page of the incident";
        return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_origin", detail));
    }
    let number = parse_incident_id(&plan.incident)?;
    check_reason(plan.reason.clone())?;
    let detail = (backend.incident)(caller.identity.tenant.clone(), number).await?;
    let shown = detail.plan.filter(|shown| shown.plan_sha256 == plan.plan_sha256).ok_or_else(|| {
        Problem::new(StatusCode::CONFLICT, "plan_changed", "the plan is another one now; reload the page")
    })?;
    let incident = shown.document["incident"].as_str().unwrap_or_default().to_owned();
    let query = serde_json::json!([plan.incident, plan.plan_sha256, plan.reason]).to_string();
    let to_approve = PlanToApprove { incident, plan_sha256: plan.plan_sha256, return_to: query };
    let begun = backend.access.begin_approval(caller, provider, to_approve).await?;
    let mut response = see_other(&begun.location)?;
    let cookie = set_cookie(Cookie::Login, &begun.cookie, is_secure(&headers, backend.is_https))?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Approves the plan for which a person has authenticated.
#[utoipa::path(
    get, path = "/auth/oidc/{provider}/approved", operation_id = "finishOidcApproval", tag = "pages",
    params(("provider" = String, Path, description = "Name of the provider"), AnswerParameters),
    responses((status = 303, description = "Approved; to the incident's page"), FormErrors),
    extensions(("x-access" = json!("respond"))),
)]
pub(crate) async fn finish_approval(
    backend: Backend,
    caller: Asking,
    Path(provider): Path<String>,
    headers: HeaderMap,
    QueryParameters(answer): QueryParameters<AnswerParameters>,
) -> Result<Response, Problem> {
    let answer = answer.answer(provider, &headers)?;
    let kept: Option<(String, String, String)> = serde_json::from_str(&answer.pending.return_to).ok();
    let other = || Problem::bad_request("bad_login", "this browser has begun a login and not an approval");
    let (incident, plan_sha256, reason) = kept.ok_or_else(other)?;
    let number = parse_incident_id(&incident)?;
    let reason = check_reason(reason)?;
    let proof = ApprovalProof(backend.access.finish_approval(answer).await?);
    let decision = Decision::Approve { plan_sha256, reason, proof, channel: "page".into() };
    (backend.decide)(caller.identity, DecisionRequest { number, if_match: None, decision }).await?;
    let mut response = see_other(&format!("../../../incidents/INC-{number}"))?;
    let cookie = clear_cookie(Cookie::Login, is_secure(&headers, backend.is_https));
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}
