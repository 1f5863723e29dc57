//! Faults on purpose (feature `mutants`), so that the crash tests can show that they would notice.

/// Whether the named fault is switched on by `WARDROOM_MUTANT`. Always false in shipped builds.
#[cfg(feature = "mutants")]
#[expect(clippy::disallowed_methods, reason = "a build for tests only; the mutant is chosen per run")]
pub fn on(name: &str) -> bool {
    std::env::var("WARDROOM_MUTANT").is_ok_and(|chosen| chosen == name)
}

/// Whether the named fault is switched on: never, in this build.
#[cfg(not(feature = "mutants"))]
pub const fn on(_name: &str) -> bool {
    false
}
