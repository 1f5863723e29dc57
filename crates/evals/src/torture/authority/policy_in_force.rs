//! Bar 6h: the executor carries out nothing that its own policy forbids, whatever the server asks for. `kills` is the
//! number of rounds; each goes through all situations.
//!
//! In the first rounds it also carries out what the policy permits, and the target counts that: the policy itself
//! limits the number of actions within an hour.

use serde_json::{Value, json};
use wardroom_domain::Plan;
use wardroom_domain::Timestamp;
use wardroom_domain::approval_proof::ProofAction;
use wardroom_domain::executor::RefusalCode;
use wardroom_testing::now_ms;

use super::asked_executor::{AskedExecutor, TARGET, statement};
use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;

/// Rounds in which permitted actions are carried out, too: three each, and the policy allows thirty within an hour.
const EXECUTING_ROUNDS: u64 = 5;
/// A rule that forbids everything on the target.
const FORBIDDEN: &str =
    "@id(\"never\")\n@reason(\"never\")\nforbid (principal, action in Action::\"act\", resource);\n";

/// Runs the rounds.
pub(in crate::torture) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("6h")?;
    let mut executor = AskedExecutor::start(&dir, options)?;
    let policy_file = executor.config_folder().join("policy.cedar");
    std::fs::write(&policy_file, format!("{}\n{FORBIDDEN}", wardroom_roles::policy::DEFAULT_POLICY))?;
    let mut result = BarResult::default();
    for round in 0..options.kills.max(1) {
        let mut check = Check { executor: &mut executor, result: &mut result, round };
        check.refused("a freeze", &freeze(), Approvers::One)?;
        check.refused("a rule of a file", &json!({ "file": policy_file }), Approvers::One)?;
        check.refused("one approval of two", &critical(), Approvers::One)?;
        check.refused("one person twice", &critical(), Approvers::SameTwice)?;
        check.refused("shadow mode", &json!({ "shadow": true }), Approvers::One)?;
        check.freeze_after_the_approval()?;
        if round < EXECUTING_ROUNDS {
            check.executed("no objection", &json!({}), Approvers::One)?;
            check.executed("two approvals", &critical(), Approvers::Two)?;
            check.executed("break-glass over a freeze", &freeze(), Approvers::BreakGlass)?;
        }
        print_progress(format!("{} of {} rounds: {} situations", round + 1, options.kills.max(1), result.issued));
        if options.mutant.is_some() && !result.is_clean() {
            break;
        }
    }
    drop(executor);
    std::fs::remove_dir_all(&dir)?;
    Ok(result)
}

/// A change freeze that is in force.
fn freeze() -> Value {
    let at = |minutes: i64| Timestamp::from_millis(now_ms() + minutes * 60_000);
    json!({ "freezes": [{ "name": "release", "from": at(-5), "to": at(60) }] })
}

/// The target is critical, and a restart cannot be undone: two people approve.
fn critical() -> Value {
    json!({ "entities": [{ "name": TARGET, "criticality": "critical" }] })
}

/// Who approves a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Approvers {
    One,
    Two,
    SameTwice,
    BreakGlass,
}

/// One round.
struct Check<'a> {
    executor: &'a mut AskedExecutor,
    result: &'a mut BarResult,
    round: u64,
}

impl Check<'_> {
    /// A plan that must not be carried out.
    fn refused(&mut self, what: &str, policy: &Value, approvers: Approvers) -> anyhow::Result<()> {
        let (before, plan) = (self.executor.effects()?, self.plan()?);
        self.executor.configure(policy)?;
        let answers = self.approve(&plan, approvers)?;
        let executed = self.execute(&plan)?;
        let effects = self.executor.effects()? - before;
        self.result.spurious += effects;
        // One that permits the action until another situation comes is no fault; the execution is one.
        self.note(executed.is_some() && effects == 0, what, &format!("{answers:?}, {executed:?}"));
        Ok(())
    }

    /// A plan that must be carried out once.
    fn executed(&mut self, what: &str, policy: &Value, approvers: Approvers) -> anyhow::Result<()> {
        let (before, plan) = (self.executor.effects()?, self.plan()?);
        self.executor.configure(policy)?;
        let answers = self.approve(&plan, approvers)?;
        let executed = self.execute(&plan)?;
        let effects = self.executor.effects()? - before;
        self.result.missing += 1_u64.saturating_sub(effects);
        self.result.duplicate += effects.saturating_sub(1);
        let is_right = answers.iter().all(Option::is_none) && executed.is_none();
        self.note(is_right && effects == 1, what, &format!("{answers:?}, {executed:?}, {effects} effects"));
        if approvers == Approvers::BreakGlass {
            // Another person reviews it, or the next one is refused.
            let proof = self.executor.sign("bob", &statement(ProofAction::Review, &plan)?)?;
            let proof = proof.to_text().map_err(anyhow::Error::msg)?;
            let review = json!({ "op": "review", "plan_sha256": hash_of(&plan)?, "proof": proof });
            let refused = self.executor.refusal_of(&review)?;
            self.note(refused.is_none(), "the review of break-glass", &format!("{refused:?}"));
        }
        Ok(())
    }

    /// The policy is asked again when the plan is started.
    fn freeze_after_the_approval(&mut self) -> anyhow::Result<()> {
        let (before, plan) = (self.executor.effects()?, self.plan()?);
        self.executor.configure(&json!({}))?;
        let answers = self.approve(&plan, Approvers::One)?;
        self.executor.configure(&freeze())?;
        let executed = self.execute(&plan)?;
        let effects = self.executor.effects()? - before;
        self.result.spurious += effects;
        let is_right = answers == [None] && executed == Some(RefusalCode::Denied) && effects == 0;
        self.note(is_right, "a freeze after the approval", &format!("{answers:?}, {executed:?}"));
        Ok(())
    }

    /// Makes a plan; the policy is asked about it later.
    fn plan(&mut self) -> anyhow::Result<Plan> {
        self.executor.configure(&json!({}))?;
        self.executor.plan()
    }

    /// Returns the refusal of each approval.
    fn approve(&self, plan: &Plan, approvers: Approvers) -> anyhow::Result<Vec<Option<RefusalCode>>> {
        let names: &[&str] = match approvers {
            Approvers::One | Approvers::BreakGlass => &["alice"],
            Approvers::Two => &["alice", "bob"],
            Approvers::SameTwice => &["alice", "alice"],
        };
        let mut answers = Vec::new();
        for name in names {
            let action =
                if approvers == Approvers::BreakGlass { ProofAction::BreakGlass } else { ProofAction::Approve };
            let mut statement = statement(action, plan)?;
            if approvers == Approvers::BreakGlass {
                statement.reason = Some("the shop is down".to_owned());
            }
            let proof = self.executor.sign(name, &statement)?.to_text().map_err(anyhow::Error::msg)?;
            answers.push(self.executor.authorize(plan, &hash_of(plan)?, &proof)?);
        }
        Ok(answers)
    }

    fn execute(&self, plan: &Plan) -> anyhow::Result<Option<RefusalCode>> {
        self.executor.execute(&hash_of(plan)?)
    }

    fn note(&mut self, is_right: bool, what: &str, answers: &str) {
        self.result.issued += 1;
        self.result.acked += u64::from(is_right);
        if !is_right {
            self.result.faults.push(format!("round {}, {what}: {answers}", self.round));
        }
    }
}

fn hash_of(plan: &Plan) -> anyhow::Result<String> {
    plan.sha256().map_err(anyhow::Error::msg)
}
