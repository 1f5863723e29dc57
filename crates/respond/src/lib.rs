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
//! Verification ([`verify`]) is a pure function over the telemetry since the action: at least twenty good samples of
//! every watched signal, then a hold without a breach, and a control that was healthy throughout. A missing effect does
//! not pass.

#![forbid(unsafe_code)]

mod config;
mod postmortem;
mod tool;
mod verify;
mod workflow;

pub use config::Config;
pub use postmortem::{Postmortem, TimelineEntry, postmortem};
pub use tool::{Applied, Operation, Tool, ToolError, ToolSpec, parse_arguments};
pub use verify::{ObservedSignal, VerificationProgress, WatchedSignal, verify};
pub use workflow::{Effect, Event, StateChange, Workflow, WorkflowError, WorkflowReadError};
