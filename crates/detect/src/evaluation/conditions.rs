//! Resources of availability: members that serve, and conditions that hold or fail.

/// Resource of an exporter's own availability.
pub(super) const EXPORTER: &str = "exporter";
/// Resource of the number of processes of a group.
pub(super) const PROCESSES: &str = "processes";
/// Resources that are members which serve; others are conditions, such as a synchronised clock, of which some are never
/// met.
const MEMBERS: [&str; 13] = [
    "",
    EXPORTER,
    PROCESSES,
    "probe",
    "backend",
    "servers",
    "hosts",
    "members",
    "brokers",
    "node",
    "replicas",
    "pods",
    "containers",
];

/// Returns whether a resource is a condition, not members that serve.
pub(super) fn is_condition(resource: &str) -> bool {
    !MEMBERS.contains(&resource)
}
