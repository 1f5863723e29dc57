//! The response workflow: pure, one step at a time, and the contract of a tool.
//!
//! ```text
//! open ► investigating ► awaiting_approval ► mitigating ► verifying ► mitigated ► resolved
//!              └──────────────┴──────────────────┴────────────┴────────────┴──► escalated
//! ```
//!
//! [`Workflow::next`] looks at where an incident stands and says what to do about it ([`Effect`]);
//! [`Workflow::apply`] takes what happened ([`Event`]) and says which move of the table that is. Whoever
//! runs it persists the move, then asks again. So a crash at any point costs nothing: after a restart
//! the same question gives the same effect, and every effect is safe to ask for twice.
//!
//! Verification ([`verify`]) is a pure function over the telemetry since the action: at least twenty
//! good samples of every watched signal, then a hold without a breach, and a control that was well all
//! along. Doing nothing fails it.

#![forbid(unsafe_code)]

mod config;
mod postmortem;
mod tool;
mod verify;
mod workflow;

pub use config::Config;
pub use postmortem::{Postmortem, TimelineEntry, postmortem};
pub use tool::{Applied, Operation, Tool, ToolError, ToolSpec, call_errors};
pub use verify::{Observed, Progress, Watched, verify};
pub use workflow::{Effect, Event, Move, Unreadable, Workflow, WorkflowError};
