//! A target of the tool: one validator client, its beacon node and what runs it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http_client::check_url;
use crate::{Secret, SettingError};

/// Largest number of slots of [`ValidatorSettings::window_slots`].
const MAX_WINDOW_SLOTS: u64 = 32;
/// Largest number of epochs of [`ValidatorSettings::quiet_epochs`].
const MAX_QUIET_EPOCHS: u64 = 10;

/// A validator client of Ethereum, as the executor's configuration declares it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ValidatorSettings {
    /// URL of the beacon node's API; best another node than the client's own.
    pub(super) beacon_url: String,
    /// Bearer token for the beacon node.
    #[serde(default)]
    pub(super) beacon_token: Option<Secret>,
    /// Indices of all validators whose keys the client has.
    pub(super) validators: Vec<u64>,
    /// Unit of the client, if systemd runs it, such as `lighthouse-vc.service`.
    #[serde(default)]
    pub(super) systemd_unit: Option<String>,
    /// Address of systemd's bus. Default: the system bus, `unix:path=/run/dbus/system_bus_socket`.
    #[serde(default)]
    pub(super) bus: Option<String>,
    /// Container of the client, if Docker runs it.
    #[serde(default)]
    pub(super) docker_container: Option<String>,
    /// URL of the Docker engine's API, or of a proxy before it that allows to inspect, stop and start this container.
    #[serde(default)]
    pub(super) docker_url: Option<String>,
    /// Stateful set of the client, if Kubernetes runs it: the fields of a target of `kubernetes`, with `workload:
    /// statefulset/NAME`.
    #[cfg(feature = "kubernetes")]
    #[serde(default)]
    pub(super) kubernetes: Option<crate::kubernetes::cluster::KubernetesSettings>,
    /// Number of slots that must be free of proposals when the client is stopped, 1 to 32. Default 4.
    #[serde(default = "default_window_slots")]
    pub(super) window_slots: u64,
    /// Number of whole epochs after the stop in which the chain must show no sign of the validators before the client
    /// is started, 0 to 10; with 0 the end of its process is the only proof. Default 1.
    #[serde(default = "default_quiet_epochs")]
    pub(super) quiet_epochs: u64,
}

const fn default_window_slots() -> u64 {
    4
}

const fn default_quiet_epochs() -> u64 {
    1
}

impl ValidatorSettings {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        check_url(&self.beacon_url).map_err(|reason| SettingError::new("beacon-url", reason))?;
        if let Some(url) = &self.docker_url {
            check_url(url).map_err(|reason| SettingError::new("docker-url", reason))?;
        }
        if self.validators.is_empty() {
            return Err(SettingError::new("validators", "it is empty; list every validator whose key the client has"));
        }
        if self.runners() != 1 {
            let reason = "give one of systemd-unit, docker-container and, in builds that have it, kubernetes";
            return Err(SettingError::new("systemd-unit", reason));
        }
        #[cfg(feature = "kubernetes")]
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes
                .check()
                .map_err(|error| SettingError::new(format!("kubernetes.{}", error.field), error.reason))?;
        }
        if self.docker_container.is_some() && self.docker_url.is_none() {
            return Err(SettingError::new("docker-url", "it is missing"));
        }
        if !(1..=MAX_WINDOW_SLOTS).contains(&self.window_slots) {
            return Err(SettingError::new("window-slots", format!("it must be 1 to {MAX_WINDOW_SLOTS}")));
        }
        if self.quiet_epochs > MAX_QUIET_EPOCHS {
            return Err(SettingError::new("quiet-epochs", format!("it must be at most {MAX_QUIET_EPOCHS}")));
        }
        self.beacon_token.as_ref().map_or(Ok(()), |token| token.check("beacon-token"))
    }

    /// Number of runners that are given.
    fn runners(&self) -> usize {
        let given = [self.systemd_unit.is_some(), self.docker_container.is_some()];
        #[cfg(feature = "kubernetes")]
        let given = [given[0], given[1], self.kubernetes.is_some()];
        given.iter().filter(|given| **given).count()
    }
}
