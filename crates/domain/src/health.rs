//! Health figures of a service.

use crate::entity::Entity;

/// Health of a service within a time window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceHealth {
    /// The service or workload.
    pub entity: Entity,
    /// Average requests per second.
    pub requests: Option<f64>,
    /// Average share of failed requests, 0..1.
    pub errors: Option<f64>,
    /// Highest 99th percentile of the request duration, in seconds.
    pub latency_p99: Option<f64>,
    /// Highest CPU usage as a share of the limit, 0..1.
    pub cpu: Option<f64>,
    /// Highest memory usage as a share of the limit, 0..1.
    pub memory: Option<f64>,
    /// Number of signals currently in breach.
    pub breaches: u32,
}
