//! The tools there are.
//!
//! A tool is one file, one line in [`TOOLS`], its suite in `tests/it` and its page in `docs/tools`; tests compare the
//! four. A tool without a contract suite does not pass them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use wardroom_respond::Tool;

use crate::context::Context;
use crate::exec::ExecTool;
use crate::gcp::GcpTool;
use crate::github::GithubTool;
use crate::http::HttpTool;
use crate::postgres::PostgresTool;
use crate::process::ProcessTool;
use crate::query_prometheus::QueryPrometheusTool;
use crate::redis::RedisTool;
use crate::restart_validator_client::RestartValidatorClientTool;
use crate::systemd::SystemdTool;
use crate::target::{SettingError, Target};
use crate::terraform::TerraformTool;
use crate::tool_kind::ToolDef;

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
    let mut known = BTreeSet::new();
    for (index, target) in targets.iter().enumerate() {
        let place = format!("targets[{index}]");
        let at = |error: SettingError| match error.field.as_str() {
            "" => SettingError::new(place.clone(), error.reason),
            field => SettingError::new(format!("{place}.{field}"), error.reason),
        };
        let tool = find(&target.tool).map_err(|reason| at(SettingError::new("tool", reason)))?;
        (tool.check)(target).and_then(|()| target.check_limits()).map_err(at)?;
        if !known.insert((&target.tenant, &target.tool, &target.name)) {
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
