//! How often a login may be tried: by account and by address.
//!
//! Problem: passwords can be guessed. Model: failures are counted for the account and for the client's address; from a
//! number on, each further one doubles the wait. Guarantee: the memory is bounded, and who is throttled learns when to
//! try again. A success ends the count of the account, not the one of the address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use wardroom_domain::Timestamp;

/// Failures of an account without a wait.
const FREE_ACCOUNT_FAILURES: u32 = 5;
/// Failures of an address without a wait; many people may share one.
const FREE_ADDRESS_FAILURES: u32 = 20;
/// First wait; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(900);
/// Failures longer ago than this do not count.
const MEMORY: Duration = Duration::from_secs(3600);
/// Accounts and addresses that are remembered; the one that failed longest ago is forgotten first.
const MAX_ENTRIES: usize = 10_000;

/// The failures of the last hour.
#[derive(Clone, Debug, Default)]
pub struct LoginThrottle {
    failures: HashMap<Subject, Failures>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Account(String),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Timestamp,
}

impl LoginThrottle {
    /// Checks whether a login may be tried now.
    ///
    /// # Errors
    /// Returns the time to wait.
    pub fn check(&self, account: &str, address: Option<IpAddr>, now: Timestamp) -> Result<(), Duration> {
        let waits = subjects(account, address).filter_map(|subject| {
            let failures = self.failures.get(&subject)?;
            let end = failures.last.plus(wait_after(failures.count, subject.free_failures()));
            (end > now).then(|| Duration::from_secs_f64(end.seconds_since(now)))
        });
        waits.max().map_or(Ok(()), Err)
    }

    /// Counts a failure.
    pub fn note_failure(&mut self, account: &str, address: Option<IpAddr>, now: Timestamp) {
        if self.failures.len() + 2 > MAX_ENTRIES {
            self.forget(now);
        }
        for subject in subjects(account, address) {
            let failures = self.failures.entry(subject).or_insert(Failures { count: 0, last: now });
            let is_old = failures.last.plus(MEMORY) < now;
            failures.count = if is_old { 1 } else { failures.count.saturating_add(1) };
            failures.last = now;
        }
    }

    /// Ends the count of an account that has logged in.
    pub fn note_success(&mut self, account: &str) {
        self.failures.remove(&Subject::Account(account.to_owned()));
    }

    /// Forgets what no longer counts, or the older half if all of it counts.
    fn forget(&mut self, now: Timestamp) {
        self.failures.retain(|_, failures| failures.last.plus(MEMORY) >= now);
        if self.failures.len() + 2 > MAX_ENTRIES {
            let mut times: Vec<Timestamp> = self.failures.values().map(|failures| failures.last).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.failures.retain(|_, failures| failures.last > median);
        }
    }
}

impl Subject {
    const fn free_failures(&self) -> u32 {
        match self {
            Self::Account(_) => FREE_ACCOUNT_FAILURES,
            Self::Address(_) => FREE_ADDRESS_FAILURES,
        }
    }
}

fn subjects(account: &str, address: Option<IpAddr>) -> impl Iterator<Item = Subject> {
    [Some(Subject::Account(account.to_owned())), address.map(Subject::Address)].into_iter().flatten()
}

fn wait_after(count: u32, free: u32) -> Duration {
    match count.checked_sub(free) {
        None => Duration::ZERO,
        Some(beyond) => FIRST_WAIT.saturating_mul(1 << beyond.min(16)).min(MAX_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn each_failure_of_an_account_doubles_the_wait() {
        let mut throttle = LoginThrottle::default();
        for _ in 0..4 {
            throttle.note_failure("alice", None, at(0));
            assert_eq!(throttle.check("alice", None, at(0)), Ok(()));
        }
        let mut waits = Vec::new();
        for _ in 0..12 {
            throttle.note_failure("alice", None, at(0));
            waits.push(throttle.check("alice", None, at(0)).unwrap_err().as_secs());
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
        assert_eq!(throttle.check("bob", None, at(0)), Ok(()), "another account");
        assert_eq!(throttle.check("alice", None, at(900)), Ok(()));
        throttle.note_success("alice");
        throttle.note_failure("alice", None, at(0));
        assert_eq!(throttle.check("alice", None, at(0)), Ok(()), "a success ends the count");
    }

    #[test]
    fn an_address_that_tries_many_accounts_waits() {
        let mut throttle = LoginThrottle::default();
        for number in 0..20 {
            throttle.note_failure(&format!("user-{number}"), ADDRESS, at(number));
        }
        assert_eq!(throttle.check("anyone", ADDRESS, at(19)).unwrap_err().as_secs(), 2);
        throttle.note_success("anyone");
        assert!(throttle.check("anyone", ADDRESS, at(19)).is_err(), "a success of one account does not end it");
        assert_eq!(throttle.check("anyone", None, at(19)), Ok(()));
    }

    #[test]
    fn failures_end_with_the_hour_and_memory_is_bounded() {
        let mut throttle = LoginThrottle::default();
        for number in 0..30_000_i64 {
            throttle.note_failure(&format!("user-{number}"), None, at(number / 100));
        }
        assert!(throttle.failures.len() <= MAX_ENTRIES);
        for _ in 0..6 {
            throttle.note_failure("alice", None, at(300));
        }
        throttle.note_failure("alice", None, at(4000));
        assert_eq!(throttle.check("alice", None, at(4000)), Ok(()), "the others are more than an hour ago");
    }
}
