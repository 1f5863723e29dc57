//! The tools there are.
//!
//! A tool is one file, one line in [`TOOLS`], its suite in `tests/it` and its page in `docs/tools`; tests compare the
//! four. A tool without a contract suite does not pass them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wardroom_respond::Tool;

use crate::context::Context;
use crate::exec::ExecTool;
use crate::gcp::GcpTool;
use crate::github::GithubTool;
use crate::guard::{Guarded, describe};
use crate::http::HttpTool;
use crate::postgres::PostgresTool;
use crate::process::ProcessTool;
use crate::query_prometheus::QueryPrometheusTool;
use crate::redis::RedisTool;
use crate::restart_validator_client::RestartValidatorClientTool;
use crate::systemd::SystemdTool;
use crate::target::{Declared, SettingError, Target, settings_schema};
use crate::terraform::TerraformTool;

/// All tools, in the order of their pages.
pub const TOOLS: &[ToolDef] = &[
    ToolDef::of::<ProcessTool>(),
    ToolDef::of::<QueryPrometheusTool>(),
    ToolDef::of::<HttpTool>(),
    ToolDef::of::<ExecTool>(),
    ToolDef::of::<SystemdTool>(),
    ToolDef::of::<TerraformTool>(),
    ToolDef::of::<PostgresTool>(),
    ToolDef::of::<RedisTool>(),
    #[cfg(feature = "kubernetes")]
    ToolDef::of::<crate::kubernetes::KubernetesTool>(),
    ToolDef::of::<GithubTool>(),
    ToolDef::of::<GcpTool>(),
    ToolDef::of::<RestartValidatorClientTool>(),
];

/// A kind of tool: how its targets are declared, and how it is created.
pub trait ToolKind: Tool + Sized + 'static {
    /// Name in calls, in targets, and of its page.
    const NAME: &'static str;
    /// The tool's own fields of a target; what it serialises may be shown.
    type Settings: for<'de> Deserialize<'de> + Serialize + JsonSchema;

    /// Checks the fields beyond their schema, without contacting the target.
    ///
    /// # Errors
    /// Returns field, reason and remedy, without the value.
    fn check_settings(_settings: &Self::Settings) -> Result<(), SettingError> {
        Ok(())
    }

    /// Returns the operations that a target declares itself; `None` if all targets have the tool's.
    fn declared_operations(_settings: &Self::Settings) -> Option<Vec<String>> {
        None
    }

    /// Returns the programs that a target needs.
    fn programs(_settings: &Self::Settings) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Creates the tool with its targets.
    fn new(targets: Vec<Declared<Self::Settings>>, context: Context) -> Self;
}

/// An entry of [`TOOLS`].
#[derive(Clone, Copy, Debug)]
pub struct ToolDef {
    /// Name in calls, in targets, and of its page.
    pub name: &'static str,
    settings: fn() -> Value,
    check: fn(&Target) -> Result<(), SettingError>,
    show: fn(&Target) -> Value,
    programs: fn(&Target) -> Vec<PathBuf>,
    build: fn(&[Target], &Context) -> Box<dyn Tool>,
}

impl ToolDef {
    /// Creates the entry of a kind of tool.
    pub const fn of<K: ToolKind>() -> Self {
        Self {
            name: K::NAME,
            settings: settings_schema::<K::Settings>,
            check: check::<K>,
            show: show::<K>,
            programs: programs::<K>,
            build: build::<K>,
        }
    }

    /// Returns the JSON Schema of the tool's own fields of a target.
    pub fn settings(&self) -> Value {
        (self.settings)()
    }

    /// Describes the tool: operations with the schemas of their arguments, limits, and its own fields of a target.
    pub fn describe(&self) -> Value {
        describe((self.build)(&[], &Context::of_descriptions()).as_ref(), &self.settings())
    }

    /// Creates the tool, guarded, with those of the targets that are its own.
    pub fn create(&self, targets: &[Target], context: &Context) -> Box<dyn Tool> {
        let own: Vec<Target> = targets.iter().filter(|target| target.tool == self.name).cloned().collect();
        Box::new(Guarded::new((self.build)(&own, context), own, context.secrets.clone()))
    }
}

