//! A connection to systemd over D-Bus.

use std::collections::HashMap;
use std::time::Duration;

use wardroom_respond::ToolError;
use zbus::wire::{OwnedObjectPath, OwnedVariant, Variant};

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// How a job joins others of the same unit: it replaces them, as `systemctl` does.
const JOB_MODE: &str = "replace";

/// A connection, with the runtime that drives it.
pub(crate) struct Bus {
    connection: zbus::Connection,
    runtime: tokio::runtime::Runtime,
}

impl Bus {
    /// Connects to a bus; `timeout` is that of each call.
    pub(crate) fn connect(address: &str, timeout: Duration) -> Result<Self, ToolError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ToolError::Unavailable(error.to_string()))?;
        let connection = runtime.block_on(async {
            let connecting = zbus::connection::Builder::address(address).method_timeout(timeout).build();
            tokio::time::timeout(timeout, connecting).await
        });
        let connection = connection.map_err(|_| ToolError::Unavailable("the bus does not respond".to_owned()))?;
        Ok(Self { connection: connection.map_err(convert_error)?, runtime })
    }

    fn call<B, R>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<R, ToolError>
    where
        B: serde::Serialize + zbus::wire::DynamicType,
        R: serde::de::DeserializeOwned + zbus::wire::Type,
    {
        self.runtime.block_on(async {
            let called = self.connection.call_method(Some(DESTINATION), path, Some(interface), method, body);
            let message = called.await.map_err(convert_error)?;
            message.body().deserialize().map_err(convert_error)
        })
    }

    /// Returns the object of a unit, which is loaded if it is not.
    pub(crate) fn unit_path(&self, name: &str) -> Result<String, ToolError> {
        let path: Result<OwnedObjectPath, ToolError> = self.call(MANAGER_PATH, MANAGER, "GetUnit", &(name,));
        let path = match path {
            Err(ToolError::Invalid(_)) => self.call(MANAGER_PATH, MANAGER, "LoadUnit", &(name,)),
            found => found,
        };
        path.map(|path: OwnedObjectPath| path.as_str().to_owned())
    }

    /// Returns the properties of an object.
    pub(crate) fn properties(&self, path: &str, interface: &str) -> Result<Properties, ToolError> {
        self.call(path, "org.freedesktop.DBus.Properties", "GetAll", &(interface,)).map(Properties)
    }

    /// Starts a job of a unit.
    pub(crate) fn change_unit(&self, method: &str, name: &str) -> Result<(), ToolError> {
        self.call::<_, OwnedObjectPath>(MANAGER_PATH, MANAGER, method, &(name, JOB_MODE)).map(drop)
    }
}

fn convert_error(error: zbus::Error) -> ToolError {
    let text = error.to_string();
    let is_denied = text.contains("AccessDenied") || text.contains("InteractiveAuthorizationRequired");
    match error {
        _ if is_denied => {
            ToolError::Invalid(format!("systemd refuses it ({text}); see docs/tools/systemd.md for the rule of polkit"))
        }
        zbus::Error::MethodError(..) | zbus::Error::FDO(_) | zbus::Error::Address(_) => ToolError::Invalid(text),
        _ => ToolError::Unavailable(text),
    }
}

/// Properties of an object, by name.
#[derive(Debug, Default)]
pub(crate) struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    /// Returns these properties and others.
    pub(crate) fn merged(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn get(&self, name: &str) -> Option<&Variant<'static>> {
        self.0.get(name).map(|value| &**value)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Variant::Str(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Variant::Array(items)) => {
                let text = |item: &Variant<'_>| match item {
                    Variant::Str(text) => Some(text.as_str().to_owned()),
                    _ => None,
                };
                items.iter().filter_map(text).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        match self.get(name)? {
            Variant::Array(items) => {
                let byte = |item: &Variant<'_>| if let Variant::U8(byte) = item { Some(*byte) } else { None };
                Some(items.iter().filter_map(byte).collect())
            }
            _ => None,
        }
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Variant::Bool(true)))
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Variant::U32(number) => Some(u64::from(*number)),
            // The largest number stands for "not known".
            Variant::U64(number) => Some(*number).filter(|number| *number != u64::MAX),
            _ => None,
        }
    }

    /// Returns the number of the job that changes the unit.
    pub(crate) fn job(&self) -> Option<u32> {
        let Variant::Structure(job) = self.get("Job")? else { return None };
        match job.fields().first()? {
            Variant::U32(number) => Some(*number).filter(|number| *number != 0),
            _ => None,
        }
    }

    /// Describes a property, to compare it. Of a list of programs only paths and arguments count: the rest is about
    /// their last run.
    pub(crate) fn described(&self, name: &str) -> String {
        match self.get(name) {
            Some(Variant::Array(items)) if name == "ExecStart" => {
                let program = |item: &Variant<'_>| match item {
                    Variant::Structure(program) => format!("{:?}", program.fields().iter().take(2).collect::<Vec<_>>()),
                    other => format!("{other:?}"),
                };
                items.iter().map(program).collect::<Vec<_>>().join("\n")
            }
            Some(value) => format!("{value:?}"),
            None => String::new(),
        }
    }
}
