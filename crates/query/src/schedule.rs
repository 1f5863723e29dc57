//! Decides which waiting query gets a free worker.
//!
//! Problem: one tenant can send any number of queries, each of which occupies or ends its worker. Model: queries wait
//! by tenant. A free worker goes to the tenant with the fewest running queries, and among those to the one that was
//! served longest ago. While other tenants ask, too, a tenant leaves one worker free: if it has a query running, or if
//! one of its queries has ended a worker lately. Guarantee: the next query of another tenant finds a free worker,
//! whatever one tenant sends.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use wardroom_domain::TenantId;

/// A tenant counts as asking for this long after its last query.
const ACTIVE_TIME: Duration = Duration::from_secs(3600);
/// A tenant leaves a worker free for this long after one of its queries ended a worker.
const CAUTION_TIME: Duration = Duration::from_secs(10);

/// Free workers `W` and waiting queries `Q`.
#[derive(Debug)]
pub(crate) struct Schedule<W, Q> {
    idle: Vec<W>,
    tenants: BTreeMap<TenantId, Tenant<Q>>,
    /// Maximum number of waiting queries of a tenant.
    max_waiting: usize,
    /// Number of queries served, to order tenants.
    turns: u64,
}

#[derive(Debug)]
struct Tenant<Q> {
    waiting: VecDeque<Q>,
    running: usize,
    last_turn: u64,
    asked: Instant,
    /// When one of its queries last ended a worker.
    ended_worker: Option<Instant>,
}

impl<W, Q> Schedule<W, Q> {
    pub(crate) const fn new(max_waiting: usize) -> Self {
        Self { idle: Vec::new(), tenants: BTreeMap::new(), max_waiting, turns: 0 }
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
        self.tenants.retain(|_, tenant| tenant.is_active(now));
        let entry = self.tenants.entry(tenant.clone()).or_insert_with(|| Tenant {
            waiting: VecDeque::new(),
            running: 0,
            last_turn: 0,
            asked: now,
            ended_worker: None,
        });
        entry.asked = now;
        if entry.waiting.len() >= self.max_waiting {
            entry.waiting.retain(|query| !has_left(query));
        }
        if entry.waiting.len() >= self.max_waiting {
            return Err(query);
        }
        entry.waiting.push_back(query);
        Ok(())
    }

    /// Gives a free worker to a waiting query. The query counts as running until [`Schedule::finish`].
    pub(crate) fn next(&mut self, now: Instant) -> Option<(W, TenantId, Q)> {
        let free = self.idle.len();
        let is_shared = self.tenants.len() > 1;
        let may_run = |tenant: &Tenant<Q>| {
            let is_cautious = tenant.ended_worker.is_some_and(|at| now.saturating_duration_since(at) < CAUTION_TIME);
            let leaves_one = is_shared && (tenant.running > 0 || is_cautious);
            !tenant.waiting.is_empty() && free > usize::from(leaves_one)
        };
        let candidates = self.tenants.iter_mut().filter(|(_, tenant)| may_run(tenant));
        let (name, tenant) = candidates.min_by_key(|(_, tenant)| (tenant.running, tenant.last_turn))?;
        let (query, worker) = (tenant.waiting.pop_front()?, self.idle.pop()?);
        self.turns += 1;
        tenant.last_turn = self.turns;
        tenant.running += 1;
        Some((worker, name.clone(), query))
    }

    /// Records that a query has ended; with `ended_worker` its worker, too.
    pub(crate) fn finish(&mut self, tenant: &TenantId, ended_worker: bool, now: Instant) {
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.running = tenant.running.saturating_sub(1);
            if ended_worker {
                tenant.ended_worker = Some(now);
            }
        }
    }

    /// Number of free workers.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Number of running queries.
    pub(crate) fn running(&self) -> usize {
        self.tenants.values().map(|tenant| tenant.running).sum()
    }

    /// Number of waiting queries.
    pub(crate) fn waiting(&self) -> usize {
        self.tenants.values().map(|tenant| tenant.waiting.len()).sum()
    }
}

impl<Q> Tenant<Q> {
    fn is_active(&self, now: Instant) -> bool {
        self.running > 0 || !self.waiting.is_empty() || now.saturating_duration_since(self.asked) < ACTIVE_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves as many queries as possible; returns them in order.
    fn serve(schedule: &mut Schedule<u32, &'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| schedule.next(now)).map(|(_, _, query)| query).collect()
    }

    fn schedule(workers: u32) -> (Schedule<u32, &'static str>, TenantId, TenantId, Instant) {
        let mut schedule = Schedule::new(4);
        (0..workers).for_each(|worker| schedule.add_worker(worker));
        (schedule, TenantId::new("a").unwrap(), TenantId::new("b").unwrap(), Instant::now())
    }

    fn ask(schedule: &mut Schedule<u32, &'static str>, tenant: &TenantId, query: &'static str, now: Instant) {
        schedule.enqueue(tenant, query, |_| false, now).unwrap();
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
        schedule.finish(&a, false, now);
        assert_eq!(serve(&mut schedule, now), ["b1"], "the tenant with fewer running queries is next");
        schedule.add_worker(3);
        schedule.finish(&b, false, now);
        assert_eq!(serve(&mut schedule, now), Vec::<&str>::new(), "a keeps one worker free");
        ask(&mut schedule, &b, "b2", now);
        assert_eq!(serve(&mut schedule, now), ["b2"], "so b does not wait");
        assert_eq!((schedule.running(), schedule.waiting(), schedule.idle()), (2, 1, 0));
        let later = now + ACTIVE_TIME;
        schedule.add_worker(4);
        schedule.finish(&b, false, later);
        ask(&mut schedule, &a, "a4", later);
        assert_eq!(serve(&mut schedule, later), ["a3"], "b has not asked for long");
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
            let (_, tenant, query) = schedule.next(now).unwrap();
            assert_eq!((&tenant, query), (if turn % 2 == 0 { &a } else { &b }, ["1", "2", "3"][turn / 2]));
            schedule.finish(&tenant, false, now);
        }
    }

    #[test]
    fn a_tenant_that_ended_a_worker_leaves_the_last_one_to_others() {
        let (mut schedule, a, b, now) = schedule(2);
        ask(&mut schedule, &b, "b1", now);
        assert_eq!(serve(&mut schedule, now), ["b1"]);
        schedule.add_worker(0);
        schedule.finish(&b, false, now);
        ask(&mut schedule, &a, "a1", now);
        assert_eq!(serve(&mut schedule, now), ["a1"]);
        schedule.finish(&a, true, now);
        ask(&mut schedule, &a, "a2", now);
        assert_eq!(serve(&mut schedule, now), Vec::<&str>::new(), "the ended worker is not replaced yet");
        ask(&mut schedule, &b, "b2", now);
        assert_eq!(serve(&mut schedule, now), ["b2"]);
        schedule.add_worker(1);
        schedule.add_worker(2);
        assert_eq!(serve(&mut schedule, now), ["a2"]);
        schedule.finish(&a, true, now);
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
