//! The kinds of faults, the services that they can be injected into, and what they change in a process.

use serde::{Deserialize, Serialize};

use crate::names::Role;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    ConnectionLeak,
    CpuHog,
    MemoryLeak,
    BadSetting,
    SlowDependency,
    QueueFull,
    FailingRequests,
    DescriptorLeak,
}

impl FaultKind {
    pub(crate) const ALL: [Self; 8] = [
        Self::ConnectionLeak,
        Self::CpuHog,
        Self::MemoryLeak,
        Self::BadSetting,
        Self::SlowDependency,
        Self::QueueFull,
        Self::FailingRequests,
        Self::DescriptorLeak,
    ];

    /// Services that it can be injected into.
    pub(crate) const fn targets(self) -> &'static [Role] {
        match self {
            Self::ConnectionLeak => &[Role::Storefront, Role::Cart, Role::Catalogue, Role::Payments],
            Self::CpuHog | Self::MemoryLeak | Self::FailingRequests | Self::DescriptorLeak => {
                &[Role::Storefront, Role::Cart, Role::Catalogue, Role::Payments, Role::Database]
            }
            Self::BadSetting => &[Role::Cart, Role::Catalogue, Role::Payments, Role::Database, Role::Storefront],
            Self::SlowDependency => &[Role::Cart, Role::Catalogue, Role::Payments, Role::Database],
            Self::QueueFull => &[Role::Fulfilment],
        }
    }
}

/// Faulty behaviour of a process; a healthy one has all fields false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Behaviour {
    /// Connections are taken from the pool and not returned.
    pub(crate) leak_connections: bool,
    /// A background thread uses most of the service's CPU share.
    pub(crate) spin_cpu: bool,
    /// Memory is allocated up to the limit and not freed.
    pub(crate) leak_memory: bool,
    /// Every request takes about a second longer.
    pub(crate) slow: bool,
    /// Handling a message takes more than a second.
    pub(crate) stall: bool,
    /// Two of five requests fail.
    pub(crate) fail: bool,
    /// File descriptors are opened and not closed.
    pub(crate) leak_descriptors: bool,
}

impl Behaviour {
    /// The behaviour that a fault causes; none for a bad setting.
    pub(crate) const fn of_fault(kind: FaultKind) -> Self {
        let mut behaviour = Self {
            leak_connections: false,
            spin_cpu: false,
            leak_memory: false,
            slow: false,
            stall: false,
            fail: false,
            leak_descriptors: false,
        };
        match kind {
            FaultKind::ConnectionLeak => behaviour.leak_connections = true,
            FaultKind::CpuHog => behaviour.spin_cpu = true,
            FaultKind::MemoryLeak => behaviour.leak_memory = true,
            FaultKind::SlowDependency => behaviour.slow = true,
            FaultKind::QueueFull => behaviour.stall = true,
            FaultKind::FailingRequests => behaviour.fail = true,
            FaultKind::DescriptorLeak => behaviour.leak_descriptors = true,
            FaultKind::BadSetting => {}
        }
        behaviour
    }

    /// The union of two behaviours.
    pub(crate) const fn union(self, other: Self) -> Self {
        Self {
            leak_connections: self.leak_connections || other.leak_connections,
            spin_cpu: self.spin_cpu || other.spin_cpu,
            leak_memory: self.leak_memory || other.leak_memory,
            slow: self.slow || other.slow,
            stall: self.stall || other.stall,
            fail: self.fail || other.fail,
            leak_descriptors: self.leak_descriptors || other.leak_descriptors,
        }
    }
}
