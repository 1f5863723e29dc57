use std::collections::VecDeque;
use std::future::Future;
use std::os::unix::net::UnixStream as Socket;
use std::pin::Pin;

use wardroom_domain::Timestamp;
use wardroom_lake::Config;

use super::*;
use crate::protocol::{Failure, Message, read_message, write_accepted, write_outcome};
use crate::worker::{WorkerHooks, run_queries};

const CSV: OutputFormat = OutputFormat::Csv;

fn sql(text: &str) -> Query {
    Query::Sql(text.into())
}

/// A pool, and the supervisor's part: starting workers and killing them.
struct Fixture {
    pool: Arc<QueryPool>,
    start: mpsc::Sender<(u32, Socket)>,
    killed: Arc<Mutex<Vec<u32>>>,
    started: u32,
    folder: tempfile::TempDir,
}

impl Fixture {
    async fn new(config: QueryConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Arc::new(Lake::open(&Config::default(), folder.path()).await.unwrap());
        let (start, workers) = mpsc::channel(8);
        let killed = Arc::<Mutex<Vec<u32>>>::default();
        let kill = Arc::clone(&killed);
        let kill: Box<dyn Fn(u32) + Send + Sync> = Box::new(move |id| kill.lock().unwrap().push(id));
        let control = WorkerControl { workers, start: Box::new(|| {}), kill };
        let pool = Arc::new(QueryPool::new(lake, config, control));
        Self { pool, start, killed, started: 0, folder }
    }

    /// Connects a worker that `run` plays.
    async fn start_fake<F: Future<Output = ()> + Send + 'static>(&mut self, run: impl FnOnce(UnixStream) -> F) {
        let (ours, theirs) = Socket::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        tokio::spawn(run(UnixStream::from_std(theirs).unwrap()));
        self.started += 1;
        self.start.send((self.started, ours)).await.unwrap();
    }

    /// Connects a worker as the program runs it, on a thread.
    async fn start_worker(&mut self) {
        let (ours, theirs) = Socket::pair().unwrap();
        let data = self.folder.path().to_owned();
        std::thread::spawn(move || {
            let hooks = WorkerHooks { before_query: Box::new(|| {}), after_query: Box::new(|| {}) };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run_queries(theirs, &Config::default(), &data, &hooks))
        });
        self.started += 1;
        self.start.send((self.started, ours)).await.unwrap();
    }

    async fn run(&self, query: Query) -> Result<String, PoolError> {
        self.pool.run(&TenantId::main(), query, CSV).await.map(|table| String::from_utf8(table.to_vec()).unwrap())
    }

    fn killed(&self) -> Vec<u32> {
        self.killed.lock().unwrap().clone()
    }
}

/// What a worker does with a query.
#[derive(Clone, Copy)]
enum Step {
    Answer,
    EndBeforeAccepting,
    EndAfterAccepting,
    Hang,
    StopWhenCancelled,
    AnswerAndRetire,
}

