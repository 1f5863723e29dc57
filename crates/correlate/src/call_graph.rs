//! The call graph, reduced to what correlation asks: whether two services are connected.

use std::collections::{BTreeMap, BTreeSet};

/// Which services are connected by calls, in either direction and over any number of steps.
///
/// Problem: breaches come in bursts in which every service of an outage has one, and following the calls for each would
/// cost the square of their number. Model: each service of the graph has the number of its connected component,
/// computed once for a state of the graph; a service without calls is connected to itself only.
#[derive(Clone, Debug, Default)]
pub struct CallGraph {
    version: u64,
    components: BTreeMap<String, u32>,
}

impl CallGraph {
    /// Builds a graph from pairs of caller and callee. `version` identifies the state of the graph: two graphs of one
    /// tenant with equal versions are equal.
    pub fn new<'a>(version: u64, calls: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut ids: BTreeMap<&str, u32> = BTreeMap::new();
        let mut sets = DisjointSets::default();
        for (caller, callee) in calls {
            let [caller, callee] = [caller, callee].map(|name| *ids.entry(name).or_insert_with(|| sets.add()));
            sets.join(caller, callee);
        }
        let components = ids.into_iter().map(|(name, id)| (name.to_owned(), sets.find(id))).collect();
        Self { version, components }
    }

    /// Returns the version that the graph was built with.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the number of a service's component; `None` if it has no calls.
    pub(crate) fn component(&self, service: &str) -> Option<u32> {
        self.components.get(service).copied()
    }

    /// Returns the services connected to any of these, including themselves.
    pub fn connected_to<'a>(&'a self, services: &'a [String]) -> ConnectedServices<'a> {
        let components = services.iter().filter_map(|service| self.component(service)).collect();
        ConnectedServices { graph: self, services, components }
    }
}

/// The services connected to some others.
#[derive(Clone, Debug)]
pub struct ConnectedServices<'a> {
    graph: &'a CallGraph,
    services: &'a [String],
    components: BTreeSet<u32>,
}

impl ConnectedServices<'_> {
    /// Returns whether a service is one of them.
    pub fn contains(&self, service: &str) -> bool {
        match self.graph.component(service) {
            Some(component) => self.components.contains(&component),
            None => self.services.iter().any(|known| known == service),
        }
    }
}

/// Sets that are joined, each named by one of its members.
#[derive(Debug, Default)]
struct DisjointSets {
    parents: Vec<u32>,
}

impl DisjointSets {
    fn add(&mut self) -> u32 {
        let id = self.parents.len() as u32;
        self.parents.push(id);
        id
    }

    fn find(&mut self, mut id: u32) -> u32 {
        while self.parents[id as usize] != id {
            // Halving the path keeps later searches short.
            let parent = self.parents[id as usize];
            self.parents[id as usize] = self.parents[parent as usize];
            id = parent;
        }
        id
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        self.parents[a.max(b) as usize] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Limit for a step that took minutes; far above a second, because tests run without optimisation on busy machines.
    const MAX_STEP_SECONDS: u64 = 20;

    #[test]
    fn services_are_connected_over_any_number_of_calls_in_either_direction() {
        let calls = [("front", "back"), ("back", "base"), ("batch", "base"), ("x", "y"), ("y", "x")];
        let graph = CallGraph::new(1, calls);
        for service in ["front", "back", "base", "batch"] {
            let services = [service.to_owned()];
            let connected = graph.connected_to(&services);
            assert!(["front", "back", "base", "batch"].iter().all(|other| connected.contains(other)), "{service}");
            assert!(!connected.contains("x") && !connected.contains("alone"));
        }
        let services = ["alone".to_owned(), "x".to_owned()];
        let connected = graph.connected_to(&services);
        assert!(connected.contains("alone") && connected.contains("y") && !connected.contains("front"));
        assert!(!connected.contains("lonely"));
    }

    #[test]
    fn a_chain_of_ten_thousand_services_takes_little_time() {
        let names: Vec<String> = (0..=10_000).map(|index| format!("service-{index}")).collect();
        let started = Instant::now();
        let graph = CallGraph::new(1, names.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str())));
        assert!(graph.connected_to(&names[..1]).contains(&names[10_000]));
        assert!(started.elapsed().as_secs() < MAX_STEP_SECONDS, "{:?}", started.elapsed());
    }
}
