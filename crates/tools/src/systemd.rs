//! `systemd`: starts, stops and restarts a unit, over D-Bus.
//!
//! The precondition is the unit's active state, its invocation (which every start changes) and a hash of what it is
//! configured to run, so that a change of the unit file makes a plan stale. systemd keeps no key of ours: a note (see
//! `marks`) says before the operation that it begins, and after it how it left the unit. The job is followed to its
//! end.

pub(crate) mod bus;

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{DryRun, Outcome, ToolCall};
use wardroom_respond::{
    Applied, NoArguments, Operation, Risk, Run, Tool, ToolError, ToolSpec, operation, read_operation,
};

use crate::marks::{Mark, Marks};
use crate::{Context, Declared, SettingError, ToolKind};
use bus::{Bus, Properties};

/// Default address of the bus.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// Interval between two looks at a unit whose job runs.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum duration of a call that changes nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Default maximum duration of an operation: systemd's own `DefaultTimeoutStartSec` is 90 s.
const JOB_TIMEOUT: Duration = Duration::from_secs(180);
/// Digits of the hash of a unit's configuration.
const HASH_DIGITS: usize = 16;
/// Properties of a service that say what it runs.
const CONFIGURATION: [&str; 7] =
    ["ExecStart", "Environment", "EnvironmentFiles", "User", "Group", "WorkingDirectory", "RootDirectory"];
/// Properties with the units that stop when this one stops.
const DEPENDENTS: [&str; 3] = ["RequiredBy", "BoundBy", "ConsistsOf"];

/// The `systemd` tool.
#[derive(Debug)]
pub(crate) struct SystemdTool {
    targets: Vec<Declared<Settings>>,
    marks: Marks,
}

/// Fields of a target of `systemd`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Name of the unit with its type, such as `nginx.service`.
    unit: String,
    /// Address of the bus. Default: the system bus, `unix:path=/run/dbus/system_bus_socket`.
    #[serde(default)]
    bus: Option<String>,
}

/// A unit as systemd reports it.
#[derive(Debug)]
struct Unit {
    properties: Properties,
    configuration: String,
}

impl Unit {
    fn text(&self, name: &str) -> &str {
        self.properties.text(name).unwrap_or_default()
    }

    fn is_active(&self) -> bool {
        matches!(self.text("ActiveState"), "active" | "reloading")
    }

    /// Whether nothing is changing it at the moment.
    fn is_settled(&self) -> bool {
        self.properties.job().is_none()
            && !matches!(self.text("ActiveState"), "activating" | "deactivating" | "reloading")
    }

    fn fingerprint(&self) -> String {
        let invocation = self.properties.bytes("InvocationID").unwrap_or_default();
        let invocation: String = invocation.iter().map(|byte| format!("{byte:02x}")).collect();
        let reload = if self.properties.flag("NeedDaemonReload") { " file=changed" } else { "" };
        format!("{} invocation={invocation} unit={}{reload}", self.text("ActiveState"), self.configuration)
    }

    /// Returns the units that stop when this one stops.
    fn dependents(&self) -> Vec<String> {
        let mut units: Vec<String> = DEPENDENTS.iter().flat_map(|name| self.properties.texts(name)).collect();
        units.sort();
        units.dedup();
        units
    }
}

impl ToolKind for SystemdTool {
    const NAME: &'static str = "systemd";
    type Settings = Settings;

    fn check_settings(settings: &Settings) -> Result<(), SettingError> {
        let is_unit = settings.unit.rsplit_once('.').is_some_and(|(name, kind)| !name.is_empty() && !kind.is_empty())
            && settings.unit.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
        if !is_unit {
            return Err(SettingError::new("unit", "it must be a name with its type, such as nginx.service"));
        }
        match &settings.bus {
            Some(bus) if !bus.starts_with("unix:path=/") => {
                Err(SettingError::new("bus", "it must be unix:path= with an absolute path"))
            }
            _ => Ok(()),
        }
    }

    fn new(targets: Vec<Declared<Settings>>, context: Context) -> Self {
        Self { targets, marks: context.marks("systemd") }
    }
}

