//! The demo environment: a shop and a Wardroom server, started through their public command lines.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use wardroom_domain::canonical::sha256_hex;

use crate::programs::DemoPrograms;
use crate::workspace::command;

/// Time limit of one HTTP request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Time limit for the start of the shop.
const SHOP_START_TIMEOUT: Duration = Duration::from_secs(60);
/// A program that has not ended this long after SIGTERM is killed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum size of a response, in bytes.
const MAX_RESPONSE_BYTES: u64 = 1 << 28;

/// Settings of a demo run.
#[derive(Clone, Debug, Default)]
pub(super) struct DemoSettings {
    pub(super) seed: u64,
    /// Renames the shop's services and metrics.
    pub(super) names_seed: Option<u64>,
    /// Interval at which the shop sends telemetry, as its option takes it.
    pub(super) interval: Option<String>,
    /// Sends telemetry by OTLP instead of remote_write and JSON.
    pub(super) otlp: bool,
    pub(super) fault: Option<String>,
    /// Service to inject the fault into.
    pub(super) service: Option<String>,
    /// Wardroom's port; 0 for a free one.
    pub(super) port: u16,
    /// Folder to keep; without it a temporary one is removed at the end.
    pub(super) keep: Option<PathBuf>,
    pub(super) shop_args: Vec<String>,
}

/// The running programs and the responder's token.
pub(super) struct DemoEnvironment {
    pub(super) dir: PathBuf,
    pub(super) url: String,
    pub(super) responder_token: String,
    wardroom: Child,
    shop: Child,
    programs: DemoPrograms,
    keep: bool,
    agent: ureq::Agent,
}

