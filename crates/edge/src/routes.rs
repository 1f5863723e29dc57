//! Routes, each with the access level it requires.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};
use wardroom_domain::AccessRole;

/// The access level that a route requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No credential: health checks and the like.
    Public,
    /// A role that may write telemetry.
    Send,
    /// A role that may read.
    Read,
    /// A role that may approve, reject and rate incidents.
    Respond,
    /// A role that may do everything: tokens, the audit log, the configuration.
    Admin,
}

impl Access {
    /// Returns the name used in the API description.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Send => "send",
            Self::Read => "read",
            Self::Respond => "respond",
            Self::Admin => "admin",
        }
    }

    /// Returns whether the role has this access level.
    pub const fn allows(self, role: AccessRole) -> bool {
        match self {
            Self::Public => true,
            Self::Send => role.may_send(),
            Self::Read => role.may_read(),
            Self::Respond => role.may_respond(),
            Self::Admin => matches!(role, AccessRole::Admin),
        }
    }
}

/// One route, as listed for tests and documentation.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The path pattern, with placeholders.
    pub path: &'static str,
    /// The required access level.
    pub access: Access,
}

/// A set of routes with their handlers.
#[derive(Debug, Default)]
pub struct Routes {
    pub(crate) parts: Vec<(Route, MethodRouter)>,
}

impl Routes {
    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a `GET` route.
    #[must_use]
    pub fn get<H: Handler<T, ()>, T: 'static>(self, path: &'static str, access: Access, handler: H) -> Self {
        self.add(Route { method: "GET", path, access }, get(handler))
    }

    /// Adds a `POST` route.
    #[must_use]
    pub fn post<H: Handler<T, ()>, T: 'static>(self, path: &'static str, access: Access, handler: H) -> Self {
        self.add(Route { method: "POST", path, access }, post(handler))
    }

    /// Adds all routes of another set.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// Changes the handler of each route, for example adds a layer.
    #[must_use]
    pub fn map(self, change: impl Fn(Route, MethodRouter) -> MethodRouter) -> Self {
        let parts = self.parts.into_iter().map(|(route, handler)| (route, change(route, handler)));
        Self { parts: parts.collect() }
    }

    /// Returns the routes.
    pub fn list(&self) -> Vec<Route> {
        self.parts.iter().map(|(route, _)| *route).collect()
    }

    fn add(mut self, route: Route, handler: MethodRouter) -> Self {
        self.parts.push((route, handler));
        self
    }

    /// Builds the router; `guard` adds the access check to each handler.
    pub(crate) fn into_router(self, guard: impl Fn(Route, MethodRouter) -> MethodRouter) -> Router {
        self.parts
            .into_iter()
            .fold(Router::new(), |router, (route, handler)| router.route(route.path, guard(route, handler)))
    }
}
