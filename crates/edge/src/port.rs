//! A port: the access check in front of every route, and the HTTP server.

use std::future::Future;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp, visible_line};
use wardroom_identity::oidc_login::login_path;
use wardroom_identity::sessions::Caller;
use wardroom_traces::ContinuedTrace;

use crate::auth::{AuthMode, RejectedRequest, RejectionHook, TokenTable};
use crate::budget::BudgetPermit;
use crate::callers::{Callers, ClientAddress, check_csrf, check_scope, wants_page};
use crate::config::Config;
use crate::connections::ConnectionTable;
use crate::listeners::Listener;
use crate::metrics as names;
use crate::problem::Problem;
use crate::rate_limit::RateLimits;
use crate::read_body::{BodyBudget, ReceivedBody, SMALL_BODIES_BUDGET_BYTES, read_small_body};
use crate::request_origin::{check_host, check_same_origin};
use crate::routes::{Access, Route, Routes};
use crate::serve::serve_listener;

/// The W3C trace context of a request, and of the response.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Paths that answer at any rate: they cost nothing, and a server that is probed in vain is restarted.
const HEALTH_PATHS: [&str; 3] = ["/health", "/healthz", "/readyz"];
/// Maximum length of an error text of the web framework, in bytes.
const MAX_ERROR_TEXT_BYTES: usize = 16 << 10;

/// Authentication and hooks shared by all listeners of a port.
#[derive(Clone)]
pub struct Port {
    /// Limits of connections and bodies, and the allowed host names.
    pub config: Arc<Config>,
    /// The accepted tokens.
    pub tokens: TokenTable,
    /// The sessions and signed tokens.
    pub callers: Callers,
    /// Called for every rejected request.
    pub on_rejection: RejectionHook,
    /// The clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

impl Port {
    /// Builds the router with the access check in front of every route.
    pub fn router(&self, routes: Routes) -> axum::Router {
        let checks_host = self.tokens.mode() == AuthMode::Off || !self.config.allowed_hosts.is_empty();
        let small_bodies = BodyBudget::new(SMALL_BODIES_BUDGET_BYTES);
        let limits = RateLimits::new(&self.config);
        let guard = |route: Route, handler: axum::routing::MethodRouter| {
            let (small_bodies, limits) = (small_bodies.clone(), limits.clone());
            let guard = RouteGuard { port: self.clone(), route, checks_host, small_bodies, limits };
            handler.layer(from_fn_with_state(Arc::new(guard), guard_request))
        };
        routes.into_router(guard).fallback(not_found)
    }

    /// Returns whether the credential of a request is still valid.
    pub fn is_valid(&self, headers: &HeaderMap) -> bool {
        self.callers.authenticate(&self.tokens, headers, (self.now)()).is_ok()
    }

    /// Serves the routes on all listeners until `shutdown` resolves, then waits for requests in flight. The listeners
    /// share the limits of connections.
    ///
    /// # Errors
    /// Returns an error if serving a listener panics.
    pub async fn serve(
        &self,
        listeners: Vec<Listener>,
        routes: Routes,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let router = self.router(routes);
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            shutdown.await;
            // Has no receivers if serving failed before.
            sender.send_replace(true);
        });
        let table = ConnectionTable::new(&self.config);
        let mut servers = JoinSet::new();
        for listener in listeners {
            let (config, table) = (Config::clone(&self.config), table.clone());
            servers.spawn(serve_listener(listener, router.clone(), config, table, receiver.clone()));
        }
        while let Some(result) = servers.join_next().await {
            result.map_err(std::io::Error::other)?;
        }
        Ok(())
    }
}

/// The access check of one route.
struct RouteGuard {
    port: Port,
    route: Route,
    /// Whether `Host` must be an allowed name.
    checks_host: bool,
    /// Memory of the bodies that are no telemetry, on all routes.
    small_bodies: BodyBudget,
    /// Requests of each caller, and of each address without a credential, on all routes.
    limits: RateLimits,
}

/// One middleware layer does everything, because each layer costs every request an allocation.
async fn guard_request(State(guard): State<Arc<RouteGuard>>, request: Request, next: Next) -> Response {
    with_request_id(request, |request| authorise(&guard, request, next)).await
}

