//! A listening port: the guard before every route, and the server around it.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use metrics::Counter;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;
use wardroom_domain::Timestamp;

use crate::{Problem, Refused, RefusedHook, Route, Routes, TokenTable, metrics as names};

/// A port before it listens.
#[derive(Clone)]
pub struct Port {
    /// Who is known.
    pub tokens: TokenTable,
    /// Told of every refusal.
    pub refused: RefusedHook,
    /// The clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

impl Port {
    /// The router with every guard in place.
    pub fn router(&self, routes: Routes) -> axum::Router {
        let guard = |route: Route, handler: axum::routing::MethodRouter| {
            let guard = Guard { port: self.clone(), route, answered: RwLock::default() };
            handler.layer(from_fn_with_state(Arc::new(guard), admit))
        };
        routes.into_router(guard).fallback(unknown)
    }

    /// Serves the same on all listeners until `stop` resolves, then lets running requests finish.
    ///
    /// # Errors
    /// A listener's.
    pub async fn serve(
        &self,
        listeners: Vec<TcpListener>,
        routes: Routes,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let router = self.router(routes);
        let (stopping, stopped) = watch::channel(false);
        tokio::spawn(async move {
            stop.await;
            // Nobody listens any more if serving failed meanwhile.
            stopping.send_replace(true);
        });
        let mut serving = JoinSet::new();
        for listener in listeners {
            let mut stopped = stopped.clone();
            let stop = async move {
                let _gone = stopped.wait_for(|stopped| *stopped).await;
            };
            serving.spawn(axum::serve(listener, router.clone()).with_graceful_shutdown(stop).into_future());
        }
        while let Some(served) = serving.join_next().await {
            served.map_err(std::io::Error::other)??;
        }
        Ok(())
    }
}

/// What stands before a route.
struct Guard {
    port: Port,
    route: Route,
    /// Its answers by status. Looked up by name once each, since a lookup costs what many requests cost.
    answered: RwLock<Vec<(StatusCode, Counter)>>,
}

impl Guard {
    fn count(&self, status: StatusCode) {
        let known = |answered: &[(StatusCode, Counter)]| answered.iter().find(|(known, _)| *known == status).cloned();
        let counter = known(&self.answered.read().unwrap_or_else(PoisonError::into_inner));
        let (_, counter) = counter.unwrap_or_else(|| {
            let (path, name) = (self.route.path, status.as_u16().to_string());
            let new = (status, metrics::counter!(names::REQUESTS_TOTAL, "path" => path, "status" => name));
            self.answered.write().unwrap_or_else(PoisonError::into_inner).push(new.clone());
            new
        });
        counter.increment(1);
    }
}

/// One layer for both: each costs every request a box and a way back.
async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    correlate(request, |request| authorise(&guard, request, next)).await
}

async fn authorise(guard: &Guard, mut request: Request, next: Next) -> Response {
    let Guard { port, route, .. } = guard;
    let response = if route.access == crate::Access::Public {
        next.run(request).await
    } else {
        match port.tokens.identify(request.headers(), (port.now)()) {
            Ok(identity) if route.access.allows(identity.role) => {
                request.extensions_mut().insert(identity);
                next.run(request).await
            }
            Ok(identity) => {
                let role = identity.role.as_str();
                let detail = format!("role {role} may not use {} {}; ask an administrator", route.method, route.path);
                let problem = Problem::new(StatusCode::FORBIDDEN, "role_forbidden", detail);
                refuse(port, *route, Some(identity), problem)
            }
            Err(problem) => refuse(port, *route, None, problem),
        }
    };
    guard.count(response.status());
    response
}

fn refuse(port: &Port, route: Route, identity: Option<wardroom_domain::Identity>, problem: Problem) -> Response {
    metrics::counter!(names::REFUSED_TOTAL, "reason" => problem.code()).increment(1);
    (port.refused)(Refused { identity, path: route.path.to_owned(), code: problem.code() });
    problem.into_response()
}

async fn unknown(request: Request) -> Response {
    let problem = Problem::new(StatusCode::NOT_FOUND, "no_such_path", "no such path; GET /openapi.json lists them");
    correlate(request, |_| async { problem.into_response() }).await
}

/// Ties a request's log lines together by the caller's `X-Request-Id`, or a new one, and tells it in the answer.
async fn correlate<F: Future<Output = Response>>(request: Request, answer: impl FnOnce(Request) -> F) -> Response {
    let given = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let fits =
        |id: &&str| !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let id = given.filter(fits).map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned);
    let span = tracing::info_span!("request", correlation_id = %id, path = request.uri().path());
    let mut response = answer(request).instrument(span).await;
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt;
    use wardroom_domain::{AccessRole, Identity, Principal, TenantId};

    use super::*;
    use crate::{Access, AuthMode, KnownToken, mint_token};

    /// Whatever the answer, it says which log lines are about it, and is counted by route and status.
    #[test]
    fn every_answer_carries_a_request_id_and_is_counted() {
        let (token, sha256) = mint_token();
        let identity =
            Identity { tenant: TenantId::main(), principal: Principal::wardroom(), role: AccessRole::Viewer };
        let tokens = TokenTable::new(AuthMode::On);
        tokens.replace(Some(vec![KnownToken { sha256, identity, expires_at: None }]));
        let port = Port { tokens, refused: Arc::new(|_| {}), now: Arc::new(|| Timestamp::from_millis(0)) };
        let routes = Routes::new().get("/read", Access::Read, async || "hello");
        let router = port.router(routes.post("/decide", Access::Respond, async || "done"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ask = |method: &str, path: &str, token: &str, given: &str| {
            let request = Request::builder().method(method).uri(path).header("x-request-id", given);
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
                    ask(method, path, token, "deploy-4711"),
                    (status, "deploy-4711".to_owned()),
                    "{method} {path}"
                );
            }
            let (_, id) = ask("GET", "/read", &token, "two words");
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
}
