//! Requests over plain HTTP.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use wardroom_domain::Identity;
use wardroom_edge::{Problem, read_body};

use crate::intake::endpoint::{Endpoint, process, sender};
use crate::intake::headers::{header_text, media_type};
use crate::source::RequestHead;

/// Handles one request of a source.
pub(crate) async fn receive(endpoint: Arc<Endpoint>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let source = endpoint.source;
    let head = RequestHead {
        content_type: media_type(&parts.headers),
        content_encoding: header_text(&parts.headers, &header::CONTENT_ENCODING),
        received_at: (endpoint.intake.now)(),
    };
    let identity = parts.extensions.get::<Identity>();
    let body = async {
        let unsupported = |detail| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", detail);
        source.check_head(&head).map_err(unsupported)?;
        read_body(&parts, body, &endpoint.intake.edge, &endpoint.intake.bodies, sender(identity)?).await
    };
    match process(&endpoint, identity, &head, body).await {
        Ok(outcome) => source.success_response(&head, &outcome),
        Err(problem) => source.error_response(&head, problem),
    }
}