async fn authorise(guard: &RouteGuard, mut request: Request, next: Next) -> Response {
    let RouteGuard { port, route, .. } = guard;
    let is_secure = port.callers.is_secure(request.headers());
    let mut rotating = None;
    let mut response = match admit(guard, &request) {
        Ok(caller) => {
            let identity = caller.as_ref().map(|caller| caller.identity.clone());
            if let Some(Caller { identity, scopes, session }) = caller {
                request.extensions_mut().insert(identity);
                request.extensions_mut().insert(scopes);
                if let Some(session) = session {
                    rotating = session.needs_rotation.then(|| session.clone());
                    request.extensions_mut().insert(session);
                }
            }
            match receive(guard, identity.as_ref(), request).await {
                // The memory of the body is released when the request has been handled.
                Ok((request, _permit)) => with_problem(next.run(request).await).await,
                Err(problem) => problem.into_response(),
            }
        }
        Err((None, problem))
            if problem.status() == StatusCode::UNAUTHORIZED && wants_page(*route, request.headers()) =>
        {
            to_login(request.uri())
        }
        Err((identity, problem)) => reject(port, *route, identity, problem),
    };
    if let Some(session) = rotating
        && let Some(cookie) = port.callers.rotate(&session, is_secure, (port.now)()).await
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    let status = response.status().as_u16().to_string();
    metrics::counter!(names::REQUESTS_TOTAL, "path" => route.path, "status" => status).increment(1);
    response
}

