//! Targets: systems that may be acted on, declared in the executor's configuration.
//!
//! Every target has a tool, a tenant, a name and limits; everything else belongs to the tool, which describes its own
//! fields with a type ([`crate::ToolKind::Settings`]). Errors name field and reason and never repeat a value: a
//! credential may be in it.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wardroom_domain::TenantId;
use wardroom_respond::ToolSpec;

use crate::schema;

/// Beginning of the part of an error that names a field of a target, and repeats no value.
pub const TARGET_FIELD: &str = "field of a target ";
/// Beginning of the part of an error about a name that does not repeat the name.
const NOT_A_NAME: &str = "is not a valid name";
/// Default of [`Target::actions_per_hour`].
const DEFAULT_ACTIONS_PER_HOUR: u32 = 30;
/// Maximum of [`Target::timeout_seconds`]: a rollout of a large workload.
const MAX_TIMEOUT_SECONDS: u64 = 4 * 3600;
/// Maximum of [`Target::output_bytes`].
const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// A target of one tool, declared in the executor's configuration. Its other fields are those of the tool: `wardroom
/// tools describe TOOL`.
#[derive(Clone, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// Name of the tool.
    pub tool: String,
    /// Tenant that owns it: only plans for incidents of this tenant can act on it. Default `main`. Since 0.1.
    #[serde(default = "TenantId::main")]
    pub tenant: TenantId,
    /// Name in plans; unique among the tenant's targets of the tool.
    pub name: String,
    /// Allowed operations; all if absent.
    #[serde(default)]
    pub operations: Option<Vec<String>>,
    /// Maximum number of actions within an hour; more wait. Undoing an action is always possible, and counts. Default
    /// 30. Since 0.1.
    #[serde(default = "default_actions_per_hour")]
    pub actions_per_hour: u32,
    /// Maximum duration of one call, in seconds, at most 14400. Default: that of the tool. Since 0.1.
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
    /// Maximum size of an output, in bytes, at most 4194304; the rest is cut off. Default: that of the tool. Since 0.1.
    #[serde(default)]
    pub output_bytes: Option<usize>,
    /// The tool's own fields.
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

const fn default_actions_per_hour() -> u32 {
    DEFAULT_ACTIONS_PER_HOUR
}

/// The fields that every target has.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Common {
    tool: String,
    #[serde(default = "TenantId::main")]
    tenant: TenantId,
    name: String,
    #[serde(default)]
    operations: Option<Vec<String>>,
    #[serde(default = "default_actions_per_hour")]
    actions_per_hour: u32,
    #[serde(default)]
    timeout_seconds: Option<u64>,
    #[serde(default)]
    output_bytes: Option<usize>,
}

/// Reads the fields that every target has; the others are read by the tool. The text of an error begins with
/// [`TARGET_FIELD`] and does not repeat a value.
impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::<String, Value>::deserialize(deserializer)?;
        let schema = known_schema::<Common>();
        let is_common = |name: &String| schema["properties"].get(name).is_some();
        let (common, settings): (Map<_, _>, Map<_, _>) = fields.into_iter().partition(|(name, _)| is_common(name));
        let common = Value::Object(common);
        let refuse = |field: &str, reason: &str| serde::de::Error::custom(format!("{TARGET_FIELD}{field}: {reason}"));
        schema::check(&schema, &common).map_err(|problem| refuse(&problem.path, &problem.reason))?;
        let common: Common = serde_path_to_error::deserialize(common).map_err(|error| {
            let text = error.inner().to_string();
            let remedy = text.find(NOT_A_NAME).and_then(|start| text.get(start..)).unwrap_or("the value is not valid");
            refuse(&error.path().to_string(), remedy)
        })?;
        let Common { tool, tenant, name, operations, actions_per_hour, timeout_seconds, output_bytes } = common;
        Ok(Self { tool, tenant, name, operations, actions_per_hour, timeout_seconds, output_bytes, settings })
    }
}

/// Does not print the tool's own fields: a credential may be in them.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("tool", &self.tool)
            .field("tenant", &self.tenant)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a field of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    /// Path of the field within the target, such as `commands[0].program`.
    pub field: String,
    /// Reason and remedy; without the value.
    pub reason: String,
}

impl SettingError {
    /// Creates an error.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl std::fmt::Display for SettingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// A target with the fields of its tool.
#[derive(Clone, Debug)]
pub struct Declared<S> {
    /// The fields that every target has.
    pub target: Target,
    /// The tool's own fields.
    pub settings: S,
}

impl<S> Declared<S> {
    /// Returns the target's name.
    pub fn name(&self) -> &str {
        &self.target.name
    }
}

impl Target {
    /// Reads the tool's own fields.
    pub(crate) fn parse_settings<S: for<'de> Deserialize<'de> + JsonSchema + 'static>(
        &self,
    ) -> Result<S, SettingError> {
        let value = Value::Object(self.settings.clone());
        schema::check(&known_schema::<S>(), &value)
            .map_err(|problem| SettingError::new(problem.path, problem.reason))?;
        serde_path_to_error::deserialize(value).map_err(|error| {
            let reason = "the value is not valid; `wardroom tools describe` shows what it must be";
            SettingError::new(error.path().to_string(), reason)
        })
    }

    /// Checks the fields that every target has.
    pub(crate) fn check_limits(&self) -> Result<(), SettingError> {
        if self.actions_per_hour == 0 {
            let reason = "0 allows no action; give at least 1, or remove the target";
            return Err(SettingError::new("actions-per-hour", reason));
        }
        if self.timeout_seconds.is_some_and(|seconds| !(1..=MAX_TIMEOUT_SECONDS).contains(&seconds)) {
            return Err(SettingError::new("timeout-seconds", format!("it must be 1 to {MAX_TIMEOUT_SECONDS}")));
        }
        if self.output_bytes.is_some_and(|bytes| !(1..=MAX_OUTPUT_BYTES).contains(&bytes)) {
            return Err(SettingError::new("output-bytes", format!("it must be 1 to {MAX_OUTPUT_BYTES}")));
        }
        Ok(())
    }

    /// Maximum duration of one call.
    pub fn timeout(&self, spec: &ToolSpec) -> Duration {
        self.timeout_seconds.map_or(spec.timeout, Duration::from_secs)
    }

    /// Maximum size of an output, in bytes.
    pub fn output_limit(&self, spec: &ToolSpec) -> usize {
        self.output_bytes.unwrap_or(spec.output_bytes)
    }

    /// Returns the fields that every target has, with the tool's own as they may be shown.
    pub(crate) fn show_with<S: Serialize>(&self, settings: &S) -> Value {
        let Self { tool, tenant, name, operations, actions_per_hour, timeout_seconds, output_bytes, settings: _ } =
            self;
        let mut shown = json!({ "tenant": tenant, "tool": tool, "name": name, "operations": operations,
            "actions-per-hour": actions_per_hour, "timeout-seconds": timeout_seconds, "output-bytes": output_bytes });
        if let (Some(fields), Ok(Value::Object(own))) = (shown.as_object_mut(), serde_json::to_value(settings)) {
            fields.extend(own);
        }
        shown
    }
}

/// Returns the JSON Schema of a tool's own fields.
pub(crate) fn settings_schema<S: JsonSchema>() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<S>().to_value()
}

/// Returns [`settings_schema`], which is made once for each type: a configuration may have thousands of targets.
fn known_schema<S: JsonSchema + 'static>() -> Arc<Value> {
    static KNOWN: Mutex<BTreeMap<TypeId, Arc<Value>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(known.entry(TypeId::of::<S>()).or_insert_with(|| Arc::new(settings_schema::<S>())))
}
