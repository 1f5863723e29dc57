//! The policy, asked again by the executor with what it knows itself: its own dry run, clock, ledger and configuration.
//!
//! The server asks the policy, too, to show people what is needed. What it says is not taken over: a server that is
//! taken over could say anything.

use std::sync::OnceLock;

use wardroom_domain::executor::RefusalCode;
use wardroom_domain::{DryRun, Entity, Plan, PolicyDecision, Principal, Timestamp};
use wardroom_policy::{ActionRequest, Actor, ApprovalRequest, Autonomy, Context, Policy, Target};

use crate::config::ExecutorConfig;
use crate::policy_file;
use crate::refusal::Refusal;

/// Confidence that stands for a cause of which an operator has said that its action may run by itself.
const DECLARED_CONFIDENCE_PERCENT: u32 = 100;

/// Returns how a plan may be carried out now.
pub(crate) fn decide(
    config: &ExecutorConfig,
    plan: &Plan,
    found: &DryRun,
    (actions_last_hour, break_glass): (usize, bool),
    now: Timestamp,
) -> Result<PolicyDecision, Refusal> {
    let target = target(config, plan);
    let settings = &config.policy;
    let autonomy = config.autonomy_of(&plan.call);
    let context = Context {
        windows: settings.windows_at(now),
        freezes: settings.freezes_at(now, &target),
        autonomy,
        confidence_percent: (autonomy != Autonomy::Ask).then_some(DECLARED_CONFIDENCE_PERCENT),
        actions_last_hour: u32::try_from(actions_last_hour).unwrap_or(u32::MAX),
        break_glass,
        ..Context::of_dry_run(found, now)
    };
    let request = ActionRequest::of_call(&plan.call, target, context);
    with_policy(config, |policy| policy.decide(&request))
}

/// Checks that a person may approve a plan.
pub(crate) fn check_approver(
    config: &ExecutorConfig,
    plan: &Plan,
    approver: Actor,
    approved_by: Vec<Principal>,
) -> Result<(), Refusal> {
    let request = ApprovalRequest {
        approver,
        proposer: Principal::wardroom(),
        requester: None,
        approved_by,
        risk: plan.dry_run.risk.clone(),
        channel: "executor".to_owned(),
        target: target(config, plan),
    };
    let decision = with_policy(config, |policy| policy.decide_approval(&request))?;
    match decision.answer.approvals() {
        Some(_) => Ok(()),
        None => Err((RefusalCode::NotAnApprover, describe(&decision))),
    }
}

/// Says what decided.
pub(crate) fn describe(decision: &PolicyDecision) -> String {
    format!("the policy: {} ({})", decision.reason, decision.rules.join(", "))
}

fn target(config: &ExecutorConfig, plan: &Plan) -> Target {
    let entity = Entity { name: plan.call.target.clone(), ..Entity::default() };
    config.policy.target(&entity, &plan.call.target)
}

/// Runs a question with the policy in force. A file is read at every use, so that a change is in force at once.
fn with_policy<T>(config: &ExecutorConfig, ask: impl FnOnce(&Policy) -> T) -> Result<T, Refusal> {
    static BUILTIN: OnceLock<Result<Policy, String>> = OnceLock::new();
    let unavailable = |error: String| (RefusalCode::Unavailable, error);
    match &config.policy.file {
        Some(file) => policy_file::read(file).map(|policy| ask(&policy)).map_err(unavailable),
        None => {
            let policy = BUILTIN.get_or_init(|| Policy::builtin().map_err(|error| error.to_string()));
            policy.as_ref().map(ask).map_err(|error| unavailable(error.clone()))
        }
    }
}
