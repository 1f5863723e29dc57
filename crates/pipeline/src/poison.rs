//! A record that detection cannot take: tried again with growing patience, then laid aside.
//!
//! Problem: a record on which a detector panics would stop the detection of everything behind it, or be lost
//! without a word. Model: [`TRIES`] tries, each after twice the wait of the one before, then a dead letter
//! with the reason; the log moves on. What a half-taken try left behind stays: the samples before the one that
//! panicked may count several times in their baselines.

use std::time::Duration;

use wardroom_bus::{DeadLetters, Error, Reason, Record};
use wardroom_domain::{Timestamp, mutant};

use crate::metrics as names;
use wardroom_process::clock;

/// How often a record is tried.
pub const TRIES: u32 = 5;
/// The wait before the second try.
const PATIENCE: Duration = Duration::from_millis(50);
/// The name of detection among the bus' consumers.
pub const GROUP: &str = "detect";

/// Tries `work` until it succeeds; the reason of the last failure if it never does.
pub fn tries<T>(offset: u64, mut work: impl FnMut() -> Result<T, String>) -> Result<T, Reason> {
    let first_try = clock::now();
    let mut tried = 0;
    loop {
        tried += 1;
        let error = match work() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        tracing::error!(offset, tried, error, "detection cannot take a record");
        if tried >= TRIES {
            let (group, last_try) = (GROUP.to_owned(), clock::now());
            return Err(Reason { group, offset, reason: error, tries: tried, first_try, last_try });
        }
        std::thread::sleep(PATIENCE * 2_u32.pow(tried - 1));
    }
}

/// Lays a record aside; goes on trying while the disk refuses, unless `given_up` says that nobody waits.
pub fn bury(
    letters: &DeadLetters,
    runtime: &tokio::runtime::Handle,
    reason: &Reason,
    record: &Record,
    given_up: impl Fn() -> bool,
) {
    if mutant::on("drop-poison") {
        return;
    }
    while let Err(error) = runtime.block_on(letters.bury(reason.clone(), record)) {
        tracing::error!(%error, offset = record.offset, "a dead letter cannot be kept; detection waits");
        if given_up() {
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    metrics::counter!(names::DEAD_LETTERS_TOTAL).increment(1);
}

/// What a panic said.
pub fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_else(|| "no words".to_owned()))
}

/// The log line on which detection panics, in tests and in builds with the feature `mutants`.
#[cfg(any(test, feature = "mutants"))]
pub const POISON: &str = "wardroom: a poisoned line";

/// Makes the poison harmless, as a mended build would be.
#[cfg(test)]
pub static HARMLESS: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Panics on the poison.
#[cfg(any(test, feature = "mutants"))]
pub fn trip(batch: &wardroom_domain::Batch) {
    #[cfg(test)]
    let on = !HARMLESS.load(std::sync::atomic::Ordering::Acquire);
    #[cfg(not(test))]
    let on = mutant::on("poison") || mutant::on("drop-poison");
    assert!(!on || batch.logs.iter().all(|log| log.message != POISON), "poison");
}

/// Nothing, in this build.
#[cfg(not(any(test, feature = "mutants")))]
pub const fn trip(_: &wardroom_domain::Batch) {}

/// Panics on a line of which no row can be made, in builds with the feature `mutants`.
#[cfg(feature = "mutants")]
pub fn trip_row(batch: &wardroom_domain::Batch) {
    let odd = batch.logs.iter().any(|log| log.message == "wardroom: a line for no table");
    assert!(!odd || !mutant::on("poison"), "poison for a table");
}

/// The value of a sample that no table takes, in tests and in builds with the feature `mutants`.
#[cfg(any(test, feature = "mutants"))]
pub const POISON_VALUE: f64 = 6.66e-300;

/// Panics on a sample that no table takes.
#[cfg(any(test, feature = "mutants"))]
pub fn trip_samples(samples: &[wardroom_domain::Sample]) {
    #[cfg(test)]
    let on = !HARMLESS.load(std::sync::atomic::Ordering::Acquire);
    #[cfg(not(test))]
    let on = mutant::on("poison");
    assert!(!on || samples.iter().all(|sample| sample.value.to_bits() != POISON_VALUE.to_bits()), "a poisoned sample");
}

/// Nothing, in this build.
#[cfg(not(any(test, feature = "mutants")))]
pub const fn trip_samples(_: &[wardroom_domain::Sample]) {}

/// Nothing, in this build.
#[cfg(not(feature = "mutants"))]
pub const fn trip_row(_: &wardroom_domain::Batch) {}

/// A reason for a record that can never be read.
pub fn unreadable(offset: u64, detail: String, now: Timestamp) -> Reason {
    Reason { group: GROUP.to_owned(), offset, reason: detail, tries: 1, first_try: now, last_try: now }
}

/// The offsets that were laid aside before, by any tenant.
pub fn buried(letters: &DeadLetters) -> Result<std::collections::BTreeSet<u64>, Error> {
    letters.offsets(GROUP)
}