fn check<K: ToolKind>(target: &Target) -> Result<(), SettingError> {
    let settings: K::Settings = target.parse_settings()?;
    K::check_settings(&settings)?;
    let known = K::declared_operations(&settings).unwrap_or_else(|| {
        let spec = K::new(Vec::new(), Context::of_descriptions()).spec();
        spec.operations.into_iter().map(|operation| operation.name).collect()
    });
    if let Some(index) = target.operations.iter().flatten().position(|operation| !known.contains(operation)) {
        let reason = format!("there is no operation of this name; use {}", known.join(", "));
        return Err(SettingError::new(format!("operations[{index}]"), reason));
    }
    Ok(())
}

fn show<K: ToolKind>(target: &Target) -> Value {
    match target.parse_settings::<K::Settings>() {
        Ok(settings) => target.show_with(&settings),
        Err(error) => target.show_with(&serde_json::json!({ "error": error.to_string() })),
    }
}

fn programs<K: ToolKind>(target: &Target) -> Vec<PathBuf> {
    target.parse_settings::<K::Settings>().map(|settings| K::programs(&settings)).unwrap_or_default()
}

fn build<K: ToolKind>(targets: &[Target], context: &Context) -> Box<dyn Tool> {
    let declared = targets.iter().filter_map(|target| {
        // The configuration is checked as a whole before any tool is created.
        let settings = target.parse_settings().ok()?;
        Some(Declared { target: target.clone(), settings })
    });
    Box::new(K::new(declared.collect(), context.clone()))
}

/// Returns the entry of a tool.
///
/// # Errors
/// Returns an error that names the known tools.
pub fn find(name: &str) -> Result<&'static ToolDef, String> {
    TOOLS.iter().find(|tool| tool.name == name).ok_or_else(|| {
        let known: Vec<&str> = TOOLS.iter().map(|tool| tool.name).collect();
        format!("there is no tool of this name; use {}", known.join(", "))
    })
}

/// Returns every tool, guarded, with those of these targets that are its own.
pub fn tools(targets: &[Target], context: &Context) -> Vec<Box<dyn Tool>> {
    TOOLS.iter().map(|tool| tool.create(targets, context)).collect()
}

/// Checks that each target names a tool and operations that exist, has valid fields, and can be told from the tenant's
/// others.
///
/// # Errors
/// Returns the path of the field from `targets[…]` on, reason and remedy, without the value.
pub fn check_targets(targets: &[Target]) -> Result<(), SettingError> {
    for (index, target) in targets.iter().enumerate() {
        let place = format!("targets[{index}]");
        let at = |error: SettingError| match error.field.as_str() {
            "" => SettingError::new(place.clone(), error.reason),
            field => SettingError::new(format!("{place}.{field}"), error.reason),
        };
        let tool = find(&target.tool).map_err(|reason| at(SettingError::new("tool", reason)))?;
        (tool.check)(target).and_then(|()| target.check_limits()).map_err(at)?;
        let is_same =
            |other: &&Target| (&other.tenant, &other.tool, &other.name) == (&target.tenant, &target.tool, &target.name);
        if targets.iter().take(index).any(|other| is_same(&other)) {
            let Target { tenant, name, tool, .. } = target;
            let reason = format!("tenant {tenant} has another target {name} of {tool}; remove one");
            return Err(at(SettingError::new("name", reason)));
        }
    }
    Ok(())
}

/// Returns the fields of a target as they may be shown.
pub fn shown(target: &Target) -> Value {
    match find(&target.tool) {
        Ok(tool) => (tool.show)(target),
        Err(_) => target.show_with(&serde_json::json!({})),
    }
}

/// Returns the programs that targets need.
pub fn programs_of(targets: &[Target]) -> Vec<PathBuf> {
    let of = |target: &Target| find(&target.tool).map(|tool| (tool.programs)(target)).unwrap_or_default();
    targets.iter().flat_map(of).collect()
}
