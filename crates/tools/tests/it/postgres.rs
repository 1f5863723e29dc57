//! `postgres` against a real PostgreSQL.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardroom_domain::{Outcome, ToolCall};
use wardroom_respond::{Run, Tool, ToolError};
use wardroom_testing::PostgresServer;
use wardroom_tools::programs::NoPrograms;
use wardroom_tools::{Context, SecretsConfig};

use super::contract::{self, Case, Cut};
use super::{call, cut_proxy, tool_with};

/// Rights that the documentation asks for.
const LEAST_PRIVILEGE: &str = "CREATE ROLE responder LOGIN PASSWORD 'tool-canary-4'; GRANT pg_monitor, \
    pg_signal_backend TO responder; CREATE ROLE app LOGIN PASSWORD 'app'; GRANT CREATE ON DATABASE shop TO app;";

struct Fixture {
    server: PostgresServer,
    tool: Box<dyn Tool>,
    context: Context,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let server = PostgresServer::start(&dir.path().join("server")).unwrap();
    server.create_database("shop").unwrap();
    server.execute("postgres", LEAST_PRIVILEGE).unwrap();
    server.execute("shop", "CREATE TABLE stock (id int PRIMARY KEY, n int); INSERT INTO stock VALUES (1, 5)").unwrap();
    server.execute("shop", "GRANT ALL ON stock TO app").unwrap();
    let context = Context::new(SecretsConfig::default(), Arc::new(NoPrograms), dir.path().join("notes"));
    let tool = tool_with(&targets(server.port), &context);
    Fixture { server, tool, context, _dir: dir }
}

fn targets(port: u16) -> Value {
    json!([{ "tool": "postgres", "name": "shop-db", "host": "127.0.0.1", "port": port, "database": "shop",
        "user": "responder", "password": "tool-canary-4", "tls": false }])
}

/// A client's connection, in `psql`.
struct Session {
    child: Child,
    pid: i64,
}

impl Session {
    /// Connects as `app` and runs statements; the last one may go on.
    fn start(server: &PostgresServer, name: &str, statements: &str) -> Self {
        let mut psql = server.psql("shop").unwrap();
        psql.args(["-U", "app"]).env("PGPASSWORD", "app").env("PGAPPNAME", name);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(statements.as_bytes()).unwrap();
        // The statement that the session stays in is the last one.
        let last = statements.trim().trim_end_matches(';').rsplit(';').next().unwrap().trim().replace('\'', "''");
        let sql =
            format!("SELECT pid FROM pg_stat_activity WHERE application_name = '{name}' AND query LIKE '{last}%'");
        let pid = await_value(|| server.execute("postgres", &sql).unwrap().parse().ok());
        Self { child, pid }
    }

