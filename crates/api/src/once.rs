//! `Idempotency-Key`: a request that is repeated with the same key, because its answer was lost, is answered like the
//! first time and changes nothing.
//!
//! ```text
//! begin(key) ─► new: handle, keep the answer   answered: the kept answer   running, unknown, other request: 409
//! ```
//!
//! Guarantee: a request with a key is handled at most once. It is handled to its end also if the client leaves, so that
//! a repetition finds an answer. An answer that says that nothing was done (4xx and 5xx) is not kept.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use wardroom_domain::Identity;
use wardroom_domain::canonical::sha256_hex;
use wardroom_edge::{Access, Problem, Routes};

use crate::requests_backend::{Answer, KeyState, KeyedRequest, RequestsBackend};

/// Header with the key.
const KEY_HEADER: &str = "idempotency-key";
/// Header of an answer that was kept.
const REPLAYED_HEADER: &str = "idempotency-replayed";
/// Maximum length of a key.
const MAX_KEY_BYTES: usize = 128;
/// Longer answers are not kept.
const MAX_KEPT_BYTES: usize = 64 << 10;
/// When a client may ask again for a request that is being handled, in seconds.
const RETRY_SECONDS: f64 = 1.0;

/// Extension of a response whose body has a secret, and is not kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HasSecret;

/// Adds the layer to every route that changes something.
pub(crate) fn handle_once(routes: Routes, backend: &RequestsBackend) -> Routes {
    routes.map(|route, handler| {
        let changes = route.method == "POST" && matches!(route.access, Access::Respond | Access::Admin);
        if !changes || !route.path.starts_with("/api/") {
            return handler;
        }
        handler.layer(from_fn_with_state(backend.clone(), once))
    })
}

async fn once(State(backend): State<RequestsBackend>, request: Request, next: Next) -> Response {
    // Another method of the path, or one that it does not have, changes nothing here.
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let Some(key) = request.headers().get(KEY_HEADER).cloned() else { return next.run(request).await };
    // The guard has added it: no route of this layer is public.
    let Some(caller) = request.extensions().get::<Identity>().cloned() else { return next.run(request).await };
    let key = match checked_key(&key) {
        Ok(key) => key,
        Err(problem) => return problem.into_response(),
    };
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return Problem::bad_request("bad_body", "the body is not complete").into_response();
    };
    let keyed = KeyedRequest { caller, key, fingerprint: fingerprint(&parts, &body) };
    match (backend.begin)(keyed.clone()).await {
        Ok(KeyState::New) => {}
        Ok(state) => return known(state),
        Err(problem) => return problem.into_response(),
    }
    // Not ended with the connection: a client that repeats the request wants its answer.
    let request = Request::from_parts(parts, Body::from(body));
    let handling = async move { keep(&backend, keyed, next.run(request).await).await };
    let handled = tokio::spawn(handling.instrument(tracing::Span::current()));
    handled.await.unwrap_or_else(|error| Problem::unavailable("not_handled", error.to_string()).into_response())
}

fn checked_key(value: &HeaderValue) -> Result<String, Problem> {
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || text.len() > MAX_KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let detail = format!("header Idempotency-Key: 1 to {MAX_KEY_BYTES} visible ASCII characters without spaces");
        return Err(Problem::bad_request("bad_idempotency_key", detail));
    }
    Ok(text.to_owned())
}

fn fingerprint(parts: &axum::http::request::Parts, body: &Bytes) -> String {
    let head = format!("{} {}\n", parts.method, parts.uri.path_and_query().map_or("", |path| path.as_str()));
    let if_match = parts.headers.get(header::IF_MATCH).map_or(&b""[..], HeaderValue::as_bytes);
    sha256_hex(&[head.as_bytes(), if_match, b"\n", body].concat())
}

/// The answer to a request whose key is known.
fn known(state: KeyState) -> Response {
    let conflict = |code, detail| Problem::new(StatusCode::CONFLICT, code, detail);
    match state {
        KeyState::Answered(Answer { status, content_type, body: Some(body) }) => {
            let mut response = (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), body).into_response();
            let headers = response.headers_mut();
            headers.remove(header::CONTENT_TYPE);
            if let Ok(kind) = HeaderValue::try_from(content_type)
                && !kind.is_empty()
            {
                headers.insert(header::CONTENT_TYPE, kind);
            }
            headers.insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
            response
        }
        KeyState::Answered(Answer { body: None, .. }) => {
            let detail = "the request was done before; its answer is not kept, because it has a secret or is large";
            conflict("already_done", detail).into_response()
        }
        KeyState::Unknown => {
            let detail = "the server stopped while it handled the request with this key, so that its outcome is \
                          unknown; look whether it took effect, then use another key";
            conflict("outcome_unknown", detail).into_response()
        }
        KeyState::OtherRequest => {
            let detail = "another request had this key; use a key for one request and its repetitions only";
            conflict("key_of_other_request", detail).into_response()
        }
        KeyState::Running | KeyState::New => {
            let detail = "the request with this key is being handled; repeat it later for its answer";
            conflict("key_in_use", detail).retry_after(RETRY_SECONDS).into_response()
        }
    }
}