/// A worker that does these steps, and answers all further queries but those that are slow.
fn steps(steps: &[Step]) -> impl FnOnce(UnixStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + use<> {
    let mut steps: VecDeque<Step> = steps.iter().copied().collect();
    move |mut stream| {
        Box::pin(async move {
            let failure = |kind| Err(Failure { kind, detail: "stopped".into() });
            while let Some(Message::Query(request)) = read_message(&mut stream).await.unwrap() {
                let default = if request.query == sql("endless") { Step::Hang } else { Step::Answer };
                let step = steps.pop_front().unwrap_or(default);
                if matches!(step, Step::EndBeforeAccepting) {
                    return;
                }
                write_accepted(&mut stream).await.unwrap();
                match step {
                    Step::Answer => write_outcome(&mut stream, &Ok(b"table".to_vec()), true).await.unwrap(),
                    Step::EndBeforeAccepting | Step::EndAfterAccepting => return,
                    Step::Hang => std::future::pending().await,
                    Step::StopWhenCancelled => {
                        assert!(matches!(read_message(&mut stream).await, Ok(Some(Message::Cancel))));
                        write_outcome(&mut stream, &failure(FailureKind::Failed), true).await.unwrap();
                    }
                    Step::AnswerAndRetire => {
                        return write_outcome(&mut stream, &failure(FailureKind::Timeout), false).await.unwrap();
                    }
                }
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_run_in_a_worker() {
    let mut fixture = Fixture::new(QueryConfig::default()).await;
    fixture.start_worker().await;
    assert_eq!(fixture.run(sql("SELECT 1 AS one")).await.unwrap(), "one\n1\n");
    assert_eq!(fixture.run(sql("SELECT count(*) AS n FROM logs")).await.unwrap(), "n\n0\n");
    let logs = |filter: &str| Query::Logs {
        filter: filter.into(),
        start_nanos: 0,
        end_nanos: Timestamp::from_millis(1).nanos(),
        limit: 10,
    };
    assert!(fixture.run(logs("level>=error")).await.unwrap().starts_with("ts,"));
    for (query, kind) in [
        (sql("SELECT nothing FROM logs"), FailureKind::Invalid),
        (sql("DROP TABLE logs"), FailureKind::Refused),
        (sql("SELECT * FROM generate_series(1, 1000000)"), FailureKind::TooLarge),
        (logs("\"open"), FailureKind::Invalid),
    ] {
        let error = fixture.run(query.clone()).await.unwrap_err();
        assert!(matches!(&error, PoolError::Query { kind: found, .. } if *found == kind), "{query:?}: {error:?}");
    }
    assert_eq!(fixture.pool.status(), PoolStatus { workers: 1, is_missing: false, is_down: false });
    assert_eq!(fixture.killed(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_query_that_ends_its_worker_costs_only_itself() {
    let mut fixture = Fixture::new(QueryConfig::default()).await;
    fixture.start_fake(steps(&[Step::EndAfterAccepting])).await;
    assert_eq!(fixture.run(sql("bad")).await, Err(PoolError::Crashed));
    fixture.start_fake(steps(&[])).await;
    assert_eq!(fixture.run(sql("good")).await.unwrap(), "table");
}

#[tokio::test]
async fn workers_that_ended_while_they_were_free_cost_nothing() {
    let mut fixture = Fixture::new(QueryConfig { workers: 2, ..QueryConfig::default() }).await;
    for _ in 0..2 {
        fixture.start_fake(steps(&[Step::EndBeforeAccepting])).await;
    }
    fixture.start_fake(|stream| async { drop(stream) }).await;
    fixture.start_fake(steps(&[])).await;
    assert_eq!(fixture.run(sql("good")).await.unwrap(), "table");
}

#[tokio::test]
async fn a_worker_that_hangs_is_killed_at_the_deadline() {
    let mut fixture = Fixture::new(QueryConfig { seconds: 0, ..QueryConfig::default() }).await;
    fixture.start_fake(steps(&[Step::Hang])).await;
    let started = Instant::now();
    assert_eq!(fixture.run(sql("endless")).await, Err(PoolError::Killed(0)));
    assert!(started.elapsed() >= KILL_DELAY && started.elapsed() < KILL_DELAY * 3, "{:?}", started.elapsed());
    assert_eq!(fixture.killed(), [1]);
}

#[tokio::test]
async fn a_worker_that_retires_is_replaced() {
    let mut fixture = Fixture::new(QueryConfig::default()).await;
    fixture.start_fake(steps(&[Step::AnswerAndRetire])).await;
    let error = fixture.run(sql("slow")).await.unwrap_err();
    assert_eq!(error, PoolError::Query { kind: FailureKind::Timeout, detail: "stopped".into() });
    assert_eq!((fixture.killed(), fixture.pool.status().workers), (vec![1], 0));
}

#[tokio::test]
async fn a_caller_that_leaves_frees_the_worker() {
    let mut fixture = Fixture::new(QueryConfig::default()).await;
    for (step, killed) in [(Step::StopWhenCancelled, vec![]), (Step::Hang, vec![1])] {
        if fixture.started == 0 {
            fixture.start_fake(steps(&[step, Step::Hang])).await;
        }
        let left = tokio::time::timeout(Duration::from_millis(200), fixture.run(sql("slow"))).await;
        assert!(left.is_err());
        let deadline = Instant::now() + Duration::from_secs(5);
        while fixture.pool.0.state().schedule.running() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(fixture.killed(), killed);
    }
    fixture.start_fake(steps(&[])).await;
    assert_eq!(fixture.run(sql("good")).await.unwrap(), "table");
}

#[tokio::test]
async fn a_query_that_is_stopped_for_another_tenant_frees_the_worker() {
    let mut fixture = Fixture::new(QueryConfig::default()).await;
    fixture.start_fake(steps(&[Step::StopWhenCancelled])).await;
    let stop = async {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            // The schedule chooses the query after seconds only.
            let stop = fixture.pool.0.state().stops.pop_first();
            if let Some((_, stop)) = stop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                return stop.send(()).is_ok();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    };
    let (result, is_stopped) = tokio::join!(fixture.run(sql("slow")), stop);
    assert_eq!((result, is_stopped), (Err(PoolError::Stopped(0)), true));
    assert_eq!((fixture.run(sql("good")).await.unwrap(), fixture.killed()), ("table".into(), vec![]));
    assert_eq!(fixture.pool.0.state().stops.len(), 0);
}

#[tokio::test]
async fn a_tenant_that_sends_many_queries_waits_behind_its_own() {
    let config = QueryConfig { max_waiting: 3, seconds: 60, ..QueryConfig::default() };
    let mut fixture = Fixture::new(config).await;
    fixture.start_fake(steps(&[])).await;
    fixture.start_fake(steps(&[])).await;
    let [one, other] = ["one", "other"].map(|name| TenantId::new(name).unwrap());
    for tenant in [&one, &other] {
        assert!(fixture.pool.run(tenant, sql("good"), CSV).await.is_ok());
    }
    let flood: Vec<_> = (0..4)
        .map(|_| {
            let (pool, one) = (Arc::clone(&fixture.pool), one.clone());
            tokio::spawn(async move { pool.run(&one, sql("endless"), CSV).await })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    while fixture.pool.0.state().schedule.waiting() < 3 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fixture.pool.run(&one, sql("endless"), CSV).await, Err(PoolError::QueueFull(3)));
    {
        let state = fixture.pool.0.state();
        assert_eq!((state.schedule.running(), state.schedule.idle()), (1, 1), "one worker is left to others");
    }
    fixture.start_fake(steps(&[])).await;
    let found = fixture.pool.run(&other, sql("good"), CSV).await;
    assert!(found.is_ok(), "{found:?}");
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn without_a_worker_a_query_fails_soon() {
    let fixture = Fixture::new(QueryConfig::default()).await;
    let Fixture { pool, start, .. } = fixture;
    drop(start);
    let idle = PoolStatus { workers: 0, is_missing: false, is_down: false };
    assert_eq!(pool.status(), idle, "no query has come");
    let error = pool.run(&TenantId::main(), sql("any"), CSV).await.unwrap_err();
    assert_eq!((error, pool.status().is_down), (PoolError::NoWorker, true));
}
