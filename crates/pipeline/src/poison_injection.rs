//! Injects poison records, for tests and for builds with the feature `mutants`. No-ops in other builds.

#[cfg(feature = "mutants")]
use wardroom_domain::mutant;

/// Log line on which detection panics.
#[cfg(any(test, feature = "mutants"))]
pub(crate) const POISON_LINE: &str = "wardroom: a poisoned line";

/// Value of a sample that cannot be encoded into a file.
#[cfg(any(test, feature = "mutants"))]
pub(crate) const POISON_VALUE: f64 = 6.66e-300;

/// Disables the poison, as a fixed build would.
#[cfg(test)]
pub(crate) static POISON_DISABLED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Panics on a batch with the poison line.
#[cfg(any(test, feature = "mutants"))]
pub(crate) fn panic_on_poison_line(batch: &wardroom_domain::Batch) {
    #[cfg(test)]
    let is_armed = !POISON_DISABLED.load(std::sync::atomic::Ordering::Acquire);
    #[cfg(not(test))]
    let is_armed = mutant::is_enabled("poison") || mutant::is_enabled("drop-poison");
    assert!(!is_armed || batch.logs.iter().all(|log| log.message != POISON_LINE), "poison");
}

/// Does nothing in this build.
#[cfg(not(any(test, feature = "mutants")))]
pub(crate) const fn panic_on_poison_line(_: &wardroom_domain::Batch) {}

/// Panics on a log line that cannot be turned into a row.
#[cfg(feature = "mutants")]
pub(crate) fn panic_on_poison_row(batch: &wardroom_domain::Batch) {
    let is_poisoned = batch.logs.iter().any(|log| log.message == "wardroom: a line for no table");
    assert!(!is_poisoned || !mutant::is_enabled("poison"), "poison for a table");
}

/// Does nothing in this build.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn panic_on_poison_row(_: &wardroom_domain::Batch) {}

/// Panics on a sample with the poison value.
#[cfg(any(test, feature = "mutants"))]
pub(crate) fn panic_on_poison_sample(samples: &[wardroom_domain::Sample]) {
    #[cfg(test)]
    let is_armed = !POISON_DISABLED.load(std::sync::atomic::Ordering::Acquire);
    #[cfg(not(test))]
    let is_armed = mutant::is_enabled("poison");
    assert!(
        !is_armed || samples.iter().all(|sample| sample.value.to_bits() != POISON_VALUE.to_bits()),
        "poisoned sample"
    );
}

/// Does nothing in this build.
#[cfg(not(any(test, feature = "mutants")))]
pub(crate) const fn panic_on_poison_sample(_: &[wardroom_domain::Sample]) {}
