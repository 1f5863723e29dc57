//! The knowledge base: parses, validates and searches runbooks.
//!
//! A runbook is Markdown with YAML front matter: symptoms, checks for people, `reads` that Wardroom makes itself, and
//! actions as typed tool calls whose placeholders (`{{service}}`, `{{setting.key}}`, `{{setting.from}}`) the diagnosis
//! fills. An action may have conditions on what was read, and further steps.
//! A runbook is found by the id of the rule that names the mechanism, by an alert's name, and by its symptoms and text
//! (BM25, tantivy). The runbooks of `runbooks/` are built in; a configured folder adds more, and replaces built-in
//! runbooks of the same id.
//!
//! ```text
//! cause ─► runbooks that name its rule ─► nearest to what was measured ─► typed tool call
//! ```
//!
//! A runbook carries no authority: its actions still need a dry run, a plan and an approval.

#![forbid(unsafe_code)]

mod builtin;
mod config;
mod error;
mod placeholders;
mod runbook;
mod runbook_actions;
mod search;

pub use builtin::BUILTIN_RUNBOOKS;
pub use config::Config;
pub use error::Error;
pub use runbook::{DeploymentCondition, Runbook};
pub use runbook_actions::{RunbookAction, RunbookCondition, RunbookProposal, RunbookRead};
pub use search::{Hit, Library};
