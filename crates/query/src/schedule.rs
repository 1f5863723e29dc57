//! Decides which waiting query gets a free worker.
//!
//! Problem: a tenant can send any number of queries, each of which occupies or ends its worker; a few tenants together
//! could occupy all. Model: queries wait by tenant. A free worker goes to the tenant with the fewest running queries,
//! and among those to the one that was served longest ago, with these rules if more than one tenant has ever asked:
//!
//! 1. A tenant does not take the last free worker while it has a query running, for a time after one of its queries
//!    ended a worker, and for a time after one of its queries was long. So a quick query finds a free worker.
//! 2. A tenant without a running query that waits nevertheless has the query stopped that has run longest, if that one
//!    has had its time. So long queries take turns, and tenants that have not asked before cannot occupy all workers.
//!
//! Guarantee: a query waits a few seconds at most for other tenants' long ones, unless those were quick so far.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use wardroom_domain::TenantId;

/// A query that occupied its worker for this long is long.
const LONG_QUERY: Duration = Duration::from_secs(2);
/// A tenant leaves the last free worker to others for this long after a long query.
const LONG_QUERY_MEMORY: Duration = Duration::from_secs(60);
/// A tenant without a running query that waits for this long has another tenant's query stopped.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// A query may run for this long before it is stopped for a tenant without long queries.
const MIN_RUN: Duration = Duration::from_secs(5);
/// A query may run for this long before it is stopped for a tenant that has had long queries itself.
const MIN_RUN_AMONG_LONG: Duration = Duration::from_secs(10);
/// A tenant leaves a worker free for this long after one of its queries ended a worker.
const CAUTION_TIME: Duration = Duration::from_secs(10);

/// Free workers `W` and waiting queries `Q`.
#[derive(Debug)]
pub(crate) struct Schedule<W, Q> {
    idle: Vec<W>,
    tenants: BTreeMap<TenantId, Tenant<Q>>,
    /// Maximum number of waiting queries of a tenant.
    max_waiting: usize,
    /// Whether the rules hold from the start, so that a worker is free for a tenant that has not asked yet.
    is_shared: bool,
    /// Number of queries served, to order tenants and to number queries.
    turns: u64,
    /// When a query was last stopped for another tenant.
    stopped: Option<Instant>,
}

#[derive(Debug)]
struct Tenant<Q> {
    /// With the time since which each waits.
    waiting: VecDeque<(Instant, Q)>,
    /// Running queries: number and start.
    running: Vec<(u64, Instant)>,
    last_turn: u64,
    /// When one of its queries last ended.
    finished: Option<Instant>,
    /// When one of its long queries last ended.
    long_query: Option<Instant>,
    /// When one of its queries last ended a worker.
    ended_worker: Option<Instant>,
}

impl<W, Q> Schedule<W, Q> {
    pub(crate) const fn new(max_waiting: usize) -> Self {
        Self { idle: Vec::new(), tenants: BTreeMap::new(), max_waiting, is_shared: false, turns: 0, stopped: None }
    }

    /// Applies the rules for several tenants also while only one has asked.
    #[must_use]
    pub(crate) fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Adds a free worker.
    pub(crate) fn add_worker(&mut self, worker: W) {
        self.idle.push(worker);
    }

    /// Removes the free workers that `is_lost` selects, and returns their number.
    pub(crate) fn remove_lost(&mut self, mut is_lost: impl FnMut(&W) -> bool) -> usize {
        let before = self.idle.len();
        self.idle.retain(|worker| !is_lost(worker));
        before - self.idle.len()
    }

    /// Adds a waiting query; gives it back if too many of the tenant's queries wait. `has_left` selects queries that
    /// no caller waits for any more.
    pub(crate) fn enqueue(
        &mut self,
        tenant: &TenantId,
        query: Q,
        has_left: impl Fn(&Q) -> bool,
        now: Instant,
    ) -> Result<(), Q> {
        // Entries stay: their number is that of the tenants that have a token.
        let entry = self.tenants.entry(tenant.clone()).or_insert_with(|| Tenant {
            waiting: VecDeque::new(),
            running: Vec::new(),
            last_turn: 0,
            finished: None,
            long_query: None,
            ended_worker: None,
        });
        if entry.waiting.len() >= self.max_waiting {
            entry.waiting.retain(|(_, query)| !has_left(query));
        }
        if entry.waiting.len() >= self.max_waiting {
            return Err(query);
        }
        entry.waiting.push_back((now, query));
        Ok(())
    }

