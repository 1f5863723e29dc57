//! Counterparts of tools for which no real one can run here: servers made from what the vendors publish.

pub(crate) mod beacon_chain;
pub(crate) mod github_repository;
pub(crate) mod google_cloud;
pub(crate) mod kubernetes_cluster;