impl DemoEnvironment {
    /// Starts both programs and waits until they are ready.
    ///
    /// # Errors
    /// Returns an error if the folder is not empty or a program does not start.
    pub(super) fn start(programs: &DemoPrograms, settings: &DemoSettings) -> anyhow::Result<Self> {
        let dir = settings.keep.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("wardroom-demo-{}-{}", std::process::id(), settings.seed))
        });
        if dir.exists() && std::fs::read_dir(&dir)?.next().is_some() {
            bail!("{} is not empty; name another folder", dir.display());
        }
        let secrets = dir.join("secrets");
        std::fs::create_dir_all(&secrets)?;
        let data = dir.join("data");
        let sender = create_token(programs, &data, "shop", "sender")?;
        let responder_token = create_token(programs, &data, "you", "responder")?;
        let control = format!("control-{}", sha256_hex(sender.as_bytes()));
        write_secret(&secrets.join("sender"), &sender)?;
        write_secret(&secrets.join("control"), &control)?;
        let executor_config = secrets.join("executor.yaml");
        write_secret(&executor_config, &executor_yaml(&responder_token, &control, &json!({})))?;

        let (wardroom, url) = start_wardroom(programs, &dir, &data, &executor_config, settings.port)?;
        let shop = start_shop(programs, settings, &dir, &secrets, &url)?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .build()
            .new_agent();
        let mut environment = Self {
            dir,
            url,
            responder_token,
            wardroom,
            shop,
            programs: programs.clone(),
            keep: settings.keep.is_some(),
            agent,
        };
        let run_info = environment.wait_for_shop()?;
        // The executor may act on the shop's services as soon as they are in its configuration.
        write_secret(&executor_config, &executor_yaml(&environment.responder_token, &control, &run_info))?;
        Ok(environment)
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
            if started.elapsed() > SHOP_START_TIMEOUT {
                bail!("the shop did not start within {} s", SHOP_START_TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The shop's truth file: which fault was injected, where and when. Used for the report only.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(super) fn truth(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(self.dir.join("shop/truth.json"))?)?)
    }

    /// Sends a GET request to Wardroom as the responder and returns the body.
    ///
    /// # Errors
    /// Returns an error if the request fails or the status is not a success.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self
            .agent
            .get(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.responder_token));
        let mut response = request.call()?;
        let text = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string()?;
        if !response.status().is_success() {
            bail!("GET {path}: {} {text}", response.status());
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Sends a POST request to Wardroom as the responder and returns status and body.
    ///
    /// # Errors
    /// Returns an error if the request fails.
    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.responder_token));
        let mut response = request.send_json(body)?;
        let text = response.body_mut().read_to_string()?;
        Ok((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Reads every page of a list; `key` names the list in the response.
    ///
    /// # Errors
    /// Returns an error if a request fails.
    pub(super) fn get_all(&self, path: &str, key: &str) -> anyhow::Result<Vec<Value>> {
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

    /// Checks that both programs still run.
    ///
    /// # Errors
    /// Returns an error if one of them has ended.
    pub(super) fn check_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.wardroom.try_wait()? {
            bail!("wardroom ended ({status}); see {}", self.dir.join("wardroom.log").display());
        }
        if let Some(status) = self.shop.try_wait()? {
            bail!("the shop ended ({status}); see {}", self.dir.join("shop.log").display());
        }
        Ok(())
    }

    /// Stops both programs and verifies the audit log.
    ///
    /// # Errors
    /// Returns an error if `wardroom audit verify` prints no result.
    pub(super) fn finish(mut self) -> anyhow::Result<Value> {
        stop(&mut self.shop);
        stop(&mut self.wardroom);
        let audit = command(&self.programs.wardroom)
            .args(["audit", "verify", "--json", "--data"])
            .arg(self.dir.join("data"))
            .output()?;
        let result: Value = serde_json::from_slice(&audit.stdout).context("audit verify")?;
        Ok(json!({ "entries": result["entries"], "verified": result["ok"] }))
    }
}

impl Drop for DemoEnvironment {
    fn drop(&mut self) {
        stop(&mut self.shop);
        stop(&mut self.wardroom);
        if !self.keep && std::fs::remove_dir_all(&self.dir).is_err() {
            anstream::eprintln!("could not remove {}", self.dir.display());
        }
    }
}

/// Sends SIGTERM and waits; kills the process after [`SHUTDOWN_TIMEOUT`].
fn stop(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    let sent = command("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
    let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
    while Instant::now() < deadline {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anstream::eprintln!("process {} did not stop in time ({sent:?}); killing it", child.id());
    if child.kill().is_ok() {
        drop(child.wait());
    }
}

fn create_token(programs: &DemoPrograms, data: &Path, principal: &str, role: &str) -> anyhow::Result<String> {
    let output = command(&programs.wardroom)
        .args(["token", "create", "--json", "--principal", principal, "--role", role, "--data"])
        .arg(data)
        .output()?;
    let token: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("token create: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(token["token"].as_str().context("no token")?.to_owned())
}

/// The executor's configuration: one approver, who approves with the page's button (a token, the weak mode), and one
/// target for each of the shop's services.
fn executor_yaml(responder_token: &str, control: &str, running: &Value) -> String {
    let mut text = format!(
        "approvers:\n  - principal: you\n    tenant: main\n    proof: token\n    token-sha256: {}\ntargets:\n",
        sha256_hex(responder_token.as_bytes())
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

fn start_wardroom(
    programs: &DemoPrograms,
    dir: &Path,
    data: &Path,
    executor_config: &Path,
    port: u16,
) -> anyhow::Result<(Child, String)> {
    let log = std::fs::File::create(dir.join("wardroom.log"))?;
    let mut child = command(&programs.wardroom)
        .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(data)
        .arg("--executor-config")
        .arg(executor_config)
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

fn start_shop(
    programs: &DemoPrograms,
    settings: &DemoSettings,
    dir: &Path,
    secrets: &Path,
    url: &str,
) -> anyhow::Result<Child> {
    // A free port for the control API; run.json contains the address that the shop uses.
    let control = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let log = std::fs::File::create(dir.join("shop.log"))?;
    let mut shop = command(&programs.shop);
    shop.arg("run").arg("--dir").arg(dir.join("shop")).args(["--seed", &settings.seed.to_string()]);
    if settings.otlp {
        shop.args(["--otlp", url]);
    } else {
        shop.args(["--remote-write", &format!("{url}/api/v1/write"), "--logs", &format!("{url}/ingest/logs")]);
    }
    shop.args(["--deployments", &format!("{url}/ingest/deployment"), "--control", &control.to_string()]);
    shop.arg("--bearer-token-file").arg(secrets.join("sender"));
    shop.arg("--control-token-file").arg(secrets.join("control"));
    let optional = [
        ("--interval", settings.interval.clone()),
        ("--names-seed", settings.names_seed.map(|seed| seed.to_string())),
        ("--fault", settings.fault.clone()),
        ("--service", settings.service.clone()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            shop.args([name, &value]);
        }
    }
    shop.args(&settings.shop_args);
    Ok(shop.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?)
}

/// Replaces a file that only the owner may read.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{text}")?;
    Ok(std::fs::rename(temporary, path)?)
}
