//! A server that is a supervisor, Vault, a collector and an object store at once, and repeats what it was sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A running server.
pub(super) struct HostileTarget {
    pub(super) url: String,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    /// What Vault has.
    password: String,
    vault_token: String,
    /// Requests with a credential.
    uses: AtomicU64,
}

impl HostileTarget {
    pub(super) fn start(password: String, vault_token: String) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let shared = Arc::new(Shared { password, vault_token, uses: AtomicU64::new(0) });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = runtime.block_on(tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let url = format!("http://{}", listener.local_addr()?);
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, shared, _runtime: runtime })
    }

    /// Number of requests that had a credential.
    pub(super) fn uses(&self) -> u64 {
        self.shared.uses.load(Ordering::Acquire)
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let is_used = !header("authorization").is_empty() || !header("x-vault-token").is_empty();
    shared.uses.fetch_add(u64::from(is_used), Ordering::AcqRel);
    let path = uri.path();
    if path == "/v1/secret/data/planted" && header("x-vault-token") == shared.vault_token {
        let body = json!({ "data": { "data": { "password": shared.password }, "metadata": { "version": 1 } } });
        return axum::Json(body).into_response();
    }
    let is_supervisor = path.starts_with("/good/") || path.starts_with("/late/") && method == Method::GET;
    if is_supervisor {
        // The secret is also in the state that the tool reads.
        let settings = json!({ "command": format!("--token={}", header("authorization")) });
        let body = json!({ "version": "1.0.0", "previous_version": null, "settings": settings, "last_key": null });
        return axum::Json(body).into_response();
    }
    let repeated: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    let text = format!("<Error><Code>Refused</Code>{method} {uri}\n{}\n{body:?}</Error>", repeated.join("\n"));
    (StatusCode::FORBIDDEN, text).into_response()
}
