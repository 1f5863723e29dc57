//! Effects: what the response wants done outside, with all the data that it takes.
//!
//! A change of an incident names the effects that it wants ([`EffectRequest`]). The caller writes them in the
//! transaction of the change, and a worker performs them; nothing here waits. The id is derived from what wants the
//! effect, so that a change that is repeated after a crash wants the same effect and not another one.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wardroom_domain::{ReadCheck, ToolCall};

/// A check or a dry run whose target does not answer is given up after this time.
const DRY_RUN_LIFETIME: Duration = Duration::from_secs(90);
/// An action, or an undo, that has not ended after this time has an unknown outcome.
const ACTION_LIFETIME: Duration = Duration::from_secs(2 * 3600);
/// The executor refuses a late undo by itself, so that telling it is given up early.
const SETTLE_LIFETIME: Duration = Duration::from_secs(3600);
/// An approval of which nothing was heard is looked for after this time …
pub const PROBE_WAIT: Duration = Duration::from_secs(2);
/// … and no longer than a plan can be approved.
const PROBE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// A message is given up after this time.
const MESSAGE_LIFETIME: Duration = Duration::from_secs(3600);

/// What an effect does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffectKind {
    /// Asks a target a question that changes nothing.
    Read,
    /// Asks a target what a call would change.
    DryRun,
    /// Asks the executor for the authority that the policy gives without a person.
    Authorization,
    /// Carries out an approved plan.
    Execution,
    /// Takes a carried out plan back.
    Undo,
    /// Asks the executor for an approval that it recorded.
    Probe,
    /// Tells the executor that a plan is not undone any more.
    Settle,
    /// Tells a person something.
    Message,
}

impl EffectKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::DryRun,
        Self::Authorization,
        Self::Execution,
        Self::Undo,
        Self::Probe,
        Self::Settle,
        Self::Message,
    ];

    /// Returns the persisted spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::DryRun => "dry_run",
            Self::Authorization => "authorization",
            Self::Execution => "execution",
            Self::Undo => "undo",
            Self::Probe => "probe",
            Self::Settle => "settle",
            Self::Message => "message",
        }
    }

    /// How long it is tried before it is given up.
    const fn lifetime(self) -> Duration {
        match self {
            Self::Read | Self::DryRun | Self::Authorization => DRY_RUN_LIFETIME,
            Self::Execution | Self::Undo => ACTION_LIFETIME,
            Self::Probe => PROBE_LIFETIME,
            Self::Settle => SETTLE_LIFETIME,
            Self::Message => MESSAGE_LIFETIME,
        }
    }
}

/// The data of an effect. Persisted: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum EffectData {
    /// See [`EffectKind::Read`].
    Read {
        /// The call.
        call: ToolCall,
    },
    /// See [`EffectKind::DryRun`].
    DryRun {
        /// The call.
        call: ToolCall,
    },
    /// See [`EffectKind::Authorization`].
    Authorization {
        /// Hash of the plan.
        plan_sha256: String,
    },
    /// See [`EffectKind::Execution`].
    Execution {
        /// Hash of the approved plan.
        plan_sha256: String,
        /// The step, counted from 0.
        #[serde(default, skip_serializing_if = "is_first")]
        step: u32,
    },
    /// See [`EffectKind::Undo`].
    Undo {
        /// Hash of the plan.
        plan_sha256: String,
        /// The step, counted from 0.
        #[serde(default, skip_serializing_if = "is_first")]
        step: u32,
        /// The secret of its approval.
        proof: String,
    },
    /// See [`EffectKind::Probe`].
    Probe {
        /// Hash of the plan.
        plan_sha256: String,
    },
    /// See [`EffectKind::Settle`].
    Settle {
        /// Hash of the plan.
        plan_sha256: String,
        /// The secret of its approval.
        proof: String,
    },
    /// See [`EffectKind::Message`].
    Message {
        /// The message and its recipients, in the format of the channel.
        message: serde_json::Value,
    },
}

impl EffectData {
    /// Returns the kind.
    pub const fn kind(&self) -> EffectKind {
        match self {
            Self::Read { .. } => EffectKind::Read,
            Self::DryRun { .. } => EffectKind::DryRun,
            Self::Authorization { .. } => EffectKind::Authorization,
            Self::Execution { .. } => EffectKind::Execution,
            Self::Undo { .. } => EffectKind::Undo,
            Self::Probe { .. } => EffectKind::Probe,
            Self::Settle { .. } => EffectKind::Settle,
            Self::Message { .. } => EffectKind::Message,
        }
    }
}

/// An effect that a change of an incident wants.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectRequest {
    /// The same for the same wish.
    pub id: String,
    /// What it acts on: effects with the same one are performed one at a time. Empty for none.
    pub resource: String,
    /// The data.
    pub data: EffectData,
    /// Time until it may be performed.
    pub wait: Duration,
    /// Time after which it is given up.
    pub lifetime: Duration,
}

impl EffectRequest {
    pub(crate) fn new(id: String, resource: String, data: EffectData) -> Self {
        Self { id, resource, wait: Duration::ZERO, lifetime: data.kind().lifetime(), data }
    }

    /// A check of a runbook for the diagnosis with this number. It holds up nothing else on its target.
    pub(crate) fn read(incident: &str, number: u32, check: &ReadCheck) -> Self {
        let id = format!("read:{incident}:{number}:{}", check.id);
        Self::new(id, String::new(), EffectData::Read { call: check.call.clone() })
    }

    /// The dry run of a step, counted from 0, for the diagnosis with this number.
    pub(crate) fn dry_run(incident: &str, number: u32, (step, call): (u32, &ToolCall)) -> Self {
        let id = of_step(format!("dry_run:{incident}:{number}"), step);
        Self::new(id, resource(call), EffectData::DryRun { call: call.clone() })
    }

    /// A message; `id` tells it from others of the incident.
    pub fn message(incident: &str, id: &str, message: serde_json::Value) -> Self {
        Self::new(format!("message:{incident}:{id}"), String::new(), EffectData::Message { message })
    }

    /// The search for an approval that was asked for, in case nothing else is heard of it; `id` tells several requests
    /// for one plan apart.
    pub fn probe(plan_sha256: &str, id: &str) -> Self {
        let data = EffectData::Probe { plan_sha256: plan_sha256.to_owned() };
        Self { wait: PROBE_WAIT, ..Self::new(format!("probe:{plan_sha256}:{id}"), String::new(), data) }
    }
}

/// The id of an effect of a step, counted from 0; that of the first one is the plan's.
pub(crate) fn of_step(id: String, step: u32) -> String {
    if step == 0 { id } else { format!("{id}:{step}") }
}

/// Skips the number of the first step, which earlier versions did not write.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_first(step: &u32) -> bool {
    *step == 0
}

/// The resource of a call: its target.
pub(crate) fn resource(call: &ToolCall) -> String {
    format!("{}:{}", call.tool, call.target)
}
