//! Health, readiness, metrics and the OpenAPI document.

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;
use wardroom_edge::{Access, Routes};

use crate::backend::Backend;
use crate::openapi;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let (readiness, metrics) = (backend.readiness.clone(), backend.metrics.clone());
    let liveness = || async { Json(json!({ "status": "ok" })) };
    Routes::new()
        .get("/health", Access::Public, liveness)
        .get("/healthz", Access::Public, liveness)
        .get("/readyz", Access::Public, move || async move {
            let (ready, document) = readiness();
            (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(document))
        })
        .get("/metrics", Access::Public, move || async move {
            ([("content-type", "text/plain; version=0.0.4")], metrics()).into_response()
        })
        .get("/openapi.json", Access::Public, || async {
            ([("content-type", "application/json")], openapi::document_text())
        })
}
