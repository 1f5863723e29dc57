//! Bar 7g: secrets are planted where the product takes credentials, everything is used and refused at log level
//! `trace`, and then whatever the product has written or shows is searched for them: logs, tables, state, audit log,
//! backup, metrics, pages, errors. `kills` is the number of rounds, each with new secrets.
//!
//! The targets are hostile: they answer with what they were sent. A secret within telemetry is stored as telemetry, so
//! that one is looked for in logs, metrics, readiness and audit log only.

mod hostile_target;
mod planted;
mod searched;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_domain::executor::Response;
use wardroom_testing::{Server, SyntheticTelemetry, now_ms, remote_write};

use crate::bar::{BarOptions, BarResult};
use crate::progress::print_progress;
use crate::torture::executor_socket::ask_executor;
use hostile_target::HostileTarget;
use planted::Planted;
use searched::Searched;

/// Starts the server at log level `trace`, except for the engine that runs queries.
const TRACED: [&str; 4] = ["sh", "-c", "exec \"$@\" --log-level debug,wardroom=trace,hyper=trace,ureq=trace", "sh"];
/// What must have happened within this time.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Seconds of telemetry.
const STEPS: usize = 30;

/// Runs the rounds.
pub(super) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("7g")?;
    let mut result = BarResult::default();
    for round in 0..options.kills.max(1) {
        let folder = dir.join(format!("round-{round}"));
        let found = run_round(&folder, options.seed + round)?;
        if found.is_clean() {
            std::fs::remove_dir_all(&folder)?;
        }
        result.add(found);
    }
    if result.is_clean() {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(result)
}

