//! Runbooks: read, checked, and found by what was seen.
//!
//! A runbook is Markdown with YAML front matter: symptoms, checks, and actions as typed tool calls whose
//! placeholders (`{{service}}`, `{{setting.key}}`, `{{setting.from}}`) are filled from the diagnosis.
//! Search is BM25 (tantivy) over title, symptoms and text. The runbooks of `runbooks/` are built in; a
//! folder of one's own can be configured and wins over a built-in one of the same id.
//!
//! ```text
//! cause ─► words ─► BM25 over title, symptoms, text ─► the best that fits ─► a typed call
//! ```
//!
//! Runbook text is knowledge, not authority: an action from it is still dry-run, planned and approved.

#![forbid(unsafe_code)]

mod builtin;
mod config;
mod error;
mod runbook;
mod search;

pub use builtin::BUILTIN;
pub use config::Config;
pub use error::Error;
pub use runbook::{Runbook, When};
pub use search::{Hit, Library, query_of};