    /// Gives a free worker to a waiting query, and returns both with the tenant and the number of the query. It counts
    /// as running until [`Schedule::finish`].
    pub(crate) fn next(&mut self, now: Instant) -> Option<(W, TenantId, u64, Q)> {
        let (free, workers) = (self.idle.len(), self.idle.len() + self.running());
        let is_shared = self.is_shared || self.tenants.len() > 1;
        let may_run = |tenant: &Tenant<Q>| {
            let is_busy = !tenant.running.is_empty() || tenant.is_cautious(now);
            // A single worker is no spare one: tenants with long queries would never run.
            let leaves_one = is_shared && (is_busy || (workers > 1 && tenant.had_long_query(now)));
            !tenant.waiting.is_empty() && free > usize::from(leaves_one)
        };
        let candidates = self.tenants.iter_mut().filter(|(_, tenant)| may_run(tenant));
        let (name, tenant) = candidates.min_by_key(|(_, tenant)| (tenant.running.len(), tenant.last_turn))?;
        let ((_, query), worker) = (tenant.waiting.pop_front()?, self.idle.pop()?);
        self.turns += 1;
        tenant.last_turn = self.turns;
        tenant.running.push((self.turns, now));
        Some((worker, name.clone(), self.turns, query))
    }

    /// Returns the number of a running query that is to be stopped, because a tenant without a running query waits too
    /// long; call it after [`Schedule::next`] has given away the free workers. `has_left` selects queries that no
    /// caller waits for any more.
    pub(crate) fn next_to_stop(&mut self, has_left: impl Fn(&Q) -> bool, now: Instant) -> Option<u64> {
        // One at a time: the worker of the last one may not be free yet.
        if self.stopped.is_some_and(|at| now.saturating_duration_since(at) < MAX_WAIT) {
            return None;
        }
        let waits = |tenant: &&Tenant<Q>| {
            let since = tenant.waiting.iter().find(|(_, query)| !has_left(query)).map(|(since, _)| *since);
            let since = since.max(since.and(tenant.finished));
            let is_late = since.is_some_and(|since| now.saturating_duration_since(since) >= MAX_WAIT);
            is_late && tenant.running.is_empty() && !tenant.is_cautious(now)
        };
        let min_run = |tenant: &Tenant<Q>| if tenant.had_long_query(now) { MIN_RUN_AMONG_LONG } else { MIN_RUN };
        let min_run = self.tenants.values().filter(waits).map(min_run).min()?;
        let running = self.tenants.values().flat_map(|tenant| &tenant.running);
        let longest = running.max_by_key(|(_, start)| Reverse(*start));
        let (number, _) = longest.filter(|(_, start)| now.saturating_duration_since(*start) >= min_run)?;
        self.stopped = Some(now);
        Some(*number)
    }

    /// Records that a query has ended; with `ended_worker` its worker, too.
    pub(crate) fn finish(&mut self, tenant: &TenantId, number: u64, ended_worker: bool, now: Instant) {
        let Some(tenant) = self.tenants.get_mut(tenant) else { return };
        let Some(index) = tenant.running.iter().position(|(known, _)| *known == number) else { return };
        let (_, start) = tenant.running.swap_remove(index);
        tenant.finished = Some(now);
        if now.saturating_duration_since(start) >= LONG_QUERY {
            tenant.long_query = Some(now);
        }
        if ended_worker {
            tenant.ended_worker = Some(now);
        }
    }

    /// Number of free workers.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Number of running queries.
    pub(crate) fn running(&self) -> usize {
        self.tenants.values().map(|tenant| tenant.running.len()).sum()
    }

    /// Number of waiting queries.
    pub(crate) fn waiting(&self) -> usize {
        self.tenants.values().map(|tenant| tenant.waiting.len()).sum()
    }
}

impl<Q> Tenant<Q> {
    /// Whether one of its queries ended a worker lately.
    fn is_cautious(&self, now: Instant) -> bool {
        self.ended_worker.is_some_and(|at| now.saturating_duration_since(at) < CAUTION_TIME)
    }

