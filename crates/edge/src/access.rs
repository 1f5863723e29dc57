//! Routes that cannot be mounted without saying who may use them.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, get, post};
use wardroom_domain::AccessRole;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody: health and the like.
    Public,
    /// Roles that may write telemetry.
    Send,
    /// Roles that may read.
    Read,
    /// Roles that may approve, reject and judge.
    Respond,
}

impl Access {
    /// The word, as it stands in the API's description.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Send => "send",
            Self::Read => "read",
            Self::Respond => "respond",
        }
    }

    /// Whether a role is enough.
    pub const fn allows(self, role: AccessRole) -> bool {
        match self {
            Self::Public => true,
            Self::Send => role.may_send(),
            Self::Read => role.may_read(),
            Self::Respond => role.may_respond(),
        }
    }
}

/// One route, for tests and documentation that walk them all.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// With placeholders, as matched.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
}

/// A set of routes with the access each asks for.
#[derive(Debug, Default)]
pub struct Routes {
    pub(crate) parts: Vec<(Route, MethodRouter)>,
}

impl Routes {
    /// No routes yet.
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

    /// Both sets.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// What is in it.
    pub fn list(&self) -> Vec<Route> {
        self.parts.iter().map(|(route, _)| *route).collect()
    }

    fn add(mut self, route: Route, handler: MethodRouter) -> Self {
        self.parts.push((route, handler));
        self
    }

    pub(crate) fn into_router(self, guard: impl Fn(Route, MethodRouter) -> MethodRouter) -> Router {
        self.parts
            .into_iter()
            .fold(Router::new(), |router, (route, handler)| router.route(route.path, guard(route, handler)))
    }
}
