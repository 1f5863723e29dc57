//! Queries run in processes of their own: the worst one costs only itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_testing::server::{create_tenant_token, create_token};
use wardroom_testing::{Server, now_ms, remote_write};

/// Timeout of a query, in seconds.
const QUERY_SECONDS: &str = "3";
/// Runs until its timeout.
const LONG_QUERY: &str = "SELECT count(*) AS n FROM generate_series(1, 1000000000000) WHERE value % 7 = 1";

/// Statements that overflow a stack, take gigabytes, or run for hours, if nothing stops them.
fn hostile_statements() -> Vec<(&'static str, String)> {
    let columns = |count: usize, one: &dyn Fn(usize) -> String, between: &str| {
        (0..count).map(one).collect::<Vec<_>>().join(between)
    };
    let chain = (1..400).map(|n| format!(", t{n} AS (SELECT a + 1 AS a FROM t{})", n - 1)).collect::<String>();
    let doubling = (1..26).map(|n| format!(", d{n} AS (SELECT l.a || r.a AS a FROM d{} l, d{} r)", n - 1, n - 1));
    let doubling: String = doubling.collect();
    let text = "ab".repeat(30_000);
    vec![
        ("additions", format!("SELECT {} AS n", columns(3000, &|n| n.to_string(), " + "))),
        ("brackets", format!("SELECT {}1{} AS n", "(".repeat(3000), ")".repeat(3000))),
        ("patterns", {
            let patterns = columns(1500, &|n| format!("message LIKE '%p{n}%'"), " AND ");
            format!("SELECT count(*) AS n FROM logs WHERE {patterns}")
        }),
        ("table expressions", format!("WITH t0 AS (SELECT 1 AS a){chain} SELECT a FROM t399")),
        ("doubled text", format!("WITH d0 AS (SELECT 'abcdefgh' AS a){doubling} SELECT length(a) FROM d25")),
        ("large list", "SELECT array_repeat(1, 2000000000) AS l".into()),
        ("large text", "SELECT length(repeat(repeat('x', 100000), 100000)) AS n".into()),
        ("many texts", "SELECT value, repeat('x', 1000000) AS t FROM generate_series(1, 100000)".into()),
        ("distance of long texts", format!("SELECT levenshtein('{text}a', 'b{text}') AS n")),
        ("distinct pairs", {
            let pairs = "generate_series(1, 100000) a, generate_series(1, 100000) b";
            format!("SELECT count(*) AS n FROM (SELECT DISTINCT a.value AS x, b.value AS y FROM {pairs})")
        }),
        ("sorted pairs", {
            let pairs = "generate_series(1, 100000) a, generate_series(1, 100000) b";
            format!("SELECT a.value AS x FROM {pairs} ORDER BY a.value * b.value % 1009 LIMIT 90000")
        }),
        ("long", LONG_QUERY.into()),
    ]
}

fn run_sql(server: &Server, token: &str, query: &str) -> (u16, Value) {
    server.post_json("/api/v1/sql", token, &json!({ "query": query })).unwrap()
}

/// Process ids by role.
fn processes(server: &Server, role: &str) -> Vec<u32> {
    server.processes().into_iter().filter(|(found, _)| found == role).map(|(_, pid)| pid).collect()
}

