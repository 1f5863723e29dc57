//! The adapters that change the world, and their registry.
//!
//! ```text
//! plan (dry run) ─► execute (precondition, key) ─► probe (is the effect there?) ─► undo (a plan's own call)
//! ```
//!
//! They run in the executor only, which alone knows targets and credentials. A tool is one file and one
//! line in [`tools`]; the batteries every tool must pass (twice, stale, refused, undone) are in
//! `tests/it`. A yes from a target alone proves nothing: every tool looks for the effect.
//! What is declared in no executor's file cannot be acted on.

#![forbid(unsafe_code)]

mod config;
mod process;

use wardroom_respond::Tool;

pub use config::{Secret, Target};
pub use process::ProcessTool;

/// Every tool there is, over these targets.
pub fn tools(targets: &[Target]) -> Vec<Box<dyn Tool>> {
    vec![Box::new(ProcessTool::new(targets.to_vec()))]
}
