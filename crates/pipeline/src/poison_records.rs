//! Poison records: retried with exponential backoff, then dead-lettered.
//!
//! Problem: a record on which a detector panics would block detection of everything behind it, or be lost silently.
//! Model: [`MAX_ATTEMPTS`] attempts with doubling delay, then a dead letter with the reason, and processing continues
//! with the next record. Effects of a failed attempt are not rolled back: samples before the one that panicked may
//! count several times in their baselines.

use std::collections::BTreeSet;
use std::time::Duration;

use wardroom_bus::{DeadLetterReason, DeadLetters, Error, Record};
use wardroom_domain::{Timestamp, mutant};
use wardroom_process::clock;

use crate::consumer_groups;
use crate::metrics as names;

/// Attempts before a record is dead-lettered.
pub const MAX_ATTEMPTS: u32 = 5;
/// Delay before the second attempt; it doubles after each further one.
const INITIAL_RETRY_DELAY: Duration = Duration::from_millis(50);
/// Delay between attempts to store a dead letter.
const DEAD_LETTER_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Runs `work` up to [`MAX_ATTEMPTS`] times with backoff; returns the reason of the last failure.
pub fn retry_record<T>(offset: u64, mut work: impl FnMut() -> Result<T, String>) -> Result<T, DeadLetterReason> {
    let first_try = clock::now();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match work() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        tracing::error!(offset, attempt, error, "processing a record failed");
        if attempt >= MAX_ATTEMPTS {
            let (group, last_try) = (consumer_groups::DETECT.to_owned(), clock::now());
            return Err(DeadLetterReason { group, offset, reason: error, tries: attempt, first_try, last_try });
        }
        std::thread::sleep(INITIAL_RETRY_DELAY * 2_u32.pow(attempt - 1));
    }
}

/// Dead-letters a record. Retries while the disk fails, unless `cancelled` returns true.
pub fn dead_letter(
    dead_letters: &DeadLetters,
    runtime: &tokio::runtime::Handle,
    reason: &DeadLetterReason,
    record: &Record,
    cancelled: impl Fn() -> bool,
) {
    if mutant::is_enabled("drop-poison") {
        return;
    }
    while let Err(error) = runtime.block_on(dead_letters.add(reason.clone(), record)) {
        tracing::error!(%error, offset = record.offset, "storing a dead letter failed; retrying");
        if cancelled() {
            return;
        }
        std::thread::sleep(DEAD_LETTER_RETRY_DELAY);
    }
    metrics::counter!(names::DEAD_LETTERS_TOTAL).increment(1);
}

/// Returns the message of a panic.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}

/// Returns the reason for a record that cannot be decoded: one attempt, since decoding is deterministic.
pub fn undecodable(offset: u64, detail: String, now: Timestamp) -> DeadLetterReason {
    let group = consumer_groups::DETECT.to_owned();
    DeadLetterReason { group, offset, reason: detail, tries: 1, first_try: now, last_try: now }
}

/// Returns the offsets that detection dead-lettered before, of all tenants.
///
/// # Errors
/// Returns an error if the dead letters cannot be read.
pub fn dead_lettered_offsets(dead_letters: &DeadLetters) -> Result<BTreeSet<u64>, Error> {
    dead_letters.offsets(consumer_groups::DETECT)
}