/// Sends a browser to the login, which returns to the page. Relative: the server may be below a path of a proxy.
fn to_login(uri: &Uri) -> Response {
    let page = uri.path_and_query().map_or("/", |path| path.as_str());
    let depth = uri.path().bytes().filter(|byte| *byte == b'/').count().saturating_sub(1);
    let up = if depth == 0 { ".".to_owned() } else { vec![".."; depth].join("/") };
    let location = format!("{up}{}", login_path(page));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// Checks a request, and that its client does not send too many without a valid credential. Returns the caller of a
/// route that needs one.
fn admit(guard: &RouteGuard, request: &Request) -> Result<Option<Caller>, (Option<Identity>, Problem)> {
    let checked = check(guard, request);
    let is_anonymous = match &checked {
        Ok(caller) => caller.is_none(),
        // While tokens cannot be read, no credential is valid.
        Err((identity, problem)) => identity.is_none() && problem.status() != StatusCode::SERVICE_UNAVAILABLE,
    };
    let is_limited = is_anonymous && !HEALTH_PATHS.contains(&guard.route.path);
    // Absent without a listener.
    if let Some(ClientAddress(address)) = request.extensions().get::<ClientAddress>().filter(|_| is_limited) {
        let is_public = guard.route.access == Access::Public;
        guard.limits.take_anonymous(*address, is_public, (guard.port.now)()).map_err(|problem| (None, problem))?;
    }
    checked
}

/// Checks where the request comes from, its credential and the role. Returns the caller of a route that needs one.
fn check(guard: &RouteGuard, request: &Request) -> Result<Option<Caller>, (Option<Identity>, Problem)> {
    let RouteGuard { port, route, checks_host, .. } = guard;
    let (allowed, uri, headers) = (&port.config.allowed_hosts, request.uri(), request.headers());
    let unknown = |problem| (None, problem);
    if *checks_host {
        check_host(allowed, uri, headers).map_err(unknown)?;
    }
    check_same_origin(allowed, request.method(), uri, headers, *route).map_err(unknown)?;
    if route.access == Access::Public {
        return Ok(None);
    }
    let caller = port.callers.authenticate(&port.tokens, headers, (port.now)()).map_err(unknown)?;
    let checked = match &caller.session {
        Some(session) if !request.method().is_safe() => check_csrf(*route, session, headers),
        _ => Ok(()),
    };
    let checked = checked.and_then(|()| check_scope(*route, &caller));
    let checked = checked.and_then(|()| match route.access {
        Access::Send => Ok(()),
        _ => guard.limits.take(&caller.identity, (port.now)()),
    });
    checked.map_err(|problem| (Some(caller.identity.clone()), problem))?;
    Ok(Some(caller))
}

/// Receives the body of a request within limits of size and time. Intake does this itself, within its budget; the body
/// of a request that may have none is not read.
async fn receive(
    guard: &RouteGuard,
    caller: Option<&Identity>,
    request: Request,
) -> Result<(Request, Option<BudgetPermit>), Problem> {
    let RouteGuard { port, route, small_bodies, .. } = guard;
    if route.access == Access::Send || request.body().is_end_stream() {
        return Ok((request, None));
    }
    let has_none = request.method().is_safe() || route.access == Access::Public && route.method != "POST";
    if has_none {
        return Ok((request.map(|_| Body::empty()), None));
    }
    // A login: all who are not known yet share one place in the budget.
    let anonymous =
        || Identity { tenant: TenantId::main(), principal: Principal::anonymous(), role: AccessRole::Sender };
    let caller = &caller.cloned().unwrap_or_else(anonymous);
    let (parts, body) = request.into_parts();
    let ReceivedBody { bytes, permit } = read_small_body(&parts, body, &port.config, small_bodies, caller).await?;
    Ok((Request::from_parts(parts, Body::from(bytes)), Some(permit)))
}

/// Makes a problem document of an error that the web framework answers itself, as text or without a body: a wrong
/// method, a path that is not UTF-8, or a form that cannot be read.
async fn with_problem(response: Response) -> Response {
    let status = response.status();
    let is_text = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/plain");
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || !response.headers().get(header::CONTENT_TYPE).is_none_or(is_text) {
        return response;
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        // The framework adds the header afterwards.
        let detail = "this path does not have this method; the header Allow lists those that it has";
        return Problem::new(status, "wrong_method", detail).into_response();
    }
    let text = axum::body::to_bytes(response.into_body(), MAX_ERROR_TEXT_BYTES).await.unwrap_or_default();
    Problem::new(status, "bad_request", visible_line(&String::from_utf8_lossy(&text))).into_response()
}

fn reject(port: &Port, route: Route, identity: Option<Identity>, problem: Problem) -> Response {
    metrics::counter!(names::REFUSED_TOTAL, "reason" => problem.code()).increment(1);
    // Requests over the rate are counted only: each would write to the database.
    if problem.status() != StatusCode::TOO_MANY_REQUESTS {
        (port.on_rejection)(RejectedRequest { identity, path: route.path.to_owned(), code: problem.code() });
    }
    problem.into_response()
}

async fn not_found(request: Request) -> Response {
    let problem = Problem::new(StatusCode::NOT_FOUND, "no_such_path", "no such path; GET /openapi.json lists them");
    with_request_id(request, |_| async { problem.into_response() }).await
}

/// Runs the request in a span with the caller's `X-Request-Id`, or a new one, in the trace of the caller's
/// `traceparent`, or a new one, and returns both in the response.
async fn with_request_id<F: Future<Output = Response>>(
    request: Request,
    handle: impl FnOnce(Request) -> F,
) -> Response {
    let request_id_header = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let valid =
        |id: &&str| !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let id = request_id_header.filter(valid).map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned);
    let traceparent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let trace = ContinuedTrace::of(traceparent);
    let (path, method, trace_id) = (request.uri().path(), request.method().as_str(), trace.context.trace_id());
    let span = trace.span(|| tracing::info_span!("request", correlation_id = %id, trace_id = %trace_id, path, method));
    let mut response = handle(request).instrument(span.clone()).await;
    tracing::info!(target: wardroom_traces::STATUS_TARGET, parent: &span, status = u64::from(response.status().as_u16()));
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(trace.context.header()) {
        headers.insert(TRACEPARENT, value);
    }
    if let Ok(value) = HeaderValue::try_from(id) {
        headers.insert("x-request-id", value);
    }
    // Text from telemetry is never to be read as a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;
    use crate::auth::{KnownToken, generate_token};

    #[test]
    fn every_response_has_a_request_id_and_is_counted_by_path_and_status() {
        let (token, sha256) = generate_token();
        let identity =
            Identity { tenant: TenantId::main(), principal: Principal::wardroom(), role: AccessRole::Viewer };
        let tokens = TokenTable::new(AuthMode::On);
        tokens.replace(Some(vec![KnownToken { sha256, identity, expires_at: None }]));
        let port = Port {
            config: Arc::default(),
            tokens,
            callers: Callers::default(),
            on_rejection: Arc::new(|_| {}),
            now: Arc::new(|| Timestamp::from_millis(0)),
        };
        let routes = Routes::new().get("/read", Access::Read, async || "hello");
        let router = port.router(routes.post("/decide", Access::Respond, async || "done"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let send = |method: &str, path: &str, token: &str, request_id_header: &str| {
            let request = Request::builder().method(method).uri(path).header("x-request-id", request_id_header);
            let request = request.header("authorization", format!("Bearer {token}")).body(Body::empty()).unwrap();
            let response = runtime.block_on(router.clone().oneshot(request)).unwrap();
            let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
            (response.status().as_u16(), id)
        };
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            for (method, path, token, status) in [
                ("GET", "/read", token.as_str(), 200),
                ("GET", "/read", token.as_str(), 200),
                ("GET", "/read", "wr_wrong", 401),
                ("POST", "/decide", token.as_str(), 403),
                ("GET", "/nothing", token.as_str(), 404),
                ("PUT", "/read", token.as_str(), 405),
            ] {
                assert_eq!(
                    send(method, path, token, "deploy-4711"),
                    (status, "deploy-4711".to_owned()),
                    "{method} {path}"
                );
            }
            let (_, id) = send("GET", "/read", &token, "two words");
            assert!(id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
        });
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = Request::builder().uri("/read").header("traceparent", header).body(Body::empty()).unwrap();
        let response = metrics::with_local_recorder(&recorder, || runtime.block_on(router.clone().oneshot(request)));
        let continued = response.unwrap().headers()["traceparent"].to_str().unwrap().to_owned();
        assert!(
            continued.starts_with(header.get(..36).unwrap()) && continued.ends_with("-01") && continued != header,
            "{continued}"
        );
        let text = recorder.handle().render();
        let mut counted: Vec<&str> = text.lines().filter(|line| line.starts_with(names::REQUESTS_TOTAL)).collect();
        counted.sort_unstable();
        let expected = [("/decide", 403, 1), ("/read", 200, 3), ("/read", 401, 2), ("/read", 405, 1)];
        let line =
            |(path, status, times)| format!("{}{{path=\"{path}\",status=\"{status}\"}} {times}", names::REQUESTS_TOTAL);
        assert_eq!(counted, expected.map(line));
    }

    /// Regression: a wrong method had no body, and a path that is not UTF-8 or a form without its fields plain text.
    #[test]
    fn errors_of_the_web_framework_are_problem_documents() {
        use axum::extract::Path;
        use axum::response::Json;

        let port = Port {
            config: Arc::default(),
            tokens: TokenTable::new(AuthMode::Off),
            callers: Callers::default(),
            on_rejection: Arc::new(|_| {}),
            now: Arc::new(|| Timestamp::from_millis(0)),
        };
        let text = (StatusCode::UNPROCESSABLE_ENTITY, "Failed to read: missing field `plan\u{1b}[2J`");
        let own = (StatusCode::CONFLICT, Json(serde_json::json!({ "state": "closed" })));
        let routes = Routes::new()
            .get("/item/{id}", Access::Public, async |Path(id): Path<String>| id)
            .get("/form", Access::Public, async move || text)
            .get("/own", Access::Public, async move || own.clone())
            .get("/fine", Access::Public, async || "text/plain is for people");
        let router = port.router(routes);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let send = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).header("host", "localhost");
            let request = request.body(Body::empty()).unwrap();
            let response = runtime.block_on(router.clone().oneshot(request)).unwrap();
            let header =
                |name| response.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
            let (status, kind, allow) =
                (response.status().as_u16(), header(header::CONTENT_TYPE), header(header::ALLOW));
            let body = runtime.block_on(axum::body::to_bytes(response.into_body(), 4096)).unwrap();
            (status, kind.unwrap_or_default(), allow, String::from_utf8(body.to_vec()).unwrap())
        };
        for (method, path, status, code, detail) in [
            ("POST", "/item/1", 405, "wrong_method", "the header Allow lists"),
            ("GET", "/item/%ff", 400, "bad_request", "UTF-8"),
            ("GET", "/form", 422, "bad_request", "Failed to read: missing field `plan\u{241b}[2J`"),
        ] {
            let (found, kind, allow, body) = send(method, path);
            assert_eq!((found, kind.as_str()), (status, "application/problem+json"), "{method} {path}");
            let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()), "{body}");
            assert!(problem["detail"].as_str().unwrap().contains(detail), "{body}");
            assert_eq!(allow.as_deref(), (status == 405).then_some("GET,HEAD"), "{path}");
        }
        assert_eq!(send("GET", "/own").3, r#"{"state":"closed"}"#);
        let (status, kind, _, body) = send("GET", "/fine");
        assert_eq!((status, kind.starts_with("text/plain"), body.as_str()), (200, true, "text/plain is for people"));
    }
}
