//! Deliberate faults (feature `mutants`) with which the crash tests prove that they detect them.

/// Returns whether the named fault is enabled by `WARDROOM_MUTANT`. Always false in release builds.
#[cfg(feature = "mutants")]
#[expect(clippy::disallowed_methods, reason = "a build for tests only; the mutant is chosen per run")]
pub fn is_enabled(name: &str) -> bool {
    std::env::var("WARDROOM_MUTANT").is_ok_and(|chosen| chosen == name)
}

/// Returns whether the named fault is enabled: never, in this build.
#[cfg(not(feature = "mutants"))]
pub const fn is_enabled(_name: &str) -> bool {
    false
}
