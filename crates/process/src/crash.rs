//! Crash points: places where a test can kill the process, to prove that nothing is lost or done twice.
//!
//! Always compiled in, so that the release binary is what is tested. With `WARDROOM_CRASH_AT=<point>` the process kills
//! itself with SIGKILL at that point, once: the file named by `WARDROOM_CRASH_MARK` records it.
//! `wardroom crash-points` lists all points.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use wardroom_domain::incident::TRANSITIONS;

/// The selected crash point and its marker file.
static SELECTED_CRASH_POINT: OnceLock<Option<(String, String)>> = OnceLock::new();

/// The steps of the executor: ledger writes and adapter calls.
pub const EXECUTOR_STEPS: [&str; 9] = [
    "ledger:authorized",
    "ledger:started",
    "ledger:finished",
    "ledger:undone",
    "ledger:settled",
    "adapter:plan",
    "adapter:execute",
    "adapter:probe",
    "adapter:undo",
];

/// The kinds of effects that every approved and undone plan has; each is leased, and finished with its result.
pub const EFFECT_KINDS: [&str; 4] = ["dry_run", "execution", "undo", "settle"];

/// The effects that only a runbook with checks, or a plan of several steps, has.
pub const STEP_EFFECTS: [&str; 3] = ["read", "execution_later", "undo_later"];

/// The changes of an incident whose state stays: a check or a dry run has ended, a step or its undo has.
pub const SAVED_CHANGES: [&str; 2] = ["plan_prepared", "step_ended"];

/// Returns all crash points: before and after the opening of an incident, each transition, each change without one, the
/// end of each kind of effect and each executor step, and after the lease of each kind of effect.
pub fn points() -> Vec<String> {
    let mut steps = vec!["incident:open".to_owned()];
    steps.extend(TRANSITIONS.iter().map(|(from, to)| format!("incident:{from}-{to}")));
    steps.extend(SAVED_CHANGES.map(|change| format!("incident:{change}")));
    let effects = || EFFECT_KINDS.into_iter().chain(STEP_EFFECTS);
    steps.extend(effects().map(|kind| format!("effect:{kind}-finish")));
    steps.extend(EXECUTOR_STEPS.map(str::to_owned));
    let points = steps.iter().flat_map(|step| [format!("{step}:before"), format!("{step}:after")]);
    points.chain(effects().map(|kind| format!("effect:{kind}-lease:after"))).collect()
}

/// The environment variables that select a crash point and its marker file.
const CRASH_VARIABLES: [&str; 2] = ["WARDROOM_CRASH_AT", "WARDROOM_CRASH_MARK"];

/// Variables of OpenTelemetry that name the collector of traces.
const TRACE_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"];

/// The environment variables that are passed to the executor; all others are removed.
#[cfg(not(feature = "mutants"))]
pub const EXECUTOR_ENV: &[&str] = &[CRASH_VARIABLES[0], CRASH_VARIABLES[1], TRACE_VARIABLES[0], TRACE_VARIABLES[1]];
/// The environment variables that are passed to the executor, including the one that selects a deliberate fault.
#[cfg(feature = "mutants")]
pub const EXECUTOR_ENV: &[&str] =
    &[CRASH_VARIABLES[0], CRASH_VARIABLES[1], TRACE_VARIABLES[0], TRACE_VARIABLES[1], "WARDROOM_MUTANT"];

/// Returns the folder of the file that records the selected crash point, if one is selected.
pub(crate) fn marker_folder() -> Option<PathBuf> {
    let (_, marker) = selected().as_ref()?;
    Path::new(marker).parent().map(Path::to_owned)
}

#[expect(
    clippy::disallowed_methods,
    reason = "crash points are selected by environment variables, not by configuration"
)]
fn selected() -> &'static Option<(String, String)> {
    SELECTED_CRASH_POINT.get_or_init(|| {
        let [point, marker] = CRASH_VARIABLES.map(|name| std::env::var(name).ok());
        Some((point?, marker?))
    })
}

/// Kills the process if this crash point is selected and has not been hit yet.
pub fn maybe_crash(step: &str, when: &str) {
    let Some((point, marker)) = selected() else { return };
    if point.strip_prefix(step).and_then(|rest| rest.strip_prefix(':')) != Some(when) {
        return;
    }
    // O_EXCL: across all processes and restarts exactly one creates the marker and is killed.
    let created = std::fs::OpenOptions::new().write(true).create_new(true).open(marker);
    if created.is_ok() {
        let _cannot_fail = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn covers_all_transitions_and_steps_before_and_after() {
        let points = super::points();
        let changes = 1 + wardroom_domain::incident::TRANSITIONS.len() + super::SAVED_CHANGES.len();
        let effects = super::EFFECT_KINDS.len() + super::STEP_EFFECTS.len();
        assert_eq!(points.len(), 2 * (changes + super::EXECUTOR_STEPS.len()) + 3 * effects);
        assert!(points.contains(&"effect:execution-lease:after".to_owned()));
        assert!(points.contains(&"incident:verifying-mitigated:after".to_owned()));
    }
}
