//! Names of services, metrics and settings, and log texts: the defaults, or others with `--names-seed`.
//!
//! A monitoring system must not depend on the shop's names, so all of them can be changed without changing the
//! behaviour.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// A service's function, independent of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Storefront,
    Cart,
    Catalogue,
    Payments,
    Database,
    Queue,
    Fulfilment,
    Newsletter,
    /// A database without telemetry of its own, over TCP.
    Ledger,
}

impl Role {
    pub(crate) const ALL: [Self; 9] = [
        Self::Ledger,
        Self::Database,
        Self::Queue,
        Self::Cart,
        Self::Catalogue,
        Self::Payments,
        Self::Fulfilment,
        Self::Storefront,
        Self::Newsletter,
    ];

    /// The name without `--names-seed`.
    pub(crate) const fn default_name(self) -> &'static str {
        match self {
            Self::Storefront => "storefront",
            Self::Cart => "cart",
            Self::Catalogue => "catalogue",
            Self::Payments => "payments",
            Self::Database => "database",
            Self::Queue => "queue",
            Self::Fulfilment => "fulfilment",
            Self::Newsletter => "newsletter",
            Self::Ledger => "ledger",
        }
    }

    /// The services that it calls.
    pub(crate) const fn calls(self) -> &'static [Self] {
        match self {
            Self::Storefront => &[Self::Cart, Self::Catalogue, Self::Payments],
            Self::Cart | Self::Catalogue => &[Self::Database],
            Self::Payments => &[Self::Database, Self::Queue],
            Self::Fulfilment => &[Self::Queue],
            Self::Database | Self::Queue | Self::Newsletter | Self::Ledger => &[],
        }
    }
}

/// All names and texts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Names {
    services: Vec<(Role, String)>,
    pub(crate) prefix: String,
    pub(crate) timeout_key: String,
    pub(crate) rate_key: String,
    pub(crate) pool_key: String,
    pub(crate) no_connection: String,
    pub(crate) upstream_failed: String,
    pub(crate) rate_limited: String,
    pub(crate) queue_refused: String,
    pub(crate) handled_slowly: String,
    pub(crate) reloaded: String,
    pub(crate) served: String,
    pub(crate) request_failed: String,
    pub(crate) no_descriptor: String,
}

impl Names {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let text = |s: &str| s.to_owned();
        let Some(seed) = seed else {
            return Self {
                services: Role::ALL.map(|role| (role, text(role.default_name()))).to_vec(),
                prefix: text("shop"),
                timeout_key: text("client_timeout_ms"),
                rate_key: text("max_requests_per_second"),
                pool_key: text("pool_size"),
                no_connection: text("no connection became free within"),
                upstream_failed: text("call failed"),
                rate_limited: text("request refused, over the configured rate"),
                queue_refused: text("message refused"),
                handled_slowly: text("message took long"),
                reloaded: text("configuration reloaded"),
                served: text("request served"),
                request_failed: text("request failed: invalid state"),
                no_descriptor: text("too many open files"),
            };
        };
        let mut random = StdRng::seed_from_u64(seed ^ 0x6e61_6d65);
        let mut pick = |words: &[&str]| words[random.random_range(0..words.len())].to_owned();
        let mut word = || {
            let (head, tail) =
                (["al", "bo", "cru", "del", "fen", "gar", "hol", "ki"], ["ba", "dor", "mi", "nex", "ral", "to"]);
            format!("{}{}{}", pick(&head), pick(&tail), pick(&["", "n", "s", "-svc", "-api"]))
        };
        let mut services: Vec<(Role, String)> = Vec::new();
        for role in Role::ALL {
            let mut name = word();
            while services.iter().any(|(_, known)| *known == name) {
                name = word();
            }
            services.push((role, name));
        }
        let prefix = word().replace('-', "_");
        Self {
            services,
            prefix,
            timeout_key: pick(&["upstream.deadline", "rpc_budget_ms", "callDeadlineMillis"]),
            rate_key: pick(&["admission.limit", "rps_cap", "throttle_per_s"]),
            pool_key: pick(&["conns.max", "slots", "maxOpen"]),
            no_connection: pick(&["gave up waiting for a slot after", "all slots busy for"]),
            upstream_failed: pick(&["could not reach", "remote side did not answer"]),
            rate_limited: pick(&["turned away by admission control", "shed a caller"]),
            queue_refused: pick(&["no room left for an item", "put rejected"]),
            handled_slowly: pick(&["handler needed long", "item dragged on"]),
            reloaded: pick(&["new options in force", "options re-read"]),
            served: pick(&["done", "handled"]),
            request_failed: pick(&["unhandled exception in handler", "assertion failed"]),
            no_descriptor: pick(&["EMFILE", "cannot open another file"]),
        }
    }

    /// The name of a service.
    pub(crate) fn name_of(&self, role: Role) -> &str {
        self.services.iter().find(|(known, _)| *known == role).map_or("", |(_, name)| name)
    }

    /// The service with a name.
    pub(crate) fn role(&self, name: &str) -> Option<Role> {
        self.services.iter().find(|(_, known)| known == name).map(|(role, _)| *role)
    }
}
