//! A supervisor of any number of services, with the control API of the tool `process`, that counts what is done to them
//! and can stop answering for some of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// A running supervisor.
pub(super) struct ControlApi {
    /// Base URL.
    pub(super) url: String,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

/// What the requests share.
#[derive(Default)]
struct Shared(Mutex<Services>);

#[derive(Default)]
struct Services {
    /// Key of the last operation of each service.
    last_keys: BTreeMap<String, String>,
    /// When each service was restarted.
    effects: BTreeMap<String, Vec<Instant>>,
    /// Services that do not answer, with the number of requests that wait or waited.
    hanging: BTreeSet<String>,
    unanswered: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Services> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlApi {
    /// Starts it on a free port.
    pub(super) fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .route("/services/{service}", get(show))
            .route("/services/{service}/restart", post(restart))
            .with_state(Arc::clone(&shared));
        let listener = runtime.block_on(tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let url = format!("http://{}", listener.local_addr()?);
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Self { url, shared, _runtime: runtime })
    }

    /// The service as a target of the executor's file.
    pub(super) fn target(&self, service: &str) -> String {
        format!("  - tool: process\n    name: {service}\n    url: {}\n    token: control\n", self.url)
    }

    /// From now on no request about this service is answered.
    pub(super) fn hang(&self, service: &str) {
        self.shared.lock().hanging.insert(service.to_owned());
    }

    /// Number of requests that were not answered.
    pub(super) fn unanswered(&self) -> u64 {
        self.shared.lock().unanswered
    }

    /// When a service was restarted.
    pub(super) fn effects(&self, service: &str) -> Vec<Instant> {
        self.shared.lock().effects.get(service).cloned().unwrap_or_default()
    }
}

impl Services {
    fn view(&self, service: &str) -> Value {
        json!({ "version": "1.0.0", "previous_version": null, "settings": {}, "last_key": self.last_keys.get(service) })
    }
}

/// Never returns for a service that hangs.
async fn wait_if_hanging(shared: &Shared, service: &str) {
    let is_hanging = {
        let mut services = shared.lock();
        let is_hanging = services.hanging.contains(service);
        services.unanswered += u64::from(is_hanging);
        is_hanging
    };
    if is_hanging {
        std::future::pending::<()>().await;
    }
}

async fn show(State(shared): State<Arc<Shared>>, Path(service): Path<String>) -> Json<Value> {
    wait_if_hanging(&shared, &service).await;
    Json(shared.lock().view(&service))
}

async fn restart(
    State(shared): State<Arc<Shared>>,
    Path(service): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    let at = Instant::now();
    wait_if_hanging(&shared, &service).await;
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let key = key.ok_or(StatusCode::PRECONDITION_REQUIRED)?.to_owned();
    let mut services = shared.lock();
    if services.last_keys.get(&service) != Some(&key) {
        services.last_keys.insert(service.clone(), key);
        services.effects.entry(service.clone()).or_default().push(at);
    }
    Ok(Json(services.view(&service)))
}
