//! The contract suite of tools: what every operation that changes something must hold.
//!
//! The effects are counted by the target, not by the tool. An interrupted execution is simulated by cutting the tool
//! off from its target at each of its steps, before and after the step takes place, for good: what an executor that was
//! killed there has done. Then a tool that is not cut off recovers as the executor does: it probes, and repeats only
//! what certainly did not happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use wardroom_domain::{Outcome, ToolCall};
use wardroom_respond::{Run, Tool, ToolError};
use wardroom_tools::programs::{ProgramCall, ProgramOutput, Programs};

/// An operation on a target, as the suite needs it.
pub(crate) struct Case<'a> {
    pub tool: &'a dyn Tool,
    pub call: ToolCall,
    /// Changes the target so that a plan of the call is stale, and can be made again.
    pub other_change: &'a dyn Fn(),
    /// Number of effects on the target so far, counted by the target.
    pub effects: &'a dyn Fn() -> usize,
    /// Prefix of the keys; different for each use of one target.
    pub key: &'a str,
}

impl Case<'_> {
    fn operation(&self) -> wardroom_respond::Operation {
        let operations = self.tool.operations(&self.call.target);
        operations.into_iter().find(|operation| operation.name == self.call.operation).expect("the operation exists")
    }
}

/// Runs all promises that need no cut.
pub(crate) fn check(case: &Case<'_>) {
    refused(case);
    twice_and_undone(case);
    stale(case);
}

/// Calls that are not declared or not valid have no effect.
pub(crate) fn refused(case: &Case<'_>) {
    let before = (case.effects)();
    let change = |change: fn(&mut ToolCall)| {
        let mut call = case.call.clone();
        change(&mut call);
        call
    };
    for call in [
        change(|call| call.target = "no_such_target".into()),
        change(|call| call.operation = "no_such_operation".into()),
        change(|call| {
            call.arguments.insert("no_such_argument".into(), json!(1));
        }),
    ] {
        assert!(matches!(case.tool.check(&call), Err(ToolError::Invalid(_))), "{call:?}");
        assert!(matches!(case.tool.plan(&call), Err(ToolError::Invalid(_))), "{call:?}");
        let executed = case.tool.execute(&call, &Run::new("state", "refused"));
        assert!(matches!(executed, Err(ToolError::Invalid(_))), "{call:?}");
    }
    let call = &case.call;
    let executed = case.tool.execute(call, &Run::new("no such state", "refused"));
    assert!(matches!(executed, Err(ToolError::Stale(_))), "{call:?}: {executed:?}");
    assert_eq!((case.effects)(), before, "{call:?}: what is refused has no effect");
}

/// A dry run has no effect, an execution one, a repeated execution none, and the undo restores.
pub(crate) fn twice_and_undone(case: &Case<'_>) {
    let Case { tool, call, key, .. } = case;
    let operation = case.operation();
    let before = (case.effects)();
    let dry_run = tool.plan(call).unwrap();
    assert_eq!(tool.plan(call).unwrap(), dry_run, "{call:?}: two plans of an unchanged target are equal");
    assert_eq!(tool.state(call).unwrap(), dry_run.precondition, "{call:?}: the state is the precondition");
    assert!(["low", "medium", "high"].contains(&dry_run.risk.as_str()), "{dry_run:?}");
    assert!(!dry_run.diff.is_empty() && !dry_run.blast_radius.is_empty(), "{dry_run:?}");
    assert_eq!(dry_run.reversible, dry_run.undo.is_some(), "{dry_run:?}");
    assert!(operation.reversible || !dry_run.reversible, "{dry_run:?}: more than the operation promises");
    assert_eq!((case.effects)(), before, "{call:?}: a dry run has no effect");
    let key = format!("{key}-twice");
    assert_eq!(tool.probe(call, &dry_run.precondition, &key).unwrap(), Outcome::NotApplied, "{call:?}");
    for time in ["first", "second"] {
        let applied = tool.execute(call, &Run::new(&dry_run.precondition, &key)).unwrap();
        assert_eq!(applied.outcome, Outcome::Applied, "{call:?}, {time} time: {applied:?}");
    }
    assert_eq!((case.effects)(), before + 1, "{call:?}: executed twice, effective once");
    assert_eq!(tool.probe(call, &dry_run.precondition, &key).unwrap(), Outcome::Applied, "{call:?}");
    let Some(undo) = &dry_run.undo else { return };
    assert_eq!((&undo.tool, &undo.target), (&call.tool, &call.target), "an undo acts on nothing else");
    tool.check(undo).unwrap();
    let (state, undo_key) = (tool.state(undo).unwrap(), format!("{key}-undo"));
    for _ in 0..2 {
        let undone = tool.execute(undo, &Run::new(&state, &undo_key)).unwrap();
        assert_eq!(undone.outcome, Outcome::Applied, "{undo:?}: {undone:?}");
    }
    assert_eq!((case.effects)(), before + 2, "{call:?}: undone twice, effective once");
    assert_eq!(tool.plan(call).unwrap().diff, dry_run.diff, "{call:?}: the state is restored");
    // What the executor repeats was not applied, and finds the state of the plan.
    let is_not_applied = tool.probe(call, &dry_run.precondition, &key).unwrap() == Outcome::NotApplied;
    let is_as_before = tool.state(call).unwrap() == dry_run.precondition;
    assert!(!(is_not_applied && is_as_before), "{call:?}: it took effect, and must not be repeated");
}

