//! Health, readiness, metrics and the API's own description.

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::json;
use wardroom_edge::{Access, Routes};

use crate::backend::Backend;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let (ready, metrics) = (backend.ready.clone(), backend.metrics.clone());
    let alive = || async { Json(json!({ "status": "ok" })) };
    Routes::new()
        .get("/health", Access::Public, alive)
        .get("/healthz", Access::Public, alive)
        .get("/readyz", Access::Public, move || async move {
            let (ready, document) = ready();
            (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(document))
        })
        .get("/metrics", Access::Public, move || async move {
            ([("content-type", "text/plain; version=0.0.4")], metrics()).into_response()
        })
        .get("/openapi.json", Access::Public, || async { Json(crate::document()) })
}
