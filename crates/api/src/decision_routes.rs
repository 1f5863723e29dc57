//! Routes of people's decisions on an incident: all take its id, `If-Match` and a JSON body.

use std::future::Future;

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use wardroom_edge::{Access, Routes};

use crate::backend::Backend;
use crate::request::{Caller, JsonBody};

/// Routes with one backend.
pub(crate) struct DecisionRoutes {
    backend: Backend,
    routes: Routes,
}

impl DecisionRoutes {
    pub(crate) fn new(backend: &Backend) -> Self {
        Self { backend: backend.clone(), routes: Routes::new() }
    }

    /// Adds the route of a decision.
    #[must_use]
    pub(crate) fn post<B, F, R>(
        self,
        path: &'static str,
        decide: impl Fn(Backend, Caller, Path<String>, HeaderMap, JsonBody<B>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        B: DeserializeOwned + Send + 'static,
        F: Future<Output = R> + Send + 'static,
        R: IntoResponse + 'static,
    {
        let backend = self.backend.clone();
        let handler = move |caller: Caller, id: Path<String>, headers: HeaderMap, body: JsonBody<B>| {
            decide(backend.clone(), caller, id, headers, body)
        };
        Self { routes: self.routes.post(path, Access::Respond, handler), ..self }
    }

    /// Returns the routes.
    pub(crate) fn routes(self) -> Routes {
        self.routes
    }
}
