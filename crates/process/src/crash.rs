//! Points at which a test may have this process die, to prove that nothing is lost or done twice.
//!
//! Always built in, so that the shipped binary is what is tested: with `WARDROOM_CRASH_AT=<point>` the
//! process kills itself with SIGKILL when it gets there, once: the file that
//! `WARDROOM_CRASH_MARK` names remembers it. `wardroom crash-points` lists all points.

use std::sync::OnceLock;

use wardroom_domain::incident::TRANSITIONS;

/// Where, and the file that remembers that it happened.
static AIM: OnceLock<Option<(String, String)>> = OnceLock::new();

/// The steps of the executor: ledger writes and calls of an adapter.
pub const EXECUTOR_STEPS: [&str; 8] = [
    "ledger:authorized",
    "ledger:started",
    "ledger:finished",
    "ledger:undone",
    "adapter:plan",
    "adapter:execute",
    "adapter:probe",
    "adapter:undo",
];

/// Every point there is: the opening and each transition, each step of the executor, before and after.
pub fn points() -> Vec<String> {
    let mut steps = vec!["incident:open".to_owned()];
    steps.extend(TRANSITIONS.iter().map(|(from, to)| format!("incident:{from}-{to}")));
    steps.extend(EXECUTOR_STEPS.map(str::to_owned));
    steps.iter().flat_map(|step| [format!("{step}:before"), format!("{step}:after")]).collect()
}

/// The variables that aim.
const VARIABLES: [&str; 2] = ["WARDROOM_CRASH_AT", "WARDROOM_CRASH_MARK"];

/// What the executor gets of the environment; everything else is left out.
#[cfg(not(feature = "mutants"))]
pub const HANDED_ON: &[&str] = &VARIABLES;
/// The same, with the choice of a fault on purpose.
#[cfg(feature = "mutants")]
pub const HANDED_ON: &[&str] = &[VARIABLES[0], VARIABLES[1], "WARDROOM_MUTANT"];

/// Dies here, if this is where the test wants it and it has not happened yet.
#[expect(clippy::disallowed_methods, reason = "a test aims by environment; no configuration of the product")]
pub fn reach(step: &str, when: &str) {
    let aim = AIM.get_or_init(|| {
        let [at, mark] = VARIABLES.map(|name| std::env::var(name).ok());
        Some((at?, mark?))
    });
    let Some((at, mark)) = aim else { return };
    if at.strip_prefix(step).and_then(|rest| rest.strip_prefix(':')) != Some(when) {
        return;
    }
    // The mark is made first and with O_EXCL: of all processes and all restarts one dies, once.
    let marked = std::fs::OpenOptions::new().write(true).create_new(true).open(mark);
    if marked.is_ok() {
        let _cannot_fail = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn points_are_the_table_and_the_steps_before_and_after() {
        let points = super::points();
        assert_eq!(points.len(), 2 * (1 + wardroom_domain::incident::TRANSITIONS.len() + super::EXECUTOR_STEPS.len()));
        assert!(points.contains(&"incident:verifying-mitigated:after".to_owned()));
    }
}