fn signal(signal: &str, pids: &[u32]) {
    for pid in pids {
        let status = std::process::Command::new("kill").arg(signal).arg(pid.to_string()).status().unwrap();
        assert!(status.success(), "kill {signal} {pid}");
    }
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn queries_of_readyz(server: &Server) -> String {
    let (_, text) = server.get("/readyz", "").unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["queries"].as_str().unwrap().to_owned()
}

/// What happened to other callers during the hostile queries.
#[derive(Default)]
struct Others {
    acknowledged: usize,
    slowest_acknowledgement: Duration,
    answered: usize,
    failed: Vec<(u16, Value)>,
    slowest_query: Duration,
}

/// Sends samples, and another tenant's queries, until `stop` is set.
fn use_meanwhile(server: &Server, other: &str, stop: &AtomicBool) -> Others {
    let mut others = Others::default();
    while !stop.load(Ordering::Acquire) {
        for _ in 0..5 {
            let series = remote_write::series(&[("__name__", "up"), ("job", "web")], 1.0, now_ms());
            let started = Instant::now();
            assert_eq!(server.write(&remote_write::body(vec![series])).unwrap(), 204);
            others.slowest_acknowledgement = others.slowest_acknowledgement.max(started.elapsed());
            others.acknowledged += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        let started = Instant::now();
        let (status, answer) = run_sql(server, other, "SELECT count(*) AS n FROM logs");
        others.slowest_query = others.slowest_query.max(started.elapsed());
        others.answered += 1;
        if status != 200 {
            others.failed.push((status, answer));
        }
    }
    others
}

#[test]
fn hostile_queries_cost_only_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("WARDROOM_LAKE__QUERY__SECONDS", QUERY_SECONDS), ("WARDROOM_LAKE__FLUSH_SECONDS", "600")];
    let server = Server::start(dir.path(), "", &settings).unwrap();
    let data = dir.path().join("data");
    let viewer = create_token(&data, "vera", "viewer").unwrap();
    let other = create_tenant_token(&data, "otto", "viewer", "other").unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let log = json!({ "level": "ERROR", "message": "pool exhausted", "service": "web" });
    assert_eq!(server.post_json("/ingest/logs", &server.sender_token, &log).unwrap().0, 200);
    wait_for("a line that is not flushed is found", || {
        run_sql(&server, &viewer, "SELECT message FROM logs") == (200, json!([{ "message": "pool exhausted" }]))
    });
    assert_eq!(run_sql(&server, &other, "SELECT count(*) AS n FROM logs"), (200, json!([{ "n": 0 }])));
    let (server_pid, workers) = (processes(&server, "server"), processes(&server, "query-worker"));
    assert_eq!((server_pid.len(), workers.len()), (1, 2));
    workers.iter().for_each(|pid| assert_is_confined(*pid));

    let stop = AtomicBool::new(false);
    let others = std::thread::scope(|scope| {
        let others = scope.spawn(|| use_meanwhile(&server, &other, &stop));
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let (server, viewer) = (&server, &viewer);
                scope.spawn(move || {
                    for (what, statement) in hostile_statements().iter().skip(sender).step_by(2) {
                        let (status, problem) = run_sql(server, viewer, statement);
                        assert!([400, 422, 503].contains(&status), "{what}: {status} {problem}");
                        assert!(problem["detail"].as_str().is_some_and(|text| text.len() > 20), "{what}: {problem}");
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        stop.store(true, Ordering::Release);
        others.join().unwrap()
    });
    assert_eq!(processes(&server, "server"), server_pid, "the server was restarted");
    assert!(others.failed.is_empty(), "{:?}", others.failed);
    assert!(others.acknowledged > 20 && others.slowest_acknowledgement < Duration::from_secs(2));
    assert!(others.answered > 5 && others.slowest_query < Duration::from_secs(3), "{:?}", others.slowest_query);
    workers_that_end_or_hang_are_replaced(&server, &viewer);
}

fn workers_that_end_or_hang_are_replaced(server: &Server, viewer: &str) {
    let good = || run_sql(server, viewer, "SELECT count(*) AS n FROM logs") == (200, json!([{ "n": 1 }]));
    let started_workers = || {
        wait_for("two workers run", || processes(server, "query-worker").len() == 2);
        processes(server, "query-worker")
    };
    // Without a query: the next one does not notice.
    let workers = started_workers();
    signal("-KILL", &workers);
    assert!(good(), "a query after both workers were killed");
    // During a query: it gets an error.
    let workers = started_workers();
    let (status, problem) = std::thread::scope(|scope| {
        let query = scope.spawn(|| run_sql(server, viewer, LONG_QUERY));
        std::thread::sleep(Duration::from_millis(700));
        signal("-ABRT", &workers);
        query.join().unwrap()
    });
    assert_eq!((status, &problem["code"]), (422, &json!("query_crashed")), "{problem}");
    assert!(good());
    // Hanging: killed at the deadline.
    let workers = started_workers();
    signal("-STOP", &workers);
    let started = Instant::now();
    let (status, problem) = run_sql(server, viewer, "SELECT count(*) AS n FROM logs");
    assert_eq!((status, &problem["code"]), (503, &json!("query_timeout")), "{problem}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    signal(
        "-CONT",
        &processes(server, "query-worker").into_iter().filter(|pid| workers.contains(pid)).collect::<Vec<_>>(),
    );
    wait_for("a query works again", good);
    assert_eq!(queries_of_readyz(server), "ok");
    let (_, metrics) = server.get("/metrics", "").unwrap();
    for reason in ["exited", "crashed", "deadline"] {
        let name = format!("wardroom_query_worker_restarts_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&name), "{name} is missing");
    }
    assert!(metrics.contains("wardroom_query_seconds_count{outcome=\"ok\"}"), "{metrics}");
}

/// The kernel limits the worker: memory, descriptors, system calls, privileges.
fn assert_is_confined(pid: u32) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let status = read("status");
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    let limits = read("limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line.trim_start_matches(name).split_whitespace().next().unwrap().parse::<u64>().ok()
    };
    let memory = limit("Max address space").expect("the address space is limited");
    assert!((768 << 20..2 << 30).contains(&memory), "{memory}");
    assert!(limit("Max open files").is_some_and(|files| files <= 1024), "{limits}");
    assert_eq!(limit("Max core file size"), Some(0));
    assert!(limit("Max cpu time").is_some_and(|seconds| seconds < 120), "{limits}");
}