impl SystemdTool {
    fn settings(&self, call: &ToolCall) -> Result<&Settings, ToolError> {
        let target = self.targets.iter().find(|target| target.name() == call.target);
        target.map(|target| &target.settings).ok_or_else(|| ToolError::Invalid("the target is not declared".to_owned()))
    }

    fn connect(&self, call: &ToolCall) -> Result<(Bus, &Settings), ToolError> {
        let settings = self.settings(call)?;
        Ok((Bus::connect(settings.bus.as_deref().unwrap_or(SYSTEM_BUS), READ_TIMEOUT)?, settings))
    }

    fn unit(&self, call: &ToolCall) -> Result<Unit, ToolError> {
        let (bus, settings) = self.connect(call)?;
        read_unit(&bus, &settings.unit)
    }

    /// Waits until the job of an operation has ended.
    fn follow(&self, bus: &Bus, name: &str, run: &Run<'_>) -> Result<Unit, ToolError> {
        let deadline = Instant::now() + run.timeout;
        loop {
            let unit = read_unit(bus, name)?;
            if unit.is_settled() {
                return Ok(unit);
            }
            if Instant::now() >= deadline {
                let state = unit.text("ActiveState");
                return Err(ToolError::Unavailable(format!(
                    "the unit is still {state} after {} s",
                    run.timeout.as_secs()
                )));
            }
            (run.progress)(&format!("the unit is {}", unit.text("SubState")));
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

fn read_unit(bus: &Bus, name: &str) -> Result<Unit, ToolError> {
    let path = bus.unit_path(name)?;
    let properties = bus.properties(&path, "org.freedesktop.systemd1.Unit")?;
    if matches!(properties.text("LoadState"), Some("not-found" | "bad-setting" | "error" | "masked")) {
        let state = properties.text("LoadState").unwrap_or_default();
        return Err(ToolError::Invalid(format!("systemd cannot load {name}: {state}")));
    }
    // Only services have it.
    let service = bus.properties(&path, "org.freedesktop.systemd1.Service").unwrap_or_default();
    let own = ["FragmentPath", "DropInPaths"].iter().map(|part| properties.described(part));
    let parts: Vec<String> = own.chain(CONFIGURATION.iter().map(|part| service.described(part))).collect();
    let configuration = sha256_hex(parts.join("\n").as_bytes()).chars().take(HASH_DIGITS).collect();
    Ok(Unit { properties: properties.merged(service), configuration })
}

/// Name of systemd's method for an operation.
fn method(operation: &str) -> Result<&'static str, ToolError> {
    match operation {
        "start" => Ok("StartUnit"),
        "stop" => Ok("StopUnit"),
        "restart" => Ok("RestartUnit"),
        other => Err(ToolError::Invalid(format!("systemd has no operation {other:?}"))),
    }
}

fn operations() -> Vec<Operation> {
    vec![
        read_operation::<NoArguments>("status", "show the unit's state"),
        operation::<NoArguments>("restart", "stop the unit and start it again", Risk::Medium, false),
        operation::<NoArguments>("start", "start the unit", Risk::Low, true),
        operation::<NoArguments>("stop", "stop the unit", Risk::High, true),
    ]
}

impl Tool for SystemdTool {
    fn spec(&self) -> ToolSpec {
        ToolSpec { timeout: JOB_TIMEOUT, ..ToolSpec::new("systemd", "a unit of systemd", operations()) }
    }

    fn check(&self, _call: &ToolCall) -> Result<(), ToolError> {
        Ok(())
    }

    fn plan(&self, call: &ToolCall) -> Result<DryRun, ToolError> {
        let unit = self.unit(call)?;
        let (name, state) = (&self.settings(call)?.unit, unit.text("ActiveState"));
        let undo = |operation: &str| Some(ToolCall { operation: operation.to_owned(), ..call.clone() });
        let (diff, undo) = match (call.operation.as_str(), unit.is_active()) {
            ("start", true) => return Err(ToolError::Invalid(format!("{name} is {state} already"))),
            ("stop", false) => return Err(ToolError::Invalid(format!("{name} is {state} already"))),
            ("start", false) => (format!("{name} goes from {state} to active"), undo("stop")),
            ("stop", true) => (format!("{name} goes from {state} to inactive"), undo("start")),
            (_, true) => (format!("{name} ({state}) is stopped and started"), None),
            (_, false) => (format!("{name} ({state}) is started"), None),
        };
        let reload = if unit.properties.flag("NeedDaemonReload") {
            "; its file has changed on disk and is not loaded: systemd runs the old configuration"
        } else {
            ""
        };
        let dependents = if call.operation == "start" { Vec::new() } else { unit.dependents() };
        let with =
            if dependents.is_empty() { String::new() } else { format!(", and with it {}", dependents.join(", ")) };
        let operation = operations().into_iter().find(|operation| operation.name == call.operation);
        Ok(DryRun {
            diff: format!("{diff}{reload}"),
            blast_radius: format!("{name}{with}"),
            affected: Some(1 + dependents.len() as u64),
            risk: operation.map_or(Risk::High, |operation| operation.risk).as_str().to_owned(),
            reversible: undo.is_some(),
            precondition: unit.fingerprint(),
            undo,
        })
    }

    fn execute(&self, call: &ToolCall, run: &Run<'_>) -> Result<Applied, ToolError> {
        if self.probe(call, run.precondition, run.key)? == Outcome::Applied {
            return Ok(Applied::new(Outcome::Applied, "it was applied before"));
        }
        let method = method(&call.operation)?;
        let (bus, settings) = self.connect(call)?;
        let found = read_unit(&bus, &settings.unit)?.fingerprint();
        if found != run.precondition {
            return Err(ToolError::Stale(format!("the unit is at {found}, the plan expects {}", run.precondition)));
        }
        let begun = Mark { before: found.clone(), after: None };
        self.marks.set(run.key, &begun)?;
        bus.change_unit(method, &settings.unit)?;
        let unit = self.follow(&bus, &settings.unit, run)?;
        let (after, state) = (unit.fingerprint(), unit.text("ActiveState"));
        if after == found {
            let detail = format!("systemd accepted it, but the unit is unchanged ({state})");
            return Ok(Applied::new(Outcome::NotApplied, detail));
        }
        self.marks.set(run.key, &Mark { after: Some(after), ..begun })?;
        let result = unit.properties.text("Result").filter(|result| *result != "success");
        let result = result.map(|result| format!(", result {result}")).unwrap_or_default();
        Ok(Applied::new(
            Outcome::Applied,
            format!("{} of {} done; it is {state}{result}", call.operation, settings.unit),
        ))
    }

    fn probe(&self, call: &ToolCall, _precondition: &str, key: &str) -> Result<Outcome, ToolError> {
        let Some(mark) = self.marks.get(key)? else { return Ok(Outcome::NotApplied) };
        let unit = self.unit(call)?;
        if mark.after.is_none() && !unit.is_settled() {
            return Err(ToolError::Unavailable("a job of the unit is still running".to_owned()));
        }
        let found = unit.fingerprint();
        Ok(match mark.after {
            Some(after) if after == found => Outcome::Applied,
            None if mark.before == found => Outcome::NotApplied,
            _ => Outcome::Unknown,
        })
    }

    fn state(&self, call: &ToolCall) -> Result<String, ToolError> {
        self.unit(call).map(|unit| unit.fingerprint())
    }

    fn read(&self, call: &ToolCall, _timeout: Duration) -> Result<Value, ToolError> {
        let unit = self.unit(call)?;
        Ok(json!({ "active_state": unit.text("ActiveState"), "sub_state": unit.text("SubState"),
            "load_state": unit.text("LoadState"), "result": unit.properties.text("Result"),
            "restarts": unit.properties.number("NRestarts"), "main_pid": unit.properties.number("MainPID"),
            "memory_bytes": unit.properties.number("MemoryCurrent"), "tasks": unit.properties.number("TasksCurrent"),
            "needs_daemon_reload": unit.properties.flag("NeedDaemonReload"), "stops_with_it": unit.dependents() }))
    }
}
