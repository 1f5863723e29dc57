//! Kinds of tools: what each brings with it, and how it is created behind the guard.
//!
//! Below the registry and the tools, so that a tool does not depend on the list of all.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wardroom_respond::Tool;

use crate::context::Context;
use crate::guard::{Guarded, describe};
use crate::target::{Declared, SettingError, Target, settings_schema};

/// A kind of tool: how its targets are declared, and how it is created.
pub trait ToolKind: Tool + Sized + 'static {
    /// Name in calls, in targets, and of its page.
    const NAME: &'static str;
    /// The tool's own fields of a target; what it serialises may be shown.
    type Settings: for<'de> Deserialize<'de> + Serialize + JsonSchema + 'static;

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

/// An entry of the registry.
#[derive(Clone, Copy, Debug)]
pub struct ToolDef {
    /// Name in calls, in targets, and of its page.
    pub name: &'static str,
    settings: fn() -> Value,
    pub(crate) check: fn(&Target) -> Result<(), SettingError>,
    pub(crate) show: fn(&Target) -> Value,
    pub(crate) programs: fn(&Target) -> Vec<PathBuf>,
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
    let Some(listed) = &target.operations else { return Ok(()) };
    let known = K::declared_operations(&settings).unwrap_or_else(|| {
        let spec = K::new(Vec::new(), Context::of_descriptions()).spec();
        spec.operations.into_iter().map(|operation| operation.name).collect()
    });
    if let Some(index) = listed.iter().position(|operation| !known.contains(operation)) {
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
