//! A port: the access check in front of every route, and the HTTP server.

use std::future::Future;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;
use wardroom_domain::{Identity, Timestamp, visible_line};

use crate::auth::{AuthMode, RejectedRequest, RejectionHook, TokenTable};
use crate::budget::BudgetPermit;
use crate::config::Config;
use crate::connections::ConnectionTable;
use crate::metrics as names;
use crate::problem::Problem;
use crate::read_body::{BodyBudget, ReceivedBody, SMALL_BODIES_BUDGET_BYTES, read_small_body};
use crate::request_origin::{check_host, check_same_origin};
use crate::routes::{Access, Route, Routes};
use crate::serve::serve_listener;

/// Maximum length of an error text of the web framework, in bytes.
const MAX_ERROR_TEXT_BYTES: usize = 16 << 10;

/// Authentication and hooks shared by all listeners of a port.
#[derive(Clone)]
pub struct Port {
    /// Limits of connections and bodies, and the allowed host names.
    pub config: Arc<Config>,
    /// The accepted tokens.
    pub tokens: TokenTable,
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
        let guard = |route: Route, handler: axum::routing::MethodRouter| {
            let guard = RouteGuard { port: self.clone(), route, checks_host, small_bodies: small_bodies.clone() };
            handler.layer(from_fn_with_state(Arc::new(guard), guard_request))
        };
        routes.into_router(guard).fallback(not_found)
    }

    /// Serves the routes on all listeners until `shutdown` resolves, then waits for requests in flight. The listeners
    /// share the limits of connections.
    ///
    /// # Errors
    /// Returns an error if serving a listener panics.
    pub async fn serve(
        &self,
        listeners: Vec<TcpListener>,
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
}

/// One middleware layer does everything, because each layer costs every request an allocation.
async fn guard_request(State(guard): State<Arc<RouteGuard>>, request: Request, next: Next) -> Response {
    with_request_id(request, |request| authorise(&guard, request, next)).await
}

async fn authorise(guard: &RouteGuard, mut request: Request, next: Next) -> Response {
    let RouteGuard { port, route, .. } = guard;
    let response = match admit(guard, &request) {
        Ok(identity) => {
            if let Some(identity) = &identity {
                request.extensions_mut().insert(identity.clone());
            }
            match receive(guard, identity.as_ref(), request).await {
                // The memory of the body is released when the request has been handled.
                Ok((request, _permit)) => with_problem(next.run(request).await).await,
                Err(problem) => problem.into_response(),
            }
        }
        Err((identity, problem)) => reject(port, *route, identity, problem),
    };
    let status = response.status().as_u16().to_string();
    metrics::counter!(names::REQUESTS_TOTAL, "path" => route.path, "status" => status).increment(1);
    response
}

/// Checks where the request comes from, its credential and the role. Returns the caller of a route that needs one.
fn admit(guard: &RouteGuard, request: &Request) -> Result<Option<Identity>, (Option<Identity>, Problem)> {
    let RouteGuard { port, route, checks_host, .. } = guard;
    let (allowed, uri, headers) = (&port.config.allowed_hosts, request.uri(), request.headers());
    if *checks_host {
        check_host(allowed, uri, headers).map_err(|problem| (None, problem))?;
    }
    if route.access == Access::Public {
        return Ok(None);
    }
    check_same_origin(allowed, request.method(), uri, headers).map_err(|problem| (None, problem))?;
    let identity = port.tokens.authenticate(headers, (port.now)()).map_err(|problem| (None, problem))?;
    if !route.access.allows(identity.role) {
        let role = identity.role.as_str();
        let detail = format!("role {role} may not use {} {}; ask an administrator", route.method, route.path);
        return Err((Some(identity), Problem::new(StatusCode::FORBIDDEN, "role_forbidden", detail)));
    }
    Ok(Some(identity))
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
    let Some(caller) = caller.filter(|_| !request.method().is_safe()) else {
        return Ok((request.map(|_| Body::empty()), None));
    };
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
    (port.on_rejection)(RejectedRequest { identity, path: route.path.to_owned(), code: problem.code() });
    problem.into_response()
}

async fn not_found(request: Request) -> Response {
    let problem = Problem::new(StatusCode::NOT_FOUND, "no_such_path", "no such path; GET /openapi.json lists them");
    with_request_id(request, |_| async { problem.into_response() }).await
}

/// Runs the request in a span with the caller's `X-Request-Id`, or a new one, and returns it in the response.
async fn with_request_id<F: Future<Output = Response>>(
    request: Request,
    handle: impl FnOnce(Request) -> F,
) -> Response {
    let request_id_header = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let valid =
        |id: &&str| !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let id = request_id_header.filter(valid).map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned);
    let span = tracing::info_span!("request", correlation_id = %id, path = request.uri().path());
    let mut response = handle(request).instrument(span).await;
    let headers = response.headers_mut();
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
    use wardroom_domain::{AccessRole, Principal, TenantId};

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
        let text = recorder.handle().render();
        let mut counted: Vec<&str> = text.lines().filter(|line| line.starts_with(names::REQUESTS_TOTAL)).collect();
        counted.sort_unstable();
        let expected = [("/decide", 403, 1), ("/read", 200, 3), ("/read", 401, 1), ("/read", 405, 1)];
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
