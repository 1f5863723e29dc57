//! The newest deployments of a tenant.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Deployment, Labels, Timestamp};

/// Deployments in memory; the oldest are evicted.
const MAX_DEPLOYMENTS: usize = 10_000;

/// The newest deployments, by time. A clone is a view that later deployments do not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deployments(Arc<BTreeSet<Deployment>>);

impl Deployments {
    /// Adds a deployment, unless it is known.
    pub(crate) fn insert(&mut self, deployment: &Deployment) {
        if self.0.contains(deployment) {
            return;
        }
        let all = Arc::make_mut(&mut self.0);
        all.insert(deployment.clone());
        if all.len() > MAX_DEPLOYMENTS {
            all.pop_first();
        }
    }

    /// Returns the deployments in a time range, oldest first.
    pub(crate) fn between(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Deployment> {
        let first = Deployment {
            at: from,
            service: String::new(),
            version: String::new(),
            status: String::new(),
            metadata: Labels::default(),
        };
        self.0.range(first..).take_while(move |deployment| deployment.at <= to)
    }
}

/// Serialized as a list.
impl Serialize for Deployments {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&*self.0)
    }
}

impl<'de> Deserialize<'de> for Deployments {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::new(Vec::deserialize(deserializer)?.into_iter().collect())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Limit for a step that took ten times as long; far above a second, because tests run on busy machines.
    const MAX_STEP_SECONDS: u64 = 10;

    fn deployment(at_ms: i64, version: &str) -> Deployment {
        Deployment {
            at: Timestamp::from_millis(at_ms),
            service: "a".into(),
            version: version.into(),
            status: "success".into(),
            metadata: Labels::default(),
        }
    }

    #[test]
    fn returns_a_time_range_without_duplicates() {
        let mut deployments = Deployments::default();
        for (at_ms, version) in [(3000, "c"), (1000, "a"), (2000, "b"), (1000, "a"), (2000, "b2")] {
            deployments.insert(&deployment(at_ms, version));
        }
        let between = |from: i64, to: i64| {
            let found = deployments.between(Timestamp::from_millis(from), Timestamp::from_millis(to));
            found.map(|deployment| deployment.version.clone()).collect::<Vec<_>>()
        };
        assert_eq!(between(1000, 2000), ["a", "b", "b2"]);
        assert_eq!(between(1001, 9000), ["b", "b2", "c"]);
        let bytes = postcard::to_allocvec(&deployments).unwrap();
        let loaded: Deployments = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(loaded.0, deployments.0);
    }

    #[test]
    fn a_hundred_thousand_deployments_take_little_time_and_the_newest_stay() {
        let (mut deployments, started) = (Deployments::default(), Instant::now());
        for index in 0..100_000 {
            deployments.insert(&deployment(index / 50_000, &format!("v{index:06}")));
        }
        assert!(started.elapsed().as_secs() < MAX_STEP_SECONDS, "{:?}", started.elapsed());
        assert_eq!(deployments.0.len(), MAX_DEPLOYMENTS);
        assert!(deployments.0.first().is_some_and(|oldest| oldest.version == "v090000"));
    }
}
