//! The control API: shows a service, and restarts it, rolls it back or changes a setting.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::supervisor::{Operation, RunningService, Supervisor};
use crate::telemetry::rfc3339;

#[derive(Clone)]
struct Api {
    supervisor: Arc<Supervisor>,
    token: Option<String>,
}

/// Serves the control API if `--control` is given, and returns its address.
///
/// # Errors
/// Returns an error if the token file cannot be read or the address is in use.
pub(crate) async fn listen(supervisor: Arc<Supervisor>) -> anyhow::Result<Option<SocketAddr>> {
    let Some(address) = supervisor.args.control else { return Ok(None) };
    let token = match &supervisor.args.control_token_file {
        Some(file) => Some(std::fs::read_to_string(file)?.trim().to_owned()),
        None => None,
    };
    let listener = tokio::net::TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let app = Router::new()
        .route("/services/{service}", get(show))
        .route("/services/{service}/{operation}", post(operate))
        .with_state(Api { supervisor, token });
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(Some(address))
}

fn refusal(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "error": detail }))).into_response()
}

impl Api {
    fn allowed(&self, headers: &HeaderMap) -> bool {
        let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
        self.token.as_ref().is_none_or(|token| authorization == Some(&format!("Bearer {token}")))
    }

    fn view(&self, service: &RunningService) -> Value {
        json!({ "pid": service.pid, "version": service.version, "previous_version": service.previous,
            "settings": self.supervisor.settings(&service.name), "started_at": rfc3339(service.started_ms),
            "last_key": service.last_key })
    }
}

async fn show(State(api): State<Api>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if !api.allowed(&headers) {
        return refusal(StatusCode::UNAUTHORIZED, "bearer token missing or wrong");
    }
    let services = api.supervisor.services.lock().await;
    match services.iter().find(|service| service.name == name) {
        Some(service) => Json(api.view(service)).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "no such service"),
    }
}

/// The body of a `settings` call.
#[derive(Deserialize)]
struct Setting {
    key: String,
    value: u64,
}

async fn operate(
    State(api): State<Api>,
    Path((name, operation)): Path<(String, String)>,
    headers: HeaderMap,
    body: String,
) -> Response {
    if !api.allowed(&headers) {
        return refusal(StatusCode::UNAUTHORIZED, "bearer token missing or wrong");
    }
    let Ok(operation) = serde_json::from_value::<Operation>(json!(operation)) else {
        return refusal(StatusCode::NOT_FOUND, "operations are restart, rollback and settings");
    };
    let header = |key: &str| headers.get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (Some(key), Some(version)) = (header("idempotency-key"), header("if-match")) else {
        return refusal(StatusCode::PRECONDITION_REQUIRED, "Idempotency-Key and If-Match are required");
    };
    let mut services = api.supervisor.services.lock().await;
    let Some(service) = services.iter_mut().find(|service| service.name == name) else {
        return refusal(StatusCode::NOT_FOUND, "no such service");
    };
    if api.supervisor.args.ignore_control {
        return Json(api.view(service)).into_response();
    }
    if service.last_key.as_deref() == Some(&key) {
        return Json(api.view(service)).into_response();
    }
    if version.trim_matches('"') != service.version {
        return refusal(StatusCode::PRECONDITION_FAILED, "the service has another version");
    }
    let setting = match operation {
        Operation::Settings => match serde_json::from_str::<Setting>(&body) {
            Ok(Setting { key, value }) if api.supervisor.settings(&name).contains_key(&key) => Some((key, value)),
            Ok(_) => return refusal(StatusCode::UNPROCESSABLE_ENTITY, "no such setting"),
            Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        Operation::Rollback if service.previous.is_none() => {
            return refusal(StatusCode::CONFLICT, "no previous version");
        }
        _ => None,
    };
    match api.supervisor.operate(service, operation, setting, &key).await {
        Ok(()) => Json(api.view(service)).into_response(),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
