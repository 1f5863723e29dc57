//! The names of Nezha's pods.

use wardroom_domain::Entity;

/// Returns the service of a pod: its name without the two hashes of its ReplicaSet.
pub(super) fn service_of(pod: &str) -> Entity {
    let name = pod.rsplitn(3, '-').nth(2).unwrap_or(pod);
    Entity::service(name)
}
