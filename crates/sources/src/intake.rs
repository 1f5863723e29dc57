//! Request handling for all sources: from HTTP or gRPC to a durable record on the bus.

pub(crate) mod byte_rate_limiter;
pub(crate) mod endpoint;
mod grpc;
mod headers;
mod http;
mod large_bodies;
mod limits;
pub(crate) mod redrive;
pub(crate) mod request_events;

use std::sync::Arc;

use axum::extract::Request;
use wardroom_edge::{Access, Routes};

use self::endpoint::{Endpoint, Intake};
use crate::registry::SOURCES;

/// Returns the routes of all sources. Their metrics are registered here, so the recorder must be installed before.
pub fn routes(intake: &Intake) -> Routes {
    SOURCES.iter().fold(Routes::new(), |mut routes, source| {
        let endpoint = Arc::new(Endpoint::new(intake, *source));
        if let Some(path) = source.grpc_path() {
            let endpoint = Arc::clone(&endpoint);
            let handler = move |request: Request| grpc::receive(Arc::clone(&endpoint), request);
            routes = routes.post(path, Access::Send, handler);
        }
        routes.post(source.path(), Access::Send, move |request: Request| http::receive(Arc::clone(&endpoint), request))
    })
}
