//! The response workflow as a pure state machine, and the contract of a tool.
//!
//! ```text
//! open ► investigating ► awaiting_approval ► mitigating ► verifying ► mitigated ► resolved
//!              └──────────────┴──────────────────┴────────────┴────────────┴──► escalated
//! ```
//!
//! [`Workflow::next`] returns the next effect for an incident ([`Effect`]); [`Workflow::apply`] applies what happened
//! ([`Event`]) and returns the state change. The caller persists the change and asks for the next effect. A crash at
//! any point is safe: after a restart the same state gives the same effect, and every effect is idempotent.
//!
//! Until a plan is approved, the incident is diagnosed again at fixed times and when correlation adds to it; a plan
//! that no longer fits is void.
//!
//! Verification ([`verify`]) is a pure function over the telemetry since the action: every watched signal good for some
//! time and some points of its own interval, then a hold without a breach, and a control that was healthy throughout. A
//! missing effect does not pass, and silence is no evidence: it ends as inconclusive, without an undo.

#![forbid(unsafe_code)]

mod config;
mod postmortem;
mod review;
mod setting_check;
mod tool;
mod verify;
mod workflow;

pub use config::Config;
pub use postmortem::{Postmortem, TimelineEntry, postmortem};
pub use setting_check::unconfirmed_setting;
pub use tool::{Applied, Operation, Tool, ToolError, ToolSpec, parse_arguments};
pub use verify::{ObservedSignal, Verification, VerificationProgress, WatchedSignal, verify};
pub use workflow::{Effect, Event, StateChange, Workflow, WorkflowError, WorkflowReadError};
