//! `redis` against a real Redis.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wardroom_domain::ToolCall;
use wardroom_respond::{Tool, ToolError};
use wardroom_testing::RedisServer;
use wardroom_tools::programs::NoPrograms;
use wardroom_tools::{Context, SecretsConfig};

use super::contract::{self, Case, Cut};
use super::{call, cut_proxy, tool_with};

/// Rights that the documentation asks for.
const LEAST_PRIVILEGE: &str = "ACL SETUSER responder on >tool-canary-5 resetkeys -@all +info +client|list +client|kill +client|id \
    +slowlog|get +latency|latest +memory|doctor";

struct Fixture {
    server: RedisServer,
    tool: Box<dyn Tool>,
    context: Context,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let server = RedisServer::start(dir.path()).unwrap();
    let context = Context::new(SecretsConfig::default(), Arc::new(NoPrograms), dir.path().join("notes"));
    let tool = tool_with(&targets(server.port), &context);
    let fixture = Fixture { server, tool, context, _dir: dir };
    fixture.client("admin").send(LEAST_PRIVILEGE);
    fixture
}

fn targets(port: u16) -> Value {
    json!([{ "tool": "redis", "name": "cache", "host": "127.0.0.1", "port": port, "user": "responder",
        "password": "tool-canary-5", "tls": false }])
}

/// A client that speaks the protocol's inline form.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn send(&mut self, command: &str) -> String {
        let mut line = String::new();
        // What the server has disconnected can neither write nor read.
        if writeln!(self.stream.get_mut(), "{command}\r").is_ok() {
            drop(self.stream.read_line(&mut line));
        }
        line.trim().to_owned()
    }

    fn id(&mut self) -> u64 {
        self.send("CLIENT ID").trim_start_matches(':').parse().unwrap()
    }

    fn is_connected(&mut self) -> bool {
        self.send("PING") == "+PONG"
    }
}

impl Fixture {
    fn client(&self, name: &str) -> Client {
        let mut client =
            Client { stream: BufReader::new(TcpStream::connect(("127.0.0.1", self.server.port)).unwrap()) };
        assert_eq!(client.send(&format!("AUTH {}", self.server.password)), "+OK");
        assert_eq!(client.send(&format!("CLIENT SETNAME {name}")), "+OK");
        client
    }
}

fn kill(id: u64) -> ToolCall {
    call("redis", "kill_client", "cache", json!({ "id": id }))
}

#[test]
fn a_client_is_disconnected_once_and_stale_plans_are_refused() {
    let fixture = fixture();
    let tool = fixture.tool.as_ref();
    let ended = std::cell::RefCell::new(fixture.client("twice"));
    let mut bystander = fixture.client("bystander");
    let id = ended.borrow_mut().id();
    let effects = || usize::from(!ended.borrow_mut().is_connected());
    let case = Case { tool, call: kill(id), other_change: &|| (), effects: &effects, key: "kill" };
    contract::refused(&case);
    contract::twice_and_undone(&case);
    assert!(bystander.is_connected());

    let renamed = std::cell::RefCell::new(fixture.client("stale"));
    let id = renamed.borrow_mut().id();
    let other_change = || drop(renamed.borrow_mut().send("CLIENT SETNAME another"));
    let effects = || usize::from(!renamed.borrow_mut().is_connected());
    let case = Case { tool, call: kill(id), other_change: &other_change, effects: &effects, key: "stale" };
    contract::stale(&case);
    // A client that has gone by itself is not one that was disconnected.
    let plan = tool.plan(&kill(id)).unwrap();
    drop(renamed);
    std::thread::sleep(Duration::from_millis(100));
    let executed = tool.execute(&kill(id), &wardroom_respond::Run::new(&plan.precondition, "gone"));
    assert!(matches!(executed, Err(ToolError::Stale(text)) if text.contains("by itself")));
}

#[test]
fn an_interrupted_execution_disconnects_at_most_once() {
    let fixture = fixture();
    let cut = Arc::new(Cut::default());
    let proxy = cut_proxy::tcp(&format!("127.0.0.1:{}", fixture.server.port), &cut);
    let port = proxy.rsplit(':').next().unwrap().parse().unwrap();
    let cut_off = tool_with(&targets(port), &fixture.context);
    let mut interruptions = 0;
    for (step, after) in (0..200).flat_map(|step| [(step, false), (step, true)]) {
        let client = std::cell::RefCell::new(fixture.client("cut"));
        let id = client.borrow_mut().id();
        let effects = || usize::from(!client.borrow_mut().is_connected());
        let case =
            Case { tool: fixture.tool.as_ref(), call: kill(id), other_change: &|| (), effects: &effects, key: "cut" };
        if !contract::interrupted(&case, cut_off.as_ref(), &cut, step, after) {
            break;
        }
        interruptions += 1;
    }
    assert!(interruptions > 6, "{interruptions}");
}

#[test]
fn diagnostics_are_read_with_the_least_privilege_and_show_no_data() {
    let fixture = fixture();
    let tool = fixture.tool.as_ref();
    let mut client = fixture.client("app");
    client.send("CONFIG SET slowlog-log-slower-than 0");
    client.send("CONFIG SET latency-monitor-threshold 1");
    client.send("SET session:1 value-canary");
    client.send("DEBUG SLEEP 0.01");
    let read = |operation: &str, arguments: Value| {
        let value = tool.read(&call("redis", operation, "cache", arguments), Duration::from_secs(5)).unwrap();
        assert!(!value.to_string().contains("canary"), "{value}");
        value
    };
    assert!(read("info", json!({ "section": "memory" }))["used_memory"].as_u64() > Some(100_000));
    assert_eq!(read("info", json!({ "section": "replication" }))["role"], "master");
    let clients = read("clients", json!({ "limit": 10 }));
    assert!(clients["rows"].as_array().unwrap().iter().any(|row| row["name"] == "app"), "{clients}");
    let slow = read("slowlog", json!({ "limit": 50 }));
    assert!(
        slow["rows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["command"] == "SET session:1" && row["further_arguments"] == 1)
    );
    read("latency", json!({}));
    assert!(read("memory", json!({}))["figures"]["used_memory"].is_u64());
    let error = tool.plan(&kill(999_999)).unwrap_err();
    assert!(matches!(&error, ToolError::Invalid(text) if text.contains("no client")), "{error}");
    let wrong = json!([{ "tool": "redis", "name": "cache", "host": "127.0.0.1", "port": fixture.server.port,
        "password": "wrong-canary", "tls": false }]);
    let error = tool_with(&wrong, &fixture.context).plan(&kill(1)).unwrap_err();
    assert!(matches!(&error, ToolError::Invalid(text) if !text.contains("canary")), "{error}");
}