    fn go_on(&mut self, statement: &str) {
        self.child.stdin.as_mut().unwrap().write_all(statement.as_bytes()).unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn await_value<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = find() {
            return value;
        }
        assert!(Instant::now() < deadline, "it does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Fixture {
    fn call(&self, operation: &str, pid: i64) -> ToolCall {
        call("postgres", operation, "shop-db", json!({ "pid": pid }))
    }

    /// Statements and connections that the server ended, by its log.
    fn effects(&self) -> usize {
        let log = self.server.log().unwrap();
        let ends = ["canceling statement due to user request", "terminating connection due to administrator command"];
        ends.iter().map(|end| log.matches(end).count()).sum()
    }

    /// A session that holds a lock in an open transaction, or runs a long statement.
    fn session(&self, operation: &str, name: &str) -> Session {
        let statements = match operation {
            "terminate" => "BEGIN; UPDATE stock SET n = 4 WHERE id = 1;\n",
            _ => "SELECT pg_sleep(300);\n",
        };
        Session::start(&self.server, name, statements)
    }
}

#[test]
fn statements_and_connections_are_ended_once_and_stale_plans_refused() {
    let fixture = fixture();
    let tool = fixture.tool.as_ref();
    let effects = || fixture.effects();
    for operation in ["terminate", "cancel"] {
        let session = fixture.session(operation, "twice");
        let call = fixture.call(operation, session.pid);
        let case = Case { tool, call, other_change: &|| (), effects: &effects, key: operation };
        contract::refused(&case);
        contract::twice_and_undone(&case);
        drop(session);

        let session = fixture.session(operation, "stale");
        let pid = session.pid;
        let session = std::cell::RefCell::new(session);
        let other_change = || match operation {
            // The session goes on by itself.
            "terminate" => {
                session.borrow_mut().go_on("SELECT 1 AS another;\n");
                let sql = format!("SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%another%'");
                await_value(|| (fixture.server.execute("postgres", &sql).unwrap() == "1").then_some(()));
            }
            _ => session.borrow_mut().child.kill().unwrap_or_else(|error| panic!("{error}")),
        };
        let case = Case {
            tool,
            call: fixture.call(operation, pid),
            other_change: &other_change,
            effects: &effects,
            key: operation,
        };
        if operation == "terminate" {
            contract::stale(&case);
        }
    }
}

#[test]
fn an_interrupted_execution_ends_a_connection_at_most_once() {
    let fixture = fixture();
    let cut = Arc::new(Cut::default());
    let proxy = cut_proxy::tcp(&format!("127.0.0.1:{}", fixture.server.port), &cut);
    let port = proxy.rsplit(':').next().unwrap().parse().unwrap();
    let cut_off = tool_with(&targets(port), &fixture.context);
    let effects = || fixture.effects();
    let mut interruptions = 0;
    for operation in ["terminate", "cancel"] {
        for (step, after) in (0..200).flat_map(|step| [(step, false), (step, true)]) {
            let name = format!("cut-{step}-{after}");
            let session = fixture.session(operation, &name);
            let call = fixture.call(operation, session.pid);
            let case =
                Case { tool: fixture.tool.as_ref(), call, other_change: &|| (), effects: &effects, key: operation };
            if !contract::interrupted(&case, cut_off.as_ref(), &cut, step, after) {
                break;
            }
            interruptions += 1;
        }
    }
    assert!(interruptions > 10, "{interruptions}");
}

#[test]
fn a_dry_run_says_what_a_backend_does_without_data() {
    let fixture = fixture();
    let tool = fixture.tool.as_ref();
    let session = Session::start(
        &fixture.server,
        "checkout",
        "BEGIN; SELECT 'card-canary' AS card, n FROM stock WHERE id = 1 FOR UPDATE;\n",
    );
    let waiting = Session::start(&fixture.server, "waiting", "UPDATE stock SET n = 3 WHERE id = 1;\n");
    let terminate = fixture.call("terminate", session.pid);
    let dry_run = tool.plan(&terminate).unwrap();
    for part in
        ["user app", "database shop", "application checkout", "idle in transaction", "SELECT ? AS card, n FROM stock"]
    {
        assert!(dry_run.diff.contains(part), "{part:?} in {}", dry_run.diff);
    }
    assert_eq!((dry_run.affected, dry_run.risk.as_str(), dry_run.reversible), (Some(1), "medium", false));
    let read = |operation: &str| {
        let call = call("postgres", operation, "shop-db", json!({ "limit": 20 }));
        let value = tool.read(&call, Duration::from_secs(10)).unwrap();
        assert!(!value.to_string().contains("canary"), "{value}");
        value["rows"].as_array().unwrap().clone()
    };
    let blocking = await_value(|| read("blocking").first().cloned());
    assert_eq!((&blocking["pid"], &blocking["blocked_by"]), (&json!(waiting.pid), &json!([session.pid])));
    assert_eq!(read("activity").iter().filter(|row| row["user"] == "app").count(), 2);
    assert!(read("connections").iter().any(|row| row["max_connections"] == 200));
    assert_eq!(read("replication"), Vec::<Value>::new());
    assert_eq!(read("tables")[0]["table"], "stock");
    assert!(read("databases").iter().any(|row| row["database"] == "shop" && row["bytes"].as_u64() > Some(0)));
    // What is blocked goes on once the holder has ended.
    let applied = tool.execute(&terminate, &Run::new(&dry_run.precondition, "unblock")).unwrap();
    assert_eq!(applied.outcome, Outcome::Applied, "{applied:?}");
    await_value(|| (fixture.server.execute("shop", "SELECT n FROM stock").unwrap() == "3").then_some(()));
}

#[test]
fn what_must_not_be_ended_is_refused_and_a_silent_server_is_not_waited_for() {
    let fixture = fixture();
    let tool = fixture.tool.as_ref();
    let refused = |pid: i64, operation: &str, reason: &str| {
        let error = tool.plan(&fixture.call(operation, pid)).unwrap_err();
        assert!(matches!(&error, ToolError::Invalid(text) if text.contains(reason)), "{error}");
    };
    let checkpointer =
        fixture.server.execute("postgres", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
    refused(checkpointer.unwrap().parse().unwrap(), "terminate", "checkpointer");
    refused(4_000_000, "cancel", "no backend");
    let idle = fixture.session("terminate", "idle");
    refused(idle.pid, "cancel", "nothing to cancel");
    let mut superuser = fixture.server.psql("shop").unwrap();
    let superuser = superuser.env("PGAPPNAME", "super").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut superuser = superuser.spawn().unwrap();
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'super'";
    let pid = await_value(|| fixture.server.execute("postgres", sql).unwrap().parse().ok());
    refused(pid, "terminate", "superuser");
    drop((superuser.kill(), superuser.wait()));
    // A server that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tool = tool_with(&targets(silent.local_addr().unwrap().port()), &fixture.context);
    let read = call("postgres", "activity", "shop-db", json!({}));
    let started = Instant::now();
    let mut limited = targets(silent.local_addr().unwrap().port());
    limited[0]["timeout-seconds"] = json!(1);
    let limited = tool_with(&limited, &fixture.context);
    assert!(matches!(limited.read(&read, Duration::ZERO), Err(ToolError::Unavailable(_))));
    assert!(started.elapsed() < Duration::from_secs(8));
    drop(tool);
}
