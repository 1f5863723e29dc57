//! The response workflow as a pure state machine, and the contract of a tool.
//!
//! ```text
//! open ► investigating ► awaiting_approval ► mitigating ► verifying ► mitigated ► resolved
//!              └──────────────┴──────────────────┴────────────┴────────────┴──► escalated
//! resolved, suppressed, closed ► investigating: a person reopens it
//! ```
//!
//! [`Workflow::next`] returns what the response does next by itself ([`Step`]); [`Workflow::apply`] applies what
//! happened ([`Event`]) and returns the state change with the effects that it wants outside ([`EffectRequest`]), with
//! their data. The caller persists both in one transaction; workers perform the effects, and what comes of them is the
//! next event. A crash at any point is safe: the rows of the effects are performed again, and every effect is
//! idempotent.
//!
//! Until a plan is approved, the incident is diagnosed again at fixed times and when correlation adds to it; a plan
//! that no longer fits is void.
//!
//! A person may reopen an incident that has ended: the response begins again ([`Event::Reopened`]). They may split one
//! whose plan is not being carried out: some of its entities become another incident ([`Workflow::split`]).
//!
//! A runbook may have read-only checks, whose results are evidence and choose its action ([`Workflow::read_finished`]),
//! and an action may have several steps, each an effect of its own, undone in reverse order when one fails or the
//! action does not help ([`Workflow::step_executed`]).
//!
//! Verification ([`verify`]) is a pure function over the telemetry since the action: every watched signal good for some
//! time and some points of its own interval, then a hold without a breach, and a control that was healthy throughout. A
//! missing effect does not pass, and silence is no evidence: it ends as inconclusive, without an undo.

#![forbid(unsafe_code)]

mod config;
mod due;
mod effect;
mod event;
mod finished;
mod next_due;
mod pending;
mod people;
mod postmortem;
mod proposal;
mod reopening;
mod review;
mod runbook_choice;
mod schedule;
mod setting_check;
mod signal_choice;
mod splitting;
mod step_progress;
mod step_result;
mod tool;
mod verify;
mod wanted_effects;
mod workflow;

pub use config::Config;
pub use due::Due;
pub use effect::{EffectData, EffectKind, EffectRequest, PROBE_WAIT};
pub use event::Event;
pub use finished::{FinishedIncident, TrialResult};
pub use pending::{PendingPlan, PendingRead};
pub use people::change_seen;
pub use postmortem::{Postmortem, TimelineEntry, postmortem};
pub use proposal::{PlanProgress, reason_not_to_act};
pub use schedule::{IncidentId, Schedule};
pub use setting_check::unconfirmed_setting;
pub use signal_choice::{
    CrossedLimit, KnownSignal, KnownSignals, bad_share, newest_reading_ms, select_control, signal_history,
    watched_signals,
};
pub use splitting::{SplitError, SplitOff, SplitPart};
pub use step_progress::StepProgress;
pub use step_result::StepResult;
pub use tool::{
    Applied, DEFAULT_TIMEOUT, NoArguments, Operation, Risk, Run, Tool, ToolError, ToolSpec, operation, parse_arguments,
    read_operation,
};
pub use verify::{ObservedSignal, Verification, VerificationProgress, WatchedSignal, verify};
pub use workflow::{StateChange, Step, Workflow, WorkflowError, WorkflowReadError};
