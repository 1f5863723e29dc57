//! A running shop and a running Wardroom, started as anybody would start them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use wardroom_domain::canonical::sha256_hex;

use crate::build::{Programs, command};

/// What to start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) names_seed: Option<u64>,
    /// By OpenTelemetry's protocol instead of remote_write and JSON.
    pub(crate) otlp: bool,
    pub(crate) fault: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) port: u16,
    pub(crate) keep: Option<PathBuf>,
    pub(crate) shop_args: Vec<String>,
}

/// Both programs, and the tokens for them.
pub(crate) struct World {
    pub(crate) dir: PathBuf,
    pub(crate) url: String,
    pub(crate) responder: String,
    wardroom: Child,
    shop: Child,
    programs: Programs,
    keep: bool,
    agent: ureq::Agent,
}

impl World {
    /// Starts everything and waits until both are up.
    pub(crate) fn start(programs: &Programs, plan: &Plan) -> anyhow::Result<Self> {
        let dir = plan.keep.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("wardroom-demo-{}-{}", std::process::id(), plan.seed))
        });
        if dir.exists() && std::fs::read_dir(&dir)?.next().is_some() {
            bail!("{} is not empty; name another folder", dir.display());
        }
        let secrets = dir.join("secrets");
        std::fs::create_dir_all(&secrets)?;
        let data = dir.join("data");
        let token = |principal: &str, role: &str| token(programs, &data, principal, role);
        let (sender, responder) = (token("shop", "sender")?, token("you", "responder")?);
        let control = format!("control-{}", sha256_hex(sender.as_bytes()));
        secret(&secrets.join("sender"), &sender)?;
        secret(&secrets.join("control"), &control)?;
        let file = secrets.join("executor.yaml");
        secret(&file, &executor_yaml(&responder, &control, &json!({})))?;

        let (wardroom, url) = serve(programs, &dir, &data, &file, plan.port)?;
        let shop = shop(programs, plan, &dir, &secrets, &url)?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build()
            .new_agent();
        let mut world =
            Self { dir, url, responder, wardroom, shop, programs: programs.clone(), keep: plan.keep.is_some(), agent };
        let running = world.wait_for_shop()?;
        // Now that the shop has said what there is, the executor may act on it.
        secret(&file, &executor_yaml(&world.responder, &control, &running))?;
        Ok(world)
    }

    fn wait_for_shop(&mut self) -> anyhow::Result<Value> {
        let started = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(self.dir.join("shop/run.json")) {
                return Ok(serde_json::from_str(&text)?);
            }
            if let Some(status) = self.shop.try_wait()? {
                bail!("the shop did not start ({status}); see {}", self.dir.join("shop.log").display());
            }
            if started.elapsed() > Duration::from_secs(60) {
                bail!("the shop did not start within 60 s");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the truth file says; only for judging afterwards.
    pub(crate) fn truth(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(self.dir.join("shop/truth.json"))?)?)
    }

    /// Asks Wardroom, as the responder.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request =
            self.agent.get(format!("{}{path}", self.url)).header("Authorization", format!("Bearer {}", self.responder));
        let mut answer = request.call()?;
        let text = answer.body_mut().with_config().limit(1 << 28).read_to_string()?;
        if !answer.status().is_success() {
            bail!("GET {path}: {} {text}", answer.status());
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Tells Wardroom, as the responder.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.responder));
        let mut answer = request.send_json(body)?;
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Every page of a list.
    pub(crate) fn all(&self, path: &str, key: &str) -> anyhow::Result<Vec<Value>> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}{}{cursor}", if path.contains('?') { "&" } else { "?" }))?;
            items.extend(page[key].as_array().cloned().unwrap_or_default());
            match &page["next"] {
                Value::Null => return Ok(items),
                next => cursor = format!("cursor={}", next.as_str().map_or_else(|| next.to_string(), str::to_owned)),
            }
        }
    }

    /// Whether both still run.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.wardroom.try_wait()? {
            bail!("wardroom ended ({status}); see {}", self.dir.join("wardroom.log").display());
        }
        if let Some(status) = self.shop.try_wait()? {
            bail!("the shop ended ({status}); see {}", self.dir.join("shop.log").display());
        }
        Ok(())
    }

    /// Stops both and checks the audit book.
    pub(crate) fn finish(mut self) -> anyhow::Result<Value> {
        stop(&mut self.shop);
        stop(&mut self.wardroom);
        let audit = command(&self.programs.wardroom)
            .args(["audit", "verify", "--json", "--data"])
            .arg(self.dir.join("data"))
            .output()?;
        let verdict: Value = serde_json::from_slice(&audit.stdout).context("audit verify")?;
        Ok(json!({ "entries": verdict["entries"], "verified": verdict["ok"] }))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        stop(&mut self.shop);
        stop(&mut self.wardroom);
        if !self.keep && std::fs::remove_dir_all(&self.dir).is_err() {
            anstream::eprintln!("could not remove {}", self.dir.display());
        }
    }
}

