//! The newest deployments of a tenant.
//!
//! Only what fits into a fixed number of bytes is kept: names and short metadata. The tables have all.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Deployment, Labels, Timestamp};

/// Deployments in memory; the oldest are evicted.
const MAX_DEPLOYMENTS: usize = 10_000;
/// Names and metadata of the deployments in memory, in bytes; the oldest are evicted.
const MAX_BYTES: usize = 8 << 20;
/// Metadata kept of one deployment, in bytes of names and values; a pair that does not fit is left out.
const MAX_METADATA_BYTES: usize = 512;

/// The newest deployments, by time. A clone is a view that later deployments do not change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deployments {
    all: Arc<BTreeSet<Deployment>>,
    /// Names and metadata of all.
    bytes: usize,
}

impl Deployments {
    /// Adds a deployment, unless it is known.
    pub(crate) fn insert(&mut self, deployment: &Deployment) {
        let deployment = Deployment {
            at: deployment.at,
            service: deployment.service.clone(),
            version: deployment.version.clone(),
            status: deployment.status.clone(),
            metadata: short_metadata(&deployment.metadata),
        };
        if self.all.contains(&deployment) {
            return;
        }
        self.bytes += bytes_of(&deployment);
        let all = Arc::make_mut(&mut self.all);
        all.insert(deployment);
        while all.len() > MAX_DEPLOYMENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = all.pop_first() else { return };
            self.bytes -= bytes_of(&oldest);
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
        self.all.range(first..).take_while(move |deployment| deployment.at <= to)
    }
}

fn bytes_of(deployment: &Deployment) -> usize {
    let names = deployment.service.len() + deployment.version.len() + deployment.status.len();
    names + deployment.metadata.as_bytes().len()
}

/// Returns the pairs that fit, in order.
fn short_metadata(metadata: &Labels) -> Labels {
    let mut left = MAX_METADATA_BYTES;
    let fits = |(name, value): &(&str, &str)| {
        let rest = left.checked_sub(name.len() + value.len());
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    Labels::new(metadata.iter().filter(fits).collect())
}

/// Serialized as a list.
impl Serialize for Deployments {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&*self.all)
    }
}

impl<'de> Deserialize<'de> for Deployments {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut loaded = Self::default();
        Vec::<Deployment>::deserialize(deserializer)?.iter().for_each(|deployment| loaded.insert(deployment));
        Ok(loaded)
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
        assert_eq!((loaded.all, loaded.bytes), (deployments.all, deployments.bytes));
    }

    #[test]
    fn a_hundred_thousand_deployments_take_little_time_and_the_newest_stay() {
        let (mut deployments, started) = (Deployments::default(), Instant::now());
        for index in 0..100_000 {
            deployments.insert(&deployment(index / 50_000, &format!("v{index:06}")));
        }
        assert!(started.elapsed().as_secs() < MAX_STEP_SECONDS, "{:?}", started.elapsed());
        assert_eq!(deployments.all.len(), MAX_DEPLOYMENTS);
        assert!(deployments.all.first().is_some_and(|oldest| oldest.version == "v090000"));
    }

    #[test]
    fn long_metadata_and_names_take_little_memory_and_a_small_checkpoint() {
        let long = "m".repeat(4096);
        let mut pairs: Vec<(String, String)> = (0..60).map(|index| (format!("k{index}"), long.clone())).collect();
        pairs.extend([("commit".to_owned(), "4711".to_owned()), ("zone".to_owned(), "a".to_owned())]);
        let metadata = Labels::new(pairs);
        let mut deployments = Deployments::default();
        for index in 0..10_000 {
            deployments.insert(&Deployment { metadata: metadata.clone(), ..deployment(index, &format!("v{index}")) });
        }
        assert_eq!(deployments.all.len(), 10_000);
        let short = Labels::of(&[("commit", "4711"), ("zone", "a")]);
        assert!(deployments.all.iter().all(|kept| kept.metadata == short), "short metadata is kept");
        let saved = postcard::to_allocvec(&deployments).unwrap();
        assert!(saved.len() < 1 << 20, "{} bytes", saved.len());

        for index in 10_000..20_000 {
            deployments.insert(&deployment(index, &format!("{index}{long}")));
        }
        let held: usize = deployments.all.iter().map(bytes_of).sum();
        assert_eq!(held, deployments.bytes);
        assert!((MAX_BYTES / 2..=MAX_BYTES).contains(&held), "{held} bytes");
        assert!(deployments.all.last().is_some_and(|newest| newest.version.starts_with("19999")));
        assert!(postcard::to_allocvec(&deployments).unwrap().len() < MAX_BYTES * 2);
    }
}
