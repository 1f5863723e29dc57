//! A listening port: the guard before every route, and the server around it.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
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
            handler.layer(from_fn_with_state(Arc::new((self.clone(), route)), admit))
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

/// One layer for both: each costs every request a box and a way back.
async fn admit(State(guard): State<Arc<(Port, Route)>>, request: Request, next: Next) -> Response {
    let (port, route) = &*guard;
    correlate(request, |request| authorise(port, *route, request, next)).await
}

async fn authorise(port: &Port, route: Route, mut request: Request, next: Next) -> Response {
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
                refuse(port, route, Some(identity), problem)
            }
            Err(problem) => refuse(port, route, None, problem),
        }
    };
    let status = response.status().as_u16().to_string();
    metrics::counter!(names::REQUESTS_TOTAL, "path" => route.path, "status" => status).increment(1);
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
