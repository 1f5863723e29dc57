//! Health, readiness, metrics, the OpenAPI document and its page.

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use wardroom_edge::{Access, Routes};

use crate::backend::Backend;

/// `document` returns the text of the OpenAPI document, `page` the document as a page.
pub(crate) fn routes(backend: &Backend, document: fn() -> Bytes, page: fn() -> Response) -> Routes {
    let [ready_backend, metrics_backend] = std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/health", Access::Public, health)
        .get("/healthz", Access::Public, healthz)
        .get("/readyz", Access::Public, move || readyz(ready_backend.clone()))
        .get("/metrics", Access::Public, move || metrics(metrics_backend.clone()))
        .get("/openapi.json", Access::Public, move || openapi_document(document))
        .get("/reference", Access::Public, move || reference(page))
}

/// That the process runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Liveness {
    /// `ok`.
    status: &'static str,
}

/// Liveness.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "server",
    responses((status = 200, description = "The process runs", body = Liveness)),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn health() -> Json<Liveness> {
    Json(Liveness { status: "ok" })
}

/// Liveness.
#[utoipa::path(
    get, path = "/healthz", operation_id = "healthz", tag = "server",
    responses((status = 200, description = "The process runs", body = Liveness)),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn healthz() -> Json<Liveness> {
    health().await
}

/// Readiness, and what is degraded.
#[utoipa::path(
    get, path = "/readyz", operation_id = "readiness", tag = "server",
    responses((status = 200, description = "Ready, maybe degraded", body = Object),
        (status = 503, description = "Not ready", body = Object)),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn readyz(backend: Backend) -> Response {
    let (ready, document) = (backend.readiness)();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(document)).into_response()
}

/// Metrics in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "serverMetrics", tag = "server",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn metrics(backend: Backend) -> Response {
    ([("content-type", "text/plain; version=0.0.4")], (backend.metrics)()).into_response()
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapiDocument", tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn openapi_document(document: fn() -> Bytes) -> Response {
    ([("content-type", "application/json")], document()).into_response()
}

/// HTML page: this document, to be read in a browser.
#[utoipa::path(
    get, path = "/reference", operation_id = "reference", tag = "server",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
    extensions(("x-access" = json!("public"))),
)]
pub(crate) async fn reference(page: fn() -> Response) -> Response {
    page()
}