/// A target that changed between dry run and execution is left alone.
pub(crate) fn stale(case: &Case<'_>) {
    let Case { tool, call, key, .. } = case;
    let dry_run = tool.plan(call).unwrap();
    (case.other_change)();
    let before = (case.effects)();
    assert_ne!(tool.state(call).unwrap(), dry_run.precondition, "{call:?}: the change is seen");
    let executed = tool.execute(call, &Run::new(&dry_run.precondition, &format!("{key}-stale")));
    let Err(ToolError::Stale(text)) = &executed else { panic!("{call:?}: {executed:?}") };
    assert!(!text.is_empty());
    assert!(executed.unwrap_err().to_string().starts_with("plan is stale: "));
    assert_eq!((case.effects)(), before, "{call:?}: a stale plan has no effect");
}

/// Cuts a tool off from its target.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    /// Steps that still pass.
    left: AtomicUsize,
    /// Whether the step at which it happens still takes place.
    after: AtomicBool,
    armed: AtomicBool,
    happened: AtomicBool,
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Passes,
    /// Takes place, but its result does not arrive.
    Lost,
    Blocked,
}

impl Cut {
    fn arm(&self, steps: usize, after: bool) {
        self.left.store(steps, Ordering::SeqCst);
        self.after.store(after, Ordering::SeqCst);
        self.happened.store(false, Ordering::SeqCst);
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Ends the cut; whether it happened.
    fn disarm(&self) -> bool {
        self.armed.store(false, Ordering::SeqCst);
        self.happened.load(Ordering::SeqCst)
    }

    /// Whether the tool is cut off.
    pub(crate) fn step(&self) -> Step {
        if !self.armed.load(Ordering::SeqCst) {
            return Step::Passes;
        }
        if self.happened.load(Ordering::SeqCst) {
            return Step::Blocked;
        }
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Step::Passes;
        }
        self.happened.store(true, Ordering::SeqCst);
        if self.after.load(Ordering::SeqCst) { Step::Lost } else { Step::Blocked }
    }
}

/// Programs that are cut off.
#[derive(Debug)]
pub(crate) struct CutPrograms<P> {
    pub programs: P,
    pub cut: Arc<Cut>,
}

impl<P: Programs> Programs for CutPrograms<P> {
    fn run(&self, call: &ProgramCall) -> Result<ProgramOutput, ToolError> {
        let step = self.cut.step();
        let output = if step == Step::Blocked { None } else { Some(self.programs.run(call)) };
        let cut = || ToolError::Unavailable("cut off".to_owned());
        output.filter(|_| step == Step::Passes).ok_or_else(cut)?
    }
}

/// Interrupts an execution at every step, before and after it, and recovers. `cut_off` is the tool behind the cut.
/// Returns the number of interruptions.
pub(crate) fn interrupted_everywhere(case: &Case<'_>, cut_off: &dyn Tool, cut: &Cut) -> usize {
    let mut interruptions = 0;
    for step in 0.. {
        assert!(step < 200, "the execution never completes");
        for after in [false, true] {
            if !interrupted(case, cut_off, cut, step, after) {
                return interruptions;
            }
            interruptions += 1;
        }
    }
    interruptions
}

/// Interrupts an execution at one step and recovers; false if the execution has fewer steps.
pub(crate) fn interrupted(case: &Case<'_>, cut_off: &dyn Tool, cut: &Cut, step: usize, after: bool) -> bool {
    let Case { tool, call, key, .. } = case;
    let dry_run = tool.plan(call).unwrap();
    let (before, key) = ((case.effects)(), format!("{key}-cut-{step}-{after}"));
    let run = Run::new(&dry_run.precondition, &key);
    cut.arm(step, after);
    let executed = cut_off.execute(call, &run);
    if !cut.disarm() {
        assert_eq!(executed.unwrap().outcome, Outcome::Applied);
        return false;
    }
    let place = format!("{call:?}, step {step}, after {after}, {executed:?}");
    let effects = || (case.effects)() - before;
    match tool.probe(call, &dry_run.precondition, &key).unwrap() {
        Outcome::Applied => assert_eq!(effects(), 1, "{place}: found applied"),
        Outcome::Unknown => assert!(effects() <= 1, "{place}: left to a person"),
        Outcome::NotApplied => {
            assert_eq!(effects(), 0, "{place}: found not applied");
            assert_eq!(tool.state(call).unwrap(), dry_run.precondition, "{place}");
            let repeated = tool.execute(call, &run).unwrap();
            assert_eq!((repeated.outcome, effects()), (Outcome::Applied, 1), "{place}: repeated");
        }
    }
    if let Some(undo) = &dry_run.undo
        && effects() == 1
    {
        let state = tool.state(undo).unwrap();
        tool.execute(undo, &Run::new(&state, &format!("{key}-undo"))).unwrap();
    }
    true
}
