//! What breaks, where, when, and which one action heals it.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::RunArgs;
use crate::names::{Names, Role};

/// The ways to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    ConnectionLeak,
    CpuHog,
    MemoryLeak,
    BadSetting,
    SlowDependency,
    QueueFull,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::ConnectionLeak, Self::CpuHog, Self::MemoryLeak, Self::BadSetting, Self::SlowDependency, Self::QueueFull];

    /// Services it can strike.
    const fn strikes(self) -> &'static [Role] {
        match self {
            Self::ConnectionLeak => &[Role::Storefront, Role::Cart, Role::Catalogue, Role::Payments],
            Self::CpuHog | Self::MemoryLeak => {
                &[Role::Storefront, Role::Cart, Role::Catalogue, Role::Payments, Role::Database]
            }
            Self::BadSetting => &[Role::Cart, Role::Catalogue, Role::Payments, Role::Database, Role::Storefront],
            Self::SlowDependency => &[Role::Cart, Role::Catalogue, Role::Payments, Role::Database],
            Self::QueueFull => &[Role::Fulfilment],
        }
    }
}

/// What a process does wrong. All false is a healthy one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Behaviour {
    pub(crate) keep_connections: bool,
    pub(crate) spin: bool,
    pub(crate) keep_memory: bool,
    pub(crate) slow: bool,
    pub(crate) stall: bool,
}

impl Behaviour {
    pub(crate) const fn of(kind: Kind) -> Self {
        let mut behaviour =
            Self { keep_connections: false, spin: false, keep_memory: false, slow: false, stall: false };
        match kind {
            Kind::ConnectionLeak => behaviour.keep_connections = true,
            Kind::CpuHog => behaviour.spin = true,
            Kind::MemoryLeak => behaviour.keep_memory = true,
            Kind::SlowDependency => behaviour.slow = true,
            Kind::QueueFull => behaviour.stall = true,
            Kind::BadSetting => {}
        }
        behaviour
    }

    pub(crate) const fn or(self, other: Self) -> Self {
        Self {
            keep_connections: self.keep_connections || other.keep_connections,
            spin: self.spin || other.spin,
            keep_memory: self.keep_memory || other.keep_memory,
            slow: self.slow || other.slow,
            stall: self.stall || other.stall,
        }
    }
}

/// What was deployed around the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Case {
    /// The fault comes with a deployment of that service.
    Deployment,
    /// Another service was deployed harmlessly 60 to 120 s before.
    Decoy,
    /// Nothing was deployed.
    None,
}

/// One seed's story.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) case: Case,
    pub(crate) fault: Option<(Kind, Role)>,
    /// After the start.
    pub(crate) at: Duration,
    /// A harmless deployment: of which service, when after the start.
    pub(crate) harmless: Option<(Role, Duration)>,
    /// For a bad setting: true for the timeout, false for the rate.
    pub(crate) timeout_setting: bool,
}

impl Story {
    /// The story of these arguments.
    pub(crate) fn tell(args: &RunArgs, names: &Names) -> anyhow::Result<Self> {
        let mut random = StdRng::seed_from_u64(args.seed);
        let case = match args.seed % 3 {
            1 => Case::Deployment,
            2 => Case::Decoy,
            _ => Case::None,
        };
        let kinds: Vec<Kind> =
            Kind::ALL.into_iter().filter(|kind| case != Case::Deployment || *kind != Kind::BadSetting).collect();
        let mut kind = Some(kinds[random.random_range(0..kinds.len())]);
        if let Some(word) = &args.fault {
            kind = match word.as_str() {
                "none" => None,
                word => Some(serde_json::from_value(serde_json::json!(word)).map_err(|_| {
                    anyhow::anyhow!("no fault is called {word:?}; there are {}", serde_json::json!(Kind::ALL))
                })?),
            };
        }
        let role_of = |word: &str| {
            let found = Role::ALL.into_iter().find(|role| role.plain() == word).or_else(|| names.role(word));
            found.ok_or_else(|| anyhow::anyhow!("no service is called {word:?}"))
        };
        let given = args.service.as_deref().map(role_of).transpose()?;
        let fault = kind.map(|kind| {
            let strikes = kind.strikes();
            (kind, given.unwrap_or(strikes[random.random_range(0..strikes.len())]))
        });
        if let Some((kind, role)) = fault.filter(|(kind, role)| !kind.strikes().contains(role)) {
            anyhow::bail!("{kind:?} cannot strike {}; it can strike {:?}", role.plain(), kind.strikes());
        }
        let lead = Duration::from_millis(random.random_range(60_000..=120_000));
        let usual = if case == Case::Decoy { Duration::from_secs(15) + lead } else { Duration::from_secs(30) };
        let at = args.at.unwrap_or(usual);
        let mut harmless = (case == Case::Decoy && fault.is_some()).then(|| {
            let others: Vec<Role> =
                Role::ALL.into_iter().filter(|role| fault.is_none_or(|(_, hit)| hit != *role)).collect();
            (others[random.random_range(0..others.len())], at.saturating_sub(lead))
        });
        if let Some(word) = &args.deploy {
            harmless = Some((role_of(word)?, args.deploy_at));
        }
        let database = fault.is_some_and(|(_, role)| role.calls().is_empty());
        Ok(Self { case, fault, at, harmless, timeout_setting: !database && random.random_range(0..2) == 0 })
    }
}