    /// Whether one of its queries was long lately.
    fn had_long_query(&self, now: Instant) -> bool {
        self.long_query.is_some_and(|at| now.saturating_duration_since(at) < LONG_QUERY_MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves as many queries as possible; returns them in order.
    fn serve(schedule: &mut Schedule<u32, &'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| schedule.next(now)).map(|(.., query)| query).collect()
    }

    fn schedule(workers: u32) -> (Schedule<u32, &'static str>, TenantId, TenantId, Instant) {
        let mut schedule = Schedule::new(4);
        (0..workers).for_each(|worker| schedule.add_worker(worker));
        (schedule, TenantId::new("a").unwrap(), TenantId::new("b").unwrap(), Instant::now())
    }

    fn ask(schedule: &mut Schedule<u32, &'static str>, tenant: &TenantId, query: &'static str, now: Instant) {
        schedule.enqueue(tenant, query, |_| false, now).unwrap();
    }

    /// Ends the query of a tenant that has run longest.
    fn finish(schedule: &mut Schedule<u32, &'static str>, tenant: &TenantId, ended_worker: bool, now: Instant) {
        let number = schedule.tenants[tenant].running[0].0;
        schedule.finish(tenant, number, ended_worker, now);
    }

    #[test]
    fn shared_workers_are_left_to_tenants_that_have_not_asked_yet() {
        let (schedule, a, b, now) = schedule(2);
        let mut schedule = schedule.shared();
        ["a1", "a2"].into_iter().for_each(|query| ask(&mut schedule, &a, query, now));
        assert_eq!(serve(&mut schedule, now), ["a1"]);
        ask(&mut schedule, &b, "b1", now);
        assert_eq!(serve(&mut schedule, now), ["b1"]);
    }

    #[test]
    fn one_tenant_uses_all_workers_until_another_one_asks() {
        let (mut schedule, a, b, now) = schedule(2);
        for query in ["a1", "a2", "a3"] {
            ask(&mut schedule, &a, query, now);
        }
        assert_eq!(serve(&mut schedule, now), ["a1", "a2"]);
        ask(&mut schedule, &b, "b1", now);
        schedule.add_worker(2);
        finish(&mut schedule, &a, false, now);
        assert_eq!(serve(&mut schedule, now), ["b1"], "the tenant with fewer running queries is next");
        schedule.add_worker(3);
        finish(&mut schedule, &b, false, now);
        assert_eq!(serve(&mut schedule, now), Vec::<&str>::new(), "a keeps one worker free");
        ask(&mut schedule, &b, "b2", now);
        assert_eq!(serve(&mut schedule, now), ["b2"], "so b does not wait");
        assert_eq!((schedule.running(), schedule.waiting(), schedule.idle()), (2, 1, 0));
        let next_day = now + Duration::from_secs(86400);
        schedule.add_worker(4);
        finish(&mut schedule, &b, false, now);
        assert_eq!(serve(&mut schedule, next_day), Vec::<&str>::new(), "b has not asked for long, and may ask now");
        ask(&mut schedule, &b, "b3", next_day);
        assert_eq!(serve(&mut schedule, next_day), ["b3"]);
    }

    #[test]
    fn tenants_with_long_queries_together_leave_a_worker_to_quick_ones() {
        let (mut schedule, a, b, now) = schedule(2);
        let c = TenantId::new("c").unwrap();
        for (tenant, query) in [(&a, "a1"), (&b, "b1")] {
            ask(&mut schedule, tenant, query, now);
        }
        assert_eq!(serve(&mut schedule, now), ["a1", "b1"]);
        let now = now + LONG_QUERY;
        for tenant in [&a, &b] {
            finish(&mut schedule, tenant, false, now);
            schedule.add_worker(0);
        }
        for (tenant, query) in [(&a, "a2"), (&b, "b2")] {
            ask(&mut schedule, tenant, query, now);
        }
        assert_eq!(serve(&mut schedule, now), ["a2"], "b had a long query, too");
        for query in ["c1", "c2"] {
            ask(&mut schedule, &c, query, now);
            assert_eq!(serve(&mut schedule, now), [query]);
            finish(&mut schedule, &c, false, now);
            schedule.add_worker(0);
        }
        assert_eq!(serve(&mut schedule, now + LONG_QUERY_MEMORY), ["b2"], "long queries are forgotten");
    }

    #[test]
    fn a_tenant_with_long_queries_gets_the_only_worker() {
        let (mut schedule, a, b, now) = schedule(1);
        for (tenant, query) in [(&a, "a1"), (&b, "b1")] {
            ask(&mut schedule, tenant, query, now);
        }
        for query in ["a1", "b1"] {
            assert_eq!(serve(&mut schedule, now), [query]);
            finish(&mut schedule, if query == "a1" { &a } else { &b }, false, now + LONG_QUERY);
            schedule.add_worker(0);
        }
        ask(&mut schedule, &a, "a2", now + LONG_QUERY);
        assert_eq!(serve(&mut schedule, now + LONG_QUERY), ["a2"]);
    }

    #[test]
    fn the_longest_query_is_stopped_for_a_tenant_that_waits() {
        let (mut schedule, a, b, start) = schedule(2);
        let after = |seconds| start + Duration::from_secs(seconds);
        let to_stop = |schedule: &mut Schedule<u32, &'static str>, seconds| {
            schedule.next_to_stop(|query| *query == "left", after(seconds))
        };
        ask(&mut schedule, &a, "a1", start);
        assert_eq!(serve(&mut schedule, start), ["a1"]);
        for query in ["a2", "a3"] {
            ask(&mut schedule, &a, query, after(1));
        }
        assert_eq!(serve(&mut schedule, after(1)), ["a2"]);
        assert_eq!(to_stop(&mut schedule, 60), None, "a waits behind its own");
        ask(&mut schedule, &b, "left", after(1));
        assert_eq!(to_stop(&mut schedule, 60), None, "the caller has left");
        ask(&mut schedule, &b, "b1", after(4));
        assert_eq!(to_stop(&mut schedule, 5), None, "b has not waited for long");
        assert_eq!(to_stop(&mut schedule, 6), Some(1));
        assert_eq!(to_stop(&mut schedule, 7), None, "the first one is still stopping");
        schedule.finish(&a, 1, false, after(7));
        schedule.add_worker(0);
        assert_eq!(serve(&mut schedule, after(7)), ["left"]);
        assert_eq!(to_stop(&mut schedule, 60), None, "b has a query running");
    }

    #[test]
    fn tenants_with_long_queries_give_each_other_more_time() {
        let (mut schedule, a, b, start) = schedule(2);
        let after = |seconds| start + Duration::from_secs(seconds);
        ask(&mut schedule, &b, "b1", start);
        assert_eq!(serve(&mut schedule, start), ["b1"]);
        finish(&mut schedule, &b, false, after(3));
        schedule.add_worker(0);
        ask(&mut schedule, &a, "a1", after(3));
        ask(&mut schedule, &b, "b2", after(3));
        assert_eq!(serve(&mut schedule, after(3)), ["a1"], "the last worker is for quick queries");
        assert_eq!(schedule.next_to_stop(|_| false, after(12)), None);
        assert_eq!(schedule.next_to_stop(|_| false, after(13)), Some(2));
        schedule.finish(&a, 2, false, after(13));
        schedule.add_worker(0);
        assert_eq!(serve(&mut schedule, after(13)), ["b2"]);
    }

    #[test]
    fn tenants_take_turns() {
        let (mut schedule, a, b, now) = schedule(0);
        for query in ["1", "2", "3"] {
            ask(&mut schedule, &a, query, now);
            ask(&mut schedule, &b, query, now);
        }
        for turn in 0..6 {
            schedule.add_worker(0);
            let (_, tenant, number, query) = schedule.next(now).unwrap();
            assert_eq!((&tenant, query), (if turn % 2 == 0 { &a } else { &b }, ["1", "2", "3"][turn / 2]));
            schedule.finish(&tenant, number, false, now);
        }
    }

    #[test]
    fn a_tenant_that_ended_a_worker_leaves_the_last_one_to_others() {
        let (mut schedule, a, b, now) = schedule(2);
        ask(&mut schedule, &b, "b1", now);
        assert_eq!(serve(&mut schedule, now), ["b1"]);
        schedule.add_worker(0);
        finish(&mut schedule, &b, false, now);
        ask(&mut schedule, &a, "a1", now);
        assert_eq!(serve(&mut schedule, now), ["a1"]);
        finish(&mut schedule, &a, true, now);
        ask(&mut schedule, &a, "a2", now);
        assert_eq!(serve(&mut schedule, now), Vec::<&str>::new(), "the ended worker is not replaced yet");
        ask(&mut schedule, &b, "b2", now);
        assert_eq!(serve(&mut schedule, now), ["b2"]);
        schedule.add_worker(1);
        schedule.add_worker(2);
        assert_eq!(serve(&mut schedule, now), ["a2"]);
        finish(&mut schedule, &a, true, now);
        ask(&mut schedule, &a, "a3", now);
        assert_eq!(serve(&mut schedule, now), Vec::<&str>::new());
        assert_eq!(serve(&mut schedule, now + CAUTION_TIME), ["a3"], "if no other worker comes");
    }

    #[test]
    fn waiting_queries_are_bounded_by_tenant() {
        let (mut schedule, a, b, now) = schedule(0);
        for query in ["1", "2", "left", "4"] {
            ask(&mut schedule, &a, query, now);
        }
        assert_eq!(schedule.enqueue(&a, "5", |_| false, now), Err("5"));
        assert_eq!(schedule.enqueue(&b, "1", |_| false, now), Ok(()), "another tenant's queries wait apart");
        assert_eq!(schedule.enqueue(&a, "5", |query| *query == "left", now), Ok(()), "a caller has left");
        assert_eq!(schedule.waiting(), 5);
    }

    #[test]
    fn lost_workers_are_removed() {
        let (mut schedule, ..) = schedule(3);
        assert_eq!(schedule.remove_lost(|worker| *worker == 1), 1);
        assert_eq!(schedule.idle(), 2);
    }
}
