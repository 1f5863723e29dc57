//! What runs the validator client: systemd, Docker or Kubernetes. Each says whether the client runs, proves that it
//! does not, and stops and starts it.

use std::time::Duration;

use wardroom_respond::ToolError;

use super::instance::Instance;
#[cfg(feature = "kubernetes")]
use super::stateful_set::StatefulSet;
use super::validator_settings::ValidatorSettings;
use crate::Context;
use crate::rest::{Rest, encode};
use crate::systemd::bus::Bus;

/// Interfaces of a unit's properties.
const UNIT_INTERFACES: [&str; 2] = ["org.freedesktop.systemd1.Unit", "org.freedesktop.systemd1.Service"];
/// Default address of the bus.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// Maximum duration of a call over D-Bus.
const BUS_TIMEOUT: Duration = Duration::from_secs(15);

/// A runner with a connection.
pub(super) enum Runner {
    Systemd {
        bus: Bus,
        unit: String,
    },
    Docker {
        rest: Rest,
        container: String,
    },
    #[cfg(feature = "kubernetes")]
    Kubernetes(Box<StatefulSet>),
}

impl Runner {
    pub(super) fn open(settings: &ValidatorSettings, context: &Context) -> Result<Self, ToolError> {
        if let Some(unit) = &settings.systemd_unit {
            let bus = Bus::connect(settings.bus.as_deref().unwrap_or(SYSTEM_BUS), BUS_TIMEOUT)?;
            return Ok(Self::Systemd { bus, unit: unit.clone() });
        }
        #[cfg(feature = "kubernetes")]
        if let Some(settings) = &settings.kubernetes {
            return Ok(Self::Kubernetes(Box::new(StatefulSet::open(settings, context)?)));
        }
        let missing = || ToolError::Invalid("the target names neither systemd-unit nor docker-container".to_owned());
        let container = settings.docker_container.clone().ok_or_else(missing)?;
        let url = settings.docker_url.clone().ok_or_else(missing)?.trim_end_matches('/').to_owned();
        let rest = Rest { http: context.http(), name: "Docker", url, token: None, headers: &[] };
        Ok(Self::Docker { rest, container })
    }

    /// Looks at the client.
    pub(super) fn inspect(&self) -> Result<Instance, ToolError> {
        match self {
            Self::Systemd { bus, unit } => {
                let path = bus.unit_path(unit)?;
                let mut properties = bus.properties(&path, UNIT_INTERFACES[0])?;
                properties = properties.merged(bus.properties(&path, UNIT_INTERFACES[1])?);
                let process = properties.number("MainPID").unwrap_or_default();
                let state = properties.text("ActiveState").unwrap_or("unknown").to_owned();
                let invocation = properties.bytes("InvocationID").unwrap_or_default();
                Ok(match state.as_str() {
                    "active" => Instance::Running(invocation.iter().map(|byte| format!("{byte:02x}")).collect()),
                    "inactive" | "failed" if process == 0 && properties.job().is_none() => Instance::Stopped,
                    _ => Instance::Unclear(format!("{state}, process {process}")),
                })
            }
            Self::Docker { rest, container } => {
                let state = &rest.get(&format!("/containers/{}/json", encode(container)))?["State"];
                let process = state["Pid"].as_u64().unwrap_or(u64::MAX);
                let status = state["Status"].as_str().unwrap_or("unknown");
                Ok(match status {
                    "running" if state["Running"] == true => {
                        Instance::Running(state["StartedAt"].as_str().unwrap_or_default().to_owned())
                    }
                    "exited" | "created" if process == 0 && state["Running"] == false => Instance::Stopped,
                    _ => Instance::Unclear(format!("{status}, process {process}")),
                })
            }
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(set) => set.inspect(),
        }
    }

    /// Asks for a stop.
    pub(super) fn stop(&self) -> Result<(), ToolError> {
        match self {
            Self::Systemd { bus, unit } => bus.change_unit("StopUnit", unit),
            Self::Docker { rest, container } => docker(rest, &format!("/containers/{}/stop?t=60", encode(container))),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(set) => set.scale(0),
        }
    }

    /// Asks for a start.
    pub(super) fn start(&self) -> Result<(), ToolError> {
        match self {
            Self::Systemd { bus, unit } => bus.change_unit("StartUnit", unit),
            Self::Docker { rest, container } => docker(rest, &format!("/containers/{}/start", encode(container))),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(set) => set.scale(1),
        }
    }

    /// Name of the client, for people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Systemd { unit, .. } => format!("unit {unit}"),
            Self::Docker { container, .. } => format!("container {container}"),
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(set) => set.name(),
        }
    }
}

fn docker(rest: &Rest, path: &str) -> Result<(), ToolError> {
    let answer = rest.send("POST", path, None)?;
    // 304: it is stopped, or started, already.
    if answer.status < 400 { Ok(()) } else { Err(rest.refused(&answer)) }
}