fn stop(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    let told = command("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
    for _ in 0..150 {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anstream::eprintln!("process {} does not stop ({told:?}); killing it", child.id());
    if child.kill().is_ok() {
        drop(child.wait());
    }
}

fn token(programs: &Programs, data: &Path, principal: &str, role: &str) -> anyhow::Result<String> {
    let made = command(&programs.wardroom)
        .args(["token", "create", "--json", "--principal", principal, "--role", role, "--data"])
        .arg(data)
        .output()?;
    let answer: Value = serde_json::from_slice(&made.stdout)
        .with_context(|| format!("token create: {}", String::from_utf8_lossy(&made.stderr)))?;
    Ok(answer["token"].as_str().context("no token")?.to_owned())
}

fn executor_yaml(responder: &str, control: &str, running: &Value) -> String {
    let mut text = format!(
        "approvers:\n  - principal: you\n    tenant: main\n    token-sha256: {}\ntargets:\n",
        sha256_hex(responder.as_bytes())
    );
    let services = running["services"].as_array().cloned().unwrap_or_default();
    if services.is_empty() {
        text.push_str("  []\n");
    }
    for service in services {
        let (name, url) = (&service["name"], &running["control"]);
        text.push_str(&format!("  - tool: process\n    name: {name}\n    url: {url}\n    token: {control}\n"));
    }
    text
}

fn serve(programs: &Programs, dir: &Path, data: &Path, file: &Path, port: u16) -> anyhow::Result<(Child, String)> {
    let log = std::fs::File::create(dir.join("wardroom.log"))?;
    let mut child = command(&programs.wardroom)
        .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(data)
        .arg("--executor-config")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut line = String::new();
    let out = child.stdout.take().context("no standard output")?;
    BufReader::new(out).read_line(&mut line)?;
    let url = line.trim().strip_prefix("listening ").map(str::to_owned);
    let url = url.with_context(|| format!("wardroom did not start; see {}", dir.join("wardroom.log").display()))?;
    Ok((child, url))
}

fn shop(programs: &Programs, plan: &Plan, dir: &Path, secrets: &Path, url: &str) -> anyhow::Result<Child> {
    // A free port for the control API; the shop says in run.json where it really is.
    let control = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let log = std::fs::File::create(dir.join("shop.log"))?;
    let mut shop = command(&programs.shop);
    shop.arg("run").arg("--dir").arg(dir.join("shop")).args(["--seed", &plan.seed.to_string()]);
    if plan.otlp {
        shop.args(["--otlp", url]);
    } else {
        shop.args(["--remote-write", &format!("{url}/api/v1/write"), "--logs", &format!("{url}/ingest/logs")]);
    }
    shop.args(["--deployments", &format!("{url}/ingest/deployment"), "--control", &control.to_string()]);
    shop.arg("--bearer-token-file").arg(secrets.join("sender"));
    shop.arg("--control-token-file").arg(secrets.join("control"));
    let optional = [
        ("--names-seed", plan.names_seed.map(|seed| seed.to_string())),
        ("--fault", plan.fault.clone()),
        ("--service", plan.service.clone()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            shop.args([name, &value]);
        }
    }
    shop.args(&plan.shop_args);
    Ok(shop.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?)
}

fn secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    writeln!(file, "{text}")?;
    Ok(std::fs::rename(fresh, path)?)
}
