//! The runbooks of `runbooks/`, compiled into the binary.

/// File name and text of every built-in runbook. `cargo xtask tidy` compares this list with the folder.
pub const BUILTIN_RUNBOOKS: &[(&str, &str)] = &[
    (
        "connection-pool-exhausted-by-release.md",
        include_str!("../../../runbooks/connection-pool-exhausted-by-release.md"),
    ),
    ("connection-pool-exhausted.md", include_str!("../../../runbooks/connection-pool-exhausted.md")),
    ("cpu-saturated-by-release.md", include_str!("../../../runbooks/cpu-saturated-by-release.md")),
    ("cpu-saturated.md", include_str!("../../../runbooks/cpu-saturated.md")),
    ("descriptors-leak-since-release.md", include_str!("../../../runbooks/descriptors-leak-since-release.md")),
    ("descriptors-leak.md", include_str!("../../../runbooks/descriptors-leak.md")),
    ("failing-requests.md", include_str!("../../../runbooks/failing-requests.md")),
    ("failing-since-release.md", include_str!("../../../runbooks/failing-since-release.md")),
    ("memory-grows-since-release.md", include_str!("../../../runbooks/memory-grows-since-release.md")),
    ("memory-grows.md", include_str!("../../../runbooks/memory-grows.md")),
    ("queue-backlog-since-release.md", include_str!("../../../runbooks/queue-backlog-since-release.md")),
    ("queue-backlog.md", include_str!("../../../runbooks/queue-backlog.md")),
    ("setting-changed.md", include_str!("../../../runbooks/setting-changed.md")),
    ("slow-dependency.md", include_str!("../../../runbooks/slow-dependency.md")),
    ("slow-since-release.md", include_str!("../../../runbooks/slow-since-release.md")),
    ("target-down.md", include_str!("../../../runbooks/target-down.md")),
];
