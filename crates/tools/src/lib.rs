//! Tools: adapters that execute actions on target systems, and their registry.
//!
//! ```text
//! plan (dry run) ─► execute (precondition, key) ─► probe (did it take effect?) ─► undo (a call in the plan)
//! ```
//!
//! Tools run only in the executor, the only process with targets and credentials. A tool is one file and one line in
//! [`tools`]; the contract tests every tool must pass (repeat, stale, refuse, undo) are in `tests/it`. A success
//! response of a target is not trusted: every tool probes for the effect. Only targets declared in the executor's
//! configuration can be acted on.

#![forbid(unsafe_code)]

mod config;
mod process;

use wardroom_respond::Tool;

pub use config::{Secret, Target};
pub use process::ProcessTool;

/// Returns every tool, configured with these targets.
pub fn tools(targets: &[Target]) -> Vec<Box<dyn Tool>> {
    vec![Box::new(ProcessTool::new(targets.to_vec()))]
}
