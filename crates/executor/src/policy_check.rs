//! The policy, asked again by the executor with what it knows itself: its own dry run, clock, ledger and configuration.
//!
//! The server asks the policy, too, to show people what is needed. What it says is not taken over: a server that is
//! taken over could say anything.

use std::sync::OnceLock;

use wardroom_domain::executor::RefusalCode;
use wardroom_domain::{DryRun, Entity, Plan, PolicyDecision, Principal, Timestamp, ToolCall};
use wardroom_policy::{ActionRequest, Actor, ApprovalRequest, Autonomy, Context, Policy, Target};

use crate::config::ExecutorConfig;
use crate::refusal::Refusal;

/// Confidence that stands for a cause of which an operator has said that its action may run by itself.
const DECLARED_CONFIDENCE_PERCENT: u32 = 100;

/// What is known of a step when the policy is asked.
pub(crate) struct StepFacts<'a> {
    /// Its number, counted from 0.
    pub(crate) step: u32,
    /// Its call.
    pub(crate) call: &'a ToolCall,
    /// Its newest dry run.
    pub(crate) dry_run: &'a DryRun,
    /// Number of actions on its target within the last hour.
    pub(crate) actions_last_hour: usize,
}

/// Returns how a plan may be carried out now: as the strictest of these steps.
pub(crate) fn decide<'a>(
    config: &ExecutorConfig,
    plan: &Plan,
    steps: impl IntoIterator<Item = StepFacts<'a>>,
    break_glass: bool,
    now: Timestamp,
) -> Result<PolicyDecision, Refusal> {
    let mut decisions = Vec::new();
    for facts in steps {
        let decision = decide_step(config, plan, &facts, break_glass, now)?;
        decisions.push((plan.describe_step(facts.step), decision));
    }
    let none = || (RefusalCode::Invalid, "the plan has no such step".to_owned());
    PolicyDecision::strictest(decisions).ok_or_else(none)
}

/// Returns what the policy is asked about a plan before anything is known of its targets.
pub(crate) fn facts_of(plan: &Plan) -> impl Iterator<Item = StepFacts<'_>> {
    let steps = (0..).zip(plan.steps());
    steps.map(|(step, (call, dry_run))| StepFacts { step, call, dry_run, actions_last_hour: 0 })
}

fn decide_step(
    config: &ExecutorConfig,
    plan: &Plan,
    facts: &StepFacts<'_>,
    break_glass: bool,
    now: Timestamp,
) -> Result<PolicyDecision, Refusal> {
    let target = target(config, facts.call);
    let settings = &config.policy;
    // What an operator has said about one action says nothing about a plan of several.
    let autonomy = if plan.step_count() == 1 { config.autonomy_of(facts.call) } else { Autonomy::Ask };
    let context = Context {
        windows: settings.windows_at(now),
        freezes: settings.freezes_at(now, &target),
        autonomy,
        confidence_percent: (autonomy != Autonomy::Ask).then_some(DECLARED_CONFIDENCE_PERCENT),
        actions_last_hour: u32::try_from(facts.actions_last_hour).unwrap_or(u32::MAX),
        break_glass,
        ..Context::of_dry_run(facts.dry_run, now)
    };
    let request = ActionRequest::of_call(facts.call, target, context);
    with_policy(config, |policy| policy.decide(&request))
}

/// Checks that a person may approve every step of a plan.
pub(crate) fn check_approver(
    config: &ExecutorConfig,
    plan: &Plan,
    approver: &Actor,
    approved_by: &[Principal],
) -> Result<(), Refusal> {
    for (call, dry_run) in plan.steps() {
        let request = ApprovalRequest {
            approver: approver.clone(),
            proposer: Principal::wardroom(),
            requester: None,
            approved_by: approved_by.to_vec(),
            risk: dry_run.risk.clone(),
            channel: "executor".to_owned(),
            target: target(config, call),
        };
        let decision = with_policy(config, |policy| policy.decide_approval(&request))?;
        if decision.answer.approvals().is_none() {
            return Err((RefusalCode::NotAnApprover, describe(&decision)));
        }
    }
    Ok(())
}

/// Says what decided.
pub(crate) fn describe(decision: &PolicyDecision) -> String {
    format!("the policy: {} ({})", decision.reason, decision.rules.join(", "))
}

fn target(config: &ExecutorConfig, call: &ToolCall) -> Target {
    let entity = Entity { name: call.target.clone(), ..Entity::default() };
    config.policy.target(&entity, &call.target)
}

/// Runs a question with the policy in force.
fn with_policy<T>(config: &ExecutorConfig, ask: impl FnOnce(&Policy) -> T) -> Result<T, Refusal> {
    static BUILTIN: OnceLock<Result<Policy, String>> = OnceLock::new();
    let unavailable = |error: String| (RefusalCode::Unavailable, error);
    match config.policy_in_force() {
        Some(policy) => Ok(ask(policy)),
        None => {
            let policy = BUILTIN.get_or_init(|| Policy::builtin().map_err(|error| error.to_string()));
            policy.as_ref().map(ask).map_err(|error| unavailable(error.clone()))
        }
    }
}
