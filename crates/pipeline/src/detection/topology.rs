//! Service topology from client histograms and spans.

use wardroom_correlate::Topology;
use wardroom_detect::Engine;

/// Returns which service calls which.
pub fn service_topology(engine: &Engine) -> Topology {
    let mut topology = Topology::new();
    for (key, _) in engine.signals() {
        if let Some(peer) = &key.peer {
            topology.entry(key.service.clone()).or_default().insert(peer.clone());
        }
    }
    topology
}
