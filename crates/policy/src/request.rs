//! What the policy is asked.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::{AccessRole, DryRun, Entity, Principal, Timestamp, ToolCall};

/// Whether an actor is a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActorKind {
    /// A person.
    #[default]
    Person,
    /// A program, such as Wardroom itself, a CI job or a sender.
    Service,
}

/// A person or program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Its name.
    pub principal: Principal,
    /// Whether it is a person.
    pub kind: ActorKind,
    /// Its access role; `None` if unknown.
    pub role: Option<AccessRole>,
}

impl Actor {
    /// Returns Wardroom itself, which proposes actions.
    pub fn wardroom() -> Self {
        Self { principal: Principal::wardroom(), kind: ActorKind::Service, role: None }
    }

    /// Returns a person.
    pub const fn person(principal: Principal, role: AccessRole) -> Self {
        Self { principal, kind: ActorKind::Person, role: Some(role) }
    }
}

/// How much depends on a target, as declared in `policy.entities`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Criticality {
    /// Few would notice.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Customers notice at once.
    High,
    /// The business stops.
    Critical,
}

impl Criticality {
    /// All, in ascending order.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// Returns the spelling in rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What an action changes. `Config::target` fills it from the declared entities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The entity.
    pub entity: Entity,
    /// How much depends on it.
    pub criticality: Criticality,
    /// The team that owns it; empty if undeclared.
    pub owner: String,
    /// Whether Wardroom itself runs on it: its host, store or bus.
    pub is_wardroom: bool,
    /// The executor's name of the target.
    pub name: String,
}

/// What an action has earned for a cause; see [`crate::autonomy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Autonomy {
    /// A person is asked.
    #[default]
    Ask,
    /// Runs without approval in the time window `night`.
    Night,
    /// Runs without approval.
    Automatic,
}

impl Autonomy {
    /// All levels, in ascending order.
    pub const ALL: [Self; 3] = [Self::Ask, Self::Night, Self::Automatic];

    /// Returns the spelling in rules, JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Night => "night",
            Self::Automatic => "automatic",
        }
    }

    /// Parses a level.
    ///
    /// # Errors
    /// Returns the known levels if the word is not one of them.
    pub fn parse(word: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|level| level.as_str() == word);
        known.ok_or_else(|| format!("unknown level {word:?}: use ask, night or automatic"))
    }
}

/// The circumstances of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// `none` (read only), `low`, `medium`, `high` or `critical`; another word is judged as `critical`.
    pub risk: String,
    /// Whether the action can be undone.
    pub reversible: bool,
    /// Number of things that are interrupted or changed, as the dry run measured it.
    pub blast_radius: Option<u64>,
    /// Confidence in the cause, 0 to 100.
    pub confidence_percent: Option<u32>,
    /// Age of the newest evidence, in seconds.
    pub evidence_age_seconds: Option<u32>,
    /// The time of the decision.
    pub at: Timestamp,
    /// Names of the time windows in force.
    pub windows: BTreeSet<String>,
    /// Names of the change freezes in force for the target.
    pub freezes: BTreeSet<String>,
    /// The rule that names the cause; empty if unknown.
    pub cause: String,
    /// Number of times that the action helped for this cause.
    pub successes: u32,
    /// Number of times that it did not help or was wrong.
    pub failures: u32,
    /// What the action has earned for this cause.
    pub autonomy: Autonomy,
    /// Number of actions on the target within the last hour.
    pub actions_last_hour: u32,
    /// Whether a person has declared an emergency.
    pub break_glass: bool,
}

impl Context {
    /// Creates the context of an action of which only the risk is known.
    pub fn new(risk: impl Into<String>, at: Timestamp) -> Self {
        Self {
            risk: risk.into(),
            reversible: false,
            blast_radius: None,
            confidence_percent: None,
            evidence_age_seconds: None,
            at,
            windows: BTreeSet::new(),
            freezes: BTreeSet::new(),
            cause: String::new(),
            successes: 0,
            failures: 0,
            autonomy: Autonomy::Ask,
            actions_last_hour: 0,
            break_glass: false,
        }
    }

    /// Creates the context of an action from its dry run.
    pub fn of_dry_run(dry_run: &DryRun, at: Timestamp) -> Self {
        let (reversible, blast_radius) = (dry_run.reversible, dry_run.affected);
        Self { reversible, blast_radius, ..Self::new(dry_run.risk.clone(), at) }
    }
}

/// May this action be carried out, and who has to approve it?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionRequest {
    /// Who proposes the action.
    pub principal: Actor,
    /// The tool.
    pub tool: String,
    /// The operation of the tool.
    pub operation: String,
    /// What is changed.
    pub target: Target,
    /// The circumstances.
    pub context: Context,
}

impl ActionRequest {
    /// Creates the request for a call that Wardroom proposes.
    pub fn of_call(call: &ToolCall, target: Target, context: Context) -> Self {
        let (tool, operation) = (call.tool.clone(), call.operation.clone());
        Self { principal: Actor::wardroom(), tool, operation, target, context }
    }
}

/// May this person approve this plan?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRequest {
    /// Who wants to approve.
    pub approver: Actor,
    /// Who proposed the plan.
    pub proposer: Principal,
    /// Who asked for it, if that was not the proposer.
    pub requester: Option<Principal>,
    /// Who has approved it already.
    pub approved_by: Vec<Principal>,
    /// Risk of the plan.
    pub risk: String,
    /// Where the approval came from: `http`, `cli`, `page`, or the name of a channel.
    pub channel: String,
    /// What the plan changes.
    pub target: Target,
}