fn run_round(dir: &Path, seed: u64) -> anyhow::Result<BarResult> {
    let mut planted = Planted::new(seed);
    let target = HostileTarget::start(planted.add("a secret in Vault"), planted.add("the token of Vault"))?;
    let secrets = dir.join("secrets");
    std::fs::create_dir_all(&secrets)?;
    let config = planted.executor_targets(&target.url, &secrets)?;
    let environment = planted.environment();
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut server = Server::start_wrapped(dir, &config, &environment, &TRACED)?;
    planted.note("the responder's token", &server.responder_token);
    planted.note("the sender's token", &server.sender_token);
    let mut searched = Searched::default();
    send_telemetry(&server, &mut planted)?;
    use_targets(&server, &planted, &mut searched)?;
    send_bad_credentials(&server, &mut planted, &mut searched)?;
    run_commands(&server, &planted, &mut searched)?;
    await_publication(&server)?;
    searched.read_api(&server)?;
    searched.read_tables(&server)?;
    server.stop()?;
    let data = dir.join("data");
    let (backup, export) = (dir.join("backup"), dir.join("audit.jsonl"));
    let commands = [
        ["backup", "--data", path(&data)?, "--to", path(&backup)?].to_vec(),
        ["audit", "export", "--data", path(&data)?, "--out", path(&export)?].to_vec(),
    ];
    for arguments in commands {
        let (code, output) = server.run(&arguments)?;
        ensure!(code == Some(0), "{arguments:?}: {output}");
        searched.add(&format!("output of {}", arguments[0]), output.into_bytes());
    }
    searched.add("audit export", std::fs::read(&export)?);
    searched.add("log", std::fs::read(dir.join("wardroom.log"))?);
    searched.read_folder(&data)?;
    searched.read_folder(&backup)?;
    let result = searched.compare(&planted, target.uses());
    print_progress(format!(
        "{} secrets, used {} times; {} places with {} MB searched: {} found",
        result.issued,
        target.uses(),
        searched.places(),
        searched.bytes() >> 20,
        result.spurious
    ));
    Ok(result)
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

/// Telemetry with a secret in a label and in a message.
fn send_telemetry(server: &Server, planted: &mut Planted) -> anyhow::Result<()> {
    let secret = planted.add_telemetry("a secret in telemetry");
    let mut telemetry = SyntheticTelemetry::new(now_ms() - 60_000, &["cart", &secret]);
    for step in 0..STEPS {
        let status = server.write(&remote_write::body(telemetry.next_second(&[])))?;
        ensure!(status == 204, "samples are not accepted: {status}");
        let line = json!({ "timestamp": Timestamp::from_millis(telemetry.at_ms), "level": "ERROR", "service": "cart",
            "message": format!("login with password={secret} failed, attempt {step}") });
        let (status, answer) = server.post_json("/ingest/logs", &server.sender_token, &line)?;
        ensure!(status == 200, "{answer}");
    }
    // Bodies that cannot be read.
    let broken = format!("{{\"message\": \"password={secret}\", ");
    let headers = [("Content-Type", "application/json")];
    server.post("/ingest/logs", &server.sender_token, &headers, broken.as_bytes())?;
    server.post("/v1/logs", &server.sender_token, &headers, broken.as_bytes())?;
    server.write(broken.as_bytes())?;
    Ok(())
}

/// Dry runs and actions, so that every credential is sent to a target, and comes back in its errors.
fn use_targets(server: &Server, planted: &Planted, searched: &mut Searched) -> anyhow::Result<()> {
    for name in planted.targets() {
        let call = json!({ "tool": "process", "operation": "restart", "target": name });
        let answer = ask_executor(server, &json!({ "op": "dry_run", "tenant": "main", "call": call }))?;
        searched.add(&format!("dry run of {name}"), format!("{answer:?}").into_bytes());
        let Response::DryRun { dry_run } = answer else { continue };
        let plan = json!({
            "version": 1, "tenant": "main", "incident": "k", "call": call, "dry_run": dry_run, "runbook": "r",
            "control": "none", "expires_at": Timestamp::from_millis(now_ms() + 60_000),
        });
        let plan: wardroom_domain::Plan = serde_json::from_value(plan)?;
        let hash = plan.sha256().map_err(anyhow::Error::msg)?;
        let proof = &server.responder_token;
        let authorize = json!({ "op": "authorize", "plan": plan, "plan_sha256": hash, "proof": proof });
        let execute = json!({ "op": "execute", "plan_sha256": hash });
        for request in [authorize, execute] {
            let answer = ask_executor(server, &request)?;
            searched.add(&format!("action on {name}"), format!("{answer:?}").into_bytes());
        }
    }
    Ok(())
}

/// Requests with credentials that are refused. Their answers must not repeat them.
fn send_bad_credentials(server: &Server, planted: &mut Planted, searched: &mut Searched) -> anyhow::Result<()> {
    let bearer = format!("wr_{}", planted.add("an unknown bearer token"));
    let basic = planted.add("a password of basic authentication");
    let basic = format!("Basic {}", planted::base64(&format!("user:{basic}")));
    let (cookie, key) = (planted.add("a cookie"), planted.add("a key of another product"));
    let in_query = planted.add("a token in a query string");
    let proof = planted.add("a proof that is none");
    let headers = [
        ("Authorization", basic.as_str()),
        ("Cookie", &format!("session={cookie}")),
        ("X-Api-Key", &key),
        ("Content-Type", "application/json"),
    ];
    for path in ["/api/v1/write", "/ingest/logs", "/v1/metrics", "/api/v1/incidents/INC-1/approve", "/api/v1/stop-all"]
    {
        let (_, _, body) = server.post(path, "", &headers, b"{}")?;
        searched.add(&format!("answer of {path}"), body.into_bytes());
        let (_, _, body) =
            server.post(&format!("{path}?token={in_query}&access_token={in_query}"), &bearer, &[], b"{}")?;
        searched.add(&format!("answer of {path}"), body.into_bytes());
    }
    for path in ["/api/v1/incidents", "/metrics", "/", "/incidents/INC-1", "/nothing"] {
        let (_, body) = server.get(&format!("{path}?api_key={in_query}"), &bearer)?;
        searched.add(&format!("answer of {path}"), body.into_bytes());
    }
    let body = json!({ "plan_sha256": "0".repeat(64), "proof": { "time": Timestamp::from_millis(now_ms()),
        "signature": proof } });
    for path in ["/api/v1/incidents/INC-1/approve", "/api/v1/resume", "/api/v1/incidents/INC-1/review"] {
        let (_, answer) = server.post_json(path, &server.responder_token, &body)?;
        searched.add(&format!("answer of {path}"), answer.to_string().into_bytes());
    }
    let plan = json!({ "op": "settle", "plan_sha256": "0".repeat(64), "proof": proof });
    searched.add("answer of the executor", format!("{:?}", ask_executor(server, &plan)?).into_bytes());
    Ok(())
}

/// Commands that read files with secrets, or take them as arguments, and fail.
fn run_commands(server: &Server, planted: &Planted, searched: &mut Searched) -> anyhow::Result<()> {
    let config = path(&server.executor_config)?.to_owned();
    let token = planted.any();
    let mut commands: Vec<Vec<&str>> = vec![
        vec!["tools", "list", "--executor-config", &config, "--json"],
        vec!["incidents", "list", "--url", "http://127.0.0.1:1", "--token", token],
        vec!["incidents", "approve", "INC-1", "--plan", "x", "--url", &server.url, "--token", token],
        vec!["stop-all", "--url", &server.url, "--token", token],
        vec!["config", "show"],
    ];
    for name in planted.targets() {
        commands.push(vec!["tools", "dry-run", "--executor-config", &config, "process", "restart", name]);
    }
    for arguments in commands {
        searched.add(&format!("output of {}", arguments[..2].join(" ")), planted::output(server, &arguments)?);
    }
    // A file with a mistake beside each secret.
    let text = std::fs::read_to_string(&server.executor_config)?;
    let broken = server.dir.join("secrets/broken.yaml");
    for (from, to) in [("token: ", "token: ["), ("tool: process", "tool: unknown"), ("url: ", "urll: ")] {
        std::fs::write(&broken, text.replacen(from, to, 1))?;
        std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let arguments = ["tools", "list", "--executor-config", path(&broken)?];
        searched.add("output of a broken file", planted::output(server, &arguments)?);
    }
    std::fs::remove_file(broken)?;
    Ok(())
}

/// Waits until the head of the audit log was sent to the places that refuse it.
fn await_publication(server: &Server) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let ready: Value = serde_json::from_str(&server.get("/readyz", "")?.1)?;
        if ready["audit_heads"].as_str().is_some_and(|text| text.contains("403")) {
            return Ok(());
        }
        ensure!(started.elapsed() < TIMEOUT, "no place has refused a head: {ready}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
