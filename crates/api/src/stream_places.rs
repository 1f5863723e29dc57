//! Places for open streams: limited for each principal and each tenant, so that one cannot take all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use wardroom_domain::{Identity, TenantId};
use wardroom_edge::Problem;

use crate::resources_backend::StreamLimits;

/// When a client may try again, in seconds.
const RETRY_SECONDS: f64 = 5.0;

/// The places of a server; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct StreamPlaces {
    limits: StreamLimits,
    /// Number of open streams of each principal.
    open: Arc<Mutex<BTreeMap<(TenantId, String), usize>>>,
}

/// A place that is taken until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    places: StreamPlaces,
    of: (TenantId, String),
}

impl StreamPlaces {
    pub(crate) fn new(limits: StreamLimits) -> Self {
        Self { limits, open: Arc::default() }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// Returns 429 if the caller, its tenant or all have as many as they may.
    pub(crate) fn take(&self, caller: &Identity) -> Result<StreamPlace, Problem> {
        let of = (caller.tenant.clone(), caller.principal.to_string());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.get(&of).copied().unwrap_or_default();
        let of_tenant: usize = open.iter().filter(|((tenant, _), _)| *tenant == of.0).map(|(_, count)| count).sum();
        let all: usize = open.values().sum();
        let StreamLimits { total, per_tenant, per_principal } = self.limits;
        for (count, limit, whose, setting) in [
            (own, per_principal, caller.principal.to_string(), "edge.max-streams-per-principal"),
            (of_tenant, per_tenant, format!("the tenant {}", caller.tenant), "edge.max-streams-per-tenant"),
            (all, total, "this server".to_owned(), "edge.max-streams"),
        ] {
            if count >= limit {
                let detail = format!("{whose} has {limit} open streams; close some, or raise {setting}");
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", detail);
                return Err(problem.retry_after(RETRY_SECONDS));
            }
        }
        *open.entry(of.clone()).or_default() += 1;
        drop(open);
        Ok(StreamPlace { places: self.clone(), of })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.places.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{AccessRole, Principal};

    use super::*;

    #[test]
    fn no_principal_and_no_tenant_takes_all_places() {
        let places = StreamPlaces::new(StreamLimits { total: 6, per_tenant: 4, per_principal: 3 });
        let take = |tenant: &str, principal: &str| {
            let (tenant, principal) = (TenantId::new(tenant).unwrap(), Principal::new(principal).unwrap());
            places.take(&Identity { tenant, principal, role: AccessRole::Viewer })
        };
        let mut held: Vec<_> = (0..3).map(|_| take("main", "ann").unwrap()).collect();
        let refused = take("main", "ann").unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.code()), (429, "too_many_streams"));
        assert!(refused.detail().contains("edge.max-streams-per-principal"), "{}", refused.detail());
        held.push(take("main", "bob").unwrap());
        assert!(take("main", "eve").unwrap_err().detail().contains("edge.max-streams-per-tenant"));
        held.extend(["ann", "bob"].map(|name| take("other", name).unwrap()));
        assert!(take("third", "ann").unwrap_err().detail().contains("edge.max-streams"));
        held.remove(0);
        assert!(take("main", "ann").is_ok(), "a place that is given back is free");
        drop(held);
        assert!(places.open.lock().unwrap().is_empty());
    }
}
