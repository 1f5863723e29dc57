//! The scenario of one run: which fault is injected, where and when, and what is deployed before.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;

use crate::arguments::RunArgs;
use crate::faults::FaultKind;
use crate::names::{Names, Role};

/// Shortest time from the start to the fault.
const MIN_PAST: Duration = Duration::from_secs(60);
/// Smallest number of readings before the fault.
const MIN_READINGS: u32 = 20;

/// What was deployed before the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Case {
    /// The fault is part of a deployment of its service.
    Deployment,
    /// Another service was deployed without a fault 60 to 120 s before.
    Decoy,
    /// Nothing was deployed.
    None,
}

/// The events of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) case: Case,
    /// Fault and service; `None` for a healthy shop.
    pub(crate) fault: Option<(FaultKind, Role)>,
    /// Time from the start to the fault.
    pub(crate) fault_at: Duration,
    /// A deployment without a fault: the service, and the time from the start.
    pub(crate) harmless_deployment: Option<(Role, Duration)>,
    /// Which setting a bad setting changes: the timeout if true, else the rate limit.
    pub(crate) timeout_setting: bool,
}

impl Scenario {
    /// Derives the scenario from seed and arguments.
    ///
    /// # Errors
    /// Returns an error if the fault or the service is unknown, or the fault cannot be injected into the service.
    pub(crate) fn new(args: &RunArgs, names: &Names) -> anyhow::Result<Self> {
        let mut random = StdRng::seed_from_u64(args.seed);
        let case = match args.seed % 3 {
            1 => Case::Deployment,
            2 => Case::Decoy,
            _ => Case::None,
        };
        let kinds: Vec<FaultKind> = FaultKind::ALL
            .into_iter()
            .filter(|kind| case != Case::Deployment || *kind != FaultKind::BadSetting)
            .collect();
        let mut kind = Some(kinds[random.random_range(0..kinds.len())]);
        if let Some(name) = &args.fault {
            kind = match name.as_str() {
                "none" => None,
                name => Some(serde_json::from_value(serde_json::json!(name)).map_err(|_| {
                    anyhow::anyhow!("unknown fault {name:?}; known are {}", serde_json::json!(FaultKind::ALL))
                })?),
            };
        }
        let role_of = |name: &str| {
            let found = Role::ALL.into_iter().find(|role| role.default_name() == name).or_else(|| names.role(name));
            found.ok_or_else(|| anyhow::anyhow!("unknown service {name:?}"))
        };
        let given_role = args.service.as_deref().map(role_of).transpose()?;
        let fault = kind.map(|kind| {
            let targets = kind.targets();
            (kind, given_role.unwrap_or(targets[random.random_range(0..targets.len())]))
        });
        if let Some((kind, role)) = fault.filter(|(kind, role)| !kind.targets().contains(role)) {
            anyhow::bail!("{kind:?} cannot be injected into {}, only into {:?}", role.default_name(), kind.targets());
        }
        let lead = Duration::from_millis(random.random_range(60_000..=120_000));
        // A detector needs a past to compare with: a minute, or twenty readings.
        let past = MIN_PAST.max(MIN_READINGS * args.interval);
        // The time before a harmless deployment is short, too: it must not look like the start.
        let default_at = if case == Case::Decoy { past.max(past / 3 + lead) } else { past };
        let fault_at = args.at.unwrap_or(default_at);
        let mut harmless_deployment = (case == Case::Decoy && fault.is_some()).then(|| {
            let others: Vec<Role> =
                Role::ALL.into_iter().filter(|role| fault.is_none_or(|(_, faulty)| faulty != *role)).collect();
            (others[random.random_range(0..others.len())], fault_at.saturating_sub(lead))
        });
        if let Some(name) = &args.deploy {
            harmless_deployment = Some((role_of(name)?, args.deploy_at));
        }
        // A service that calls no other has no use for a timeout.
        let calls_none = fault.is_some_and(|(_, role)| role.calls().is_empty());
        Ok(Self {
            case,
            fault,
            fault_at,
            harmless_deployment,
            timeout_setting: !calls_none && random.random_range(0..2) == 0,
        })
    }
}