/// Keeps the answer of a request that was handled.
async fn keep(backend: &RequestsBackend, keyed: KeyedRequest, response: Response) -> Response {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        return match (backend.end)((keyed, None)).await {
            Ok(()) => response,
            Err(problem) => problem.into_response(),
        };
    }
    let has_secret = response.extensions().get::<HasSecret>().is_some();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let text = std::str::from_utf8(&body).ok().filter(|text| !has_secret && text.len() <= MAX_KEPT_BYTES);
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let answer = Answer {
        status: status.as_u16(),
        content_type: content_type.unwrap_or_default().to_owned(),
        body: text.map(str::to_owned),
    };
    if let Err(problem) = (backend.end)((keyed, Some(answer))).await {
        // It took effect: the answer is the caller's, and a repetition gets `outcome_unknown`.
        tracing::warn!(detail = problem.detail(), "keeping the answer of a request failed");
    }
    Response::from_parts(parts, Body::from(body))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::routing::post;
    use tower::ServiceExt;
    use wardroom_domain::{AccessRole, Principal, TenantId};

    use super::*;

    type Memory = Arc<Mutex<BTreeMap<(String, String), (String, Option<Answer>)>>>;

    /// Requests remembered in memory.
    fn memory() -> (RequestsBackend, Memory) {
        let kept = Memory::default();
        let (begun, ended) = (Arc::clone(&kept), Arc::clone(&kept));
        let id = |keyed: &KeyedRequest| (keyed.caller.principal.to_string(), keyed.key.clone());
        let begin = move |keyed: KeyedRequest| {
            let mut kept = begun.lock().unwrap();
            let state = match kept.get(&id(&keyed)) {
                Some((fingerprint, _)) if *fingerprint != keyed.fingerprint => KeyState::OtherRequest,
                Some((_, Some(answer))) => KeyState::Answered(answer.clone()),
                Some((_, None)) => KeyState::Running,
                None => {
                    kept.insert(id(&keyed), (keyed.fingerprint.clone(), None));
                    KeyState::New
                }
            };
            Box::pin(async move { Ok(state) }) as crate::backend_future::BackendFuture<KeyState>
        };
        let end = move |(keyed, answer): (KeyedRequest, Option<Answer>)| {
            let mut kept = ended.lock().unwrap();
            match answer {
                Some(answer) => drop(kept.insert(id(&keyed), (keyed.fingerprint, Some(answer)))),
                None => drop(kept.remove(&id(&keyed))),
            }
            Box::pin(async { Ok(()) }) as crate::backend_future::BackendFuture<()>
        };
        (RequestsBackend { begin: Arc::new(begin), end: Arc::new(end) }, kept)
    }

    #[tokio::test]
    async fn a_repeated_request_is_answered_like_the_first() {
        let handled = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&handled);
        let handler = move |body: String| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            async move {
                match body.as_str() {
                    "busy" => Problem::unavailable("busy", "later").into_response(),
                    "secret" => {
                        let mut response = "wr_secret".into_response();
                        response.extensions_mut().insert(HasSecret);
                        response
                    }
                    _ => (StatusCode::ACCEPTED, format!("{body} {number}")).into_response(),
                }
            }
        };
        let (backend, kept) = memory();
        let router = axum::Router::new().route("/", post(handler)).layer(from_fn_with_state(backend, once));
        let send_by = async |method: &str, principal: &str, key: &str, body: &str| {
            let mut request = Request::builder().method(method).uri("/").body(Body::from(body.to_owned())).unwrap();
            if !key.is_empty() {
                request.headers_mut().insert(KEY_HEADER, key.parse().unwrap());
            }
            let principal = Principal::new(principal).unwrap();
            let identity = Identity { tenant: TenantId::main(), principal, role: AccessRole::Admin };
            request.extensions_mut().insert(identity);
            let response = router.clone().oneshot(request).await.unwrap();
            let (status, replayed) = (response.status().as_u16(), response.headers().contains_key(REPLAYED_HEADER));
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (status, replayed, String::from_utf8(body.to_vec()).unwrap())
        };
        let send = async |principal: &str, key: &str, body: &str| send_by("POST", principal, key, body).await;
        assert_eq!(send_by("PUT", "ann", "k1", "a").await.0, 405, "the path has no such method, whatever the key");
        assert_eq!(send("ann", "k1", "a").await, (202, false, "a 0".to_owned()));
        assert_eq!(send("ann", "k1", "a").await, (202, true, "a 0".to_owned()));
        assert_eq!(send("bob", "k1", "a").await, (202, false, "a 1".to_owned()), "keys are of one caller");
        assert_eq!(send("ann", "", "a").await.2, "a 2", "without a key");
        let (status, _, text) = send("ann", "k1", "b").await;
        assert!(status == 409 && text.contains("key_of_other_request"), "{text}");
        assert_eq!(send("ann", "k2", "busy").await.0, 503);
        assert_eq!(send("ann", "k2", "busy").await.0, 503, "nothing was done, so that it is repeated");
        assert_eq!(send("ann", "k3", "secret").await.2, "wr_secret");
        let (status, _, text) = send("ann", "k3", "secret").await;
        assert!(status == 409 && text.contains("already_done"), "{text}");
        assert!(!format!("{:?}", kept.lock().unwrap()).contains("wr_secret"));
        assert_eq!(handled.load(Ordering::SeqCst), 6);
        for key in ["with space", &"x".repeat(129)] {
            assert_eq!(send("ann", key, "a").await.0, 400, "{key}");
        }
    }
}
