//! Random workers, pauses and crashes against a model: an effect is held by one worker, and finished once.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use wardroom_store::{Store, Worker};

use crate::effects::{at, effect, finished, open_incident};

const EFFECTS: [(&str, &str); 4] = [("a1", "web"), ("a2", "web"), ("b1", "db"), ("c1", "")];
const WORKERS: [&str; 3] = ["one", "two", "three"];
const LEASE: Duration = Duration::from_millis(50);
/// Sequences of steps; each runs on a store of its own.
const CASES: u32 = 12;

/// A step of a worker, by its number.
#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Lease(usize),
    /// With the token that this worker was given last, however long ago.
    Finish(usize, usize),
    Retry(usize, usize, i64),
    Extend(usize, usize),
    /// The process ends; another one of its name prefix gives its leases back.
    Restart(usize),
}

/// What the model knows of an effect.
#[derive(Clone, Debug, Default)]
struct Known {
    fencing: i64,
    /// Until when, and by which worker.
    lease: Option<(i64, usize)>,
    not_before: i64,
    is_done: bool,
}

pub(crate) async fn the_model_holds(store: Store) {
    let (worker, number) = (0..WORKERS.len(), 0..EFFECTS.len());
    let step = prop_oneof![
        3 => (0_i64..80).prop_map(Step::Wait),
        4 => worker.clone().prop_map(Step::Lease),
        3 => (worker.clone(), number.clone()).prop_map(|(worker, effect)| Step::Finish(worker, effect)),
        2 => (worker.clone(), number.clone(), 0_i64..60).prop_map(|(worker, effect, ms)| Step::Retry(worker, effect, ms)),
        2 => (worker.clone(), number).prop_map(|(worker, effect)| Step::Extend(worker, effect)),
        1 => worker.prop_map(Step::Restart),
    ];
    let steps = proptest::collection::vec(step, 1..40);
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let tenant = open_incident(&store).await;
    for case in 0..CASES {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let id = |effect: usize| format!("{case}-{}", EFFECTS[effect].0);
        // The effects of the cases before are done or too old: each case has resources of its own.
        let resource = |effect: usize| match EFFECTS[effect].1 {
            "" => String::new(),
            resource => format!("{case}-{resource}"),
        };
        let written: Vec<_> = (0..EFFECTS.len()).map(|number| effect(&id(number), &resource(number))).collect();
        store.enqueue_effects(&tenant, "k", &written, at(0), None).await.unwrap();
        run(&store, &steps, &id, &resource).await;
        // What is left over must not be due in the next case.
        for number in 0..EFFECTS.len() {
            let row = store.effects(&tenant, "k").await.unwrap().into_iter().find(|row| row.id == id(number)).unwrap();
            assert!(row.state != "done" || row.fencing > 0, "{row:?}");
        }
        let changes = wardroom_store::Changes { cancel: vec!["execution".into()], ..Default::default() };
        assert!(store.save_workflow(&tenant, "k", "{}", "{}", &changes, &crate::entry("INC-1")).await.unwrap());
    }
}

async fn run(store: &Store, steps: &[Step], id: &impl Fn(usize) -> String, resource: &impl Fn(usize) -> String) {
    let mut now = 100;
    let mut known = vec![Known { not_before: 100, ..Known::default() }; EFFECTS.len()];
    // The token that a worker was given last for an effect.
    let mut tokens: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    for step in steps {
        match *step {
            Step::Wait(ms) => now += ms,
            Step::Lease(worker) => {
                let leasing = Worker { name: WORKERS[worker], queue: "" };
                let leased = store.lease_effects(leasing, 10, at(now), LEASE).await.unwrap();
                let is_held = |known: &Known| known.lease.is_some_and(|(until, _)| until > now);
                let busy: Vec<String> =
                    (0..EFFECTS.len()).filter(|number| is_held(&known[*number])).map(resource).collect();
                for row in &leased {
                    let number = (0..EFFECTS.len()).find(|number| id(*number) == row.id).unwrap();
                    let model = &mut known[number];
                    assert!(!model.is_done && !is_held(model) && model.not_before <= now, "{step:?} {row:?} {model:?}");
                    assert!(row.resource.is_empty() || !busy.contains(&row.resource), "{step:?} {row:?}");
                    assert_eq!(row.fencing, model.fencing + 1, "tokens only grow, without a gap");
                    model.fencing = row.fencing;
                    model.lease = Some((now + LEASE.as_millis() as i64, worker));
                    tokens.insert((worker, number), row.fencing);
                }
                let mut resources: Vec<&String> =
                    leased.iter().map(|row| &row.resource).filter(|it| !it.is_empty()).collect();
                resources.sort();
                let all = resources.len();
                resources.dedup();
                assert_eq!(resources.len(), all, "one of each resource");
            }
            Step::Finish(worker, number) => {
                let token = tokens.get(&(worker, number)).copied().unwrap_or(0);
                let done = store.finish_effect(&finished(&id(number), token), at(now)).await.unwrap();
                assert_eq!(done, may_change(&known[number], token), "{step:?} {:?}", known[number]);
                if done {
                    (known[number].is_done, known[number].lease) = (true, None);
                }
            }
            Step::Retry(worker, number, ms) => {
                let token = tokens.get(&(worker, number)).copied().unwrap_or(0);
                let done = store.retry_effect(&id(number), token, at(now + ms), "again").await.unwrap();
                assert_eq!(done, may_change(&known[number], token), "{step:?} {:?}", known[number]);
                if done {
                    (known[number].not_before, known[number].lease) = (now + ms, None);
                }
            }
            Step::Extend(worker, number) => {
                let token = tokens.get(&(worker, number)).copied().unwrap_or(0);
                let until = now + LEASE.as_millis() as i64;
                let done = store.extend_effect(&id(number), token, at(until)).await.unwrap();
                assert_eq!(done, may_change(&known[number], token), "{step:?} {:?}", known[number]);
                if done {
                    known[number].lease = Some((until, worker));
                }
            }
            Step::Restart(worker) => {
                store.release_effects(WORKERS[worker], "a new process").await.unwrap();
                for model in &mut known {
                    model.lease = model.lease.filter(|(_, holder)| *holder != worker);
                }
            }
        }
    }
}

/// Whether a token is the one of the newest lease, and it was not given back since.
fn may_change(known: &Known, token: i64) -> bool {
    !known.is_done && known.lease.is_some() && known.fencing == token && token > 0
}
