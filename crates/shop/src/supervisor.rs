//! Starts the services, keeps their versions and settings, restarts those that exit, deploys versions and injects
//! faults.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::arguments::RunArgs;
use crate::faults::{Behaviour, FaultKind};
use crate::names::{Names, Role};
use crate::scenario::{Case, Scenario};
use crate::service::{ServiceCommand, ServiceSpec, Settings};
use crate::telemetry::{Outbox, Targets, now_ms, rfc3339};

/// Interval between checks for exited services.
const RESTART_INTERVAL: Duration = Duration::from_millis(250);
/// Time that a replaced process has to finish its requests.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval and number of checks of a starting service.
const READY_POLL_INTERVAL: Duration = Duration::from_millis(20);
const MAX_READY_POLLS: usize = 100;

/// A service and its process.
pub(crate) struct RunningService {
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) previous: Option<String>,
    pub(crate) started_ms: i64,
    pub(crate) last_key: Option<String>,
    pub(crate) pid: u32,
    child: Option<tokio::process::Child>,
    input: Option<tokio::process::ChildStdin>,
    /// Behaviour injected at run time; a restart removes it.
    runtime: Behaviour,
}

/// Runs all services.
pub(crate) struct Supervisor {
    pub(crate) args: RunArgs,
    names: Names,
    scenario: Scenario,
    ports: HashMap<Role, u16>,
    targets: Targets,
    /// Deployments to report.
    deployments: Option<Arc<Outbox>>,
    /// Held while a service is changed.
    pub(crate) services: Mutex<Vec<RunningService>>,
}

/// An operation of the control API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    Restart,
    Rollback,
    Settings,
}

/// Replaces a file atomically: a concurrent reader sees the old or the new content.
fn replace_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text)?;
    Ok(std::fs::rename(temporary, path)?)
}

impl Supervisor {
    /// Derives names and scenario from the arguments and reserves the ports.
    ///
    /// # Errors
    /// Returns an error if the arguments are invalid or the folder cannot be created.
    pub(crate) fn new(args: RunArgs) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&args.dir)?;
        let names = Names::new(args.names_seed);
        let scenario = Scenario::new(&args, &names)?;
        let targets = Targets {
            otlp: args.otlp.clone(),
            remote_write: args.remote_write.clone(),
            logs: args.logs.clone(),
            deployments: args.deployments.clone(),
            bearer_token_file: args.bearer_token_file.clone(),
        };
        let deployments = targets.deployments.clone().map(|url| Outbox::json(url, targets.bearer_token_file.clone()));
        let (ports, services) = (free_ports()?, Mutex::default());
        Ok(Self { args, names, scenario, ports, targets, deployments, services })
    }

    /// Installs and starts all services.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written or a process cannot be started.
    pub(crate) async fn start_all(&self) -> anyhow::Result<()> {
        if let Some(outbox) = &self.deployments {
            tokio::spawn(Arc::clone(outbox).run());
        }
        self.install().await?;
        for service in self.services.lock().await.iter_mut() {
            self.start_process(service).await?;
        }
        Ok(())
    }

    /// Kills the processes of all services.
    pub(crate) async fn kill_all(&self) {
        for service in self.services.lock().await.iter_mut() {
            if let Some(child) = &mut service.child {
                child.start_kill().ok();
            }
        }
    }

    /// The URL of a service.
    pub(crate) fn url(&self, role: Role) -> String {
        format!("http://127.0.0.1:{}/", self.ports[&role])
    }

    /// The folder with a service's releases and settings.
    fn service_folder(&self, name: &str) -> PathBuf {
        self.args.dir.join("releases").join(name)
    }

    /// Writes the first release and the settings of every service.
    async fn install(&self) -> anyhow::Result<()> {
        let mut random = StdRng::seed_from_u64(self.args.seed ^ 0x7665_7273);
        for role in Role::ALL {
            let name = self.names.name_of(role).to_owned();
            let version =
                format!("{}.{}.{}", random.random_range(1..4), random.random_range(0..30), random.random_range(0..9));
            let settings: Settings = [
                (self.names.timeout_key.clone(), 2000),
                (self.names.rate_key.clone(), 1000),
                (self.names.pool_key.clone(), 20),
            ]
            .into();
            self.write_release(&name, &version, Behaviour::default())?;
            std::fs::write(self.service_folder(&name).join("settings.json"), serde_json::to_string_pretty(&settings)?)?;
            self.services.lock().await.push(RunningService {
                role,
                name,
                version,
                previous: None,
                started_ms: 0,
                last_key: None,
                pid: 0,
                child: None,
                input: None,
                runtime: Behaviour::default(),
            });
        }
        Ok(())
    }

    /// Writes a release and makes it the current one.
    fn write_release(&self, name: &str, version: &str, behaviour: Behaviour) -> anyhow::Result<()> {
        let folder = self.service_folder(name).join(version);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("behaviour.json"), serde_json::to_string(&behaviour)?)?;
        self.set_current(name, version)
    }

    /// Points the link `current` to a version.
    fn set_current(&self, name: &str, version: &str) -> anyhow::Result<()> {
        let link = self.service_folder(name).join("current.new");
        std::fs::remove_file(&link).ok();
        std::os::unix::fs::symlink(version, &link)?;
        Ok(std::fs::rename(link, self.service_folder(name).join("current"))?)
    }

    /// Starts the process of a service. A running predecessor serves the port until the new process is ready.
    #[expect(clippy::disallowed_methods, reason = "the supervisor starts the services")]
    async fn start_process(&self, service: &mut RunningService) -> anyhow::Result<()> {
        let spec = ServiceSpec {
            role: service.role,
            version: service.version.clone(),
            names: self.names.clone(),
            ports: self.ports.clone(),
            release: self.service_folder(&service.name).join(&service.version),
            settings: self.service_folder(&service.name).join("settings.json"),
            targets: self.targets.clone(),
            interval_ms: self.args.interval.as_millis() as u64,
        };
        std::fs::create_dir_all(self.args.dir.join("logs"))?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.args.dir.join("logs").join(format!("{}.log", service.name)))?;
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .arg("service")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let mut input = child.stdin.take().ok_or_else(|| anyhow::anyhow!("no standard input"))?;
        input.write_all(format!("{}\n", serde_json::to_string(&spec)?).as_bytes()).await?;
        wait_ready(self.ports[&service.role], child.id().unwrap_or_default(), service.child.is_some()).await;
        let old = service.child.take();
        drop(service.input.take());
        service.pid = child.id().unwrap_or_default();
        service.child = Some(child);
        service.input = Some(input);
        service.started_ms = now_ms();
        service.runtime = Behaviour::default();
        if let Some(mut old) = old {
            if let Some(pid) = old.id() {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGTERM).ok();
            }
            tokio::spawn(async move {
                if tokio::time::timeout(DRAIN_TIMEOUT, old.wait()).await.is_err() {
                    old.start_kill().ok();
                }
            });
        }
        Ok(())
    }

    async fn send_command(service: &mut RunningService, command: &ServiceCommand) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(command)?);
        let input = service.input.as_mut().ok_or_else(|| anyhow::anyhow!("not running"))?;
        Ok(input.write_all(line.as_bytes()).await?)
    }

    /// Restarts services that exit, until the task is aborted.
    pub(crate) async fn restart_exited(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RESTART_INTERVAL).await;
            let mut services = self.services.lock().await;
            for service in services.iter_mut() {
                let exited = service.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
                if exited {
                    service.child = None;
                    self.start_process(service).await.ok();
                }
            }
        }
    }

    /// Runs the scenario: a deployment without a fault, then the fault.
    pub(crate) async fn run_scenario(self: Arc<Self>) {
        let mut events: Vec<(Duration, bool)> =
            self.scenario.harmless_deployment.iter().map(|(_, at)| (*at, false)).collect();
        events.extend(self.scenario.fault.map(|_| (self.scenario.fault_at, true)));
        events.sort();
        let started = tokio::time::Instant::now();
        for (at, is_fault) in events {
            tokio::time::sleep_until(started + at).await;
            let result = match (is_fault, self.scenario.harmless_deployment) {
                (true, _) => self.inject_fault(true).await,
                (false, Some((role, _))) => self.deploy(role, Behaviour::default()).await,
                (false, None) => Ok(()),
            };
            if let Err(error) = result {
                self.write_error(&format!("scenario failed: {error}"));
            }
        }
    }

    fn write_error(&self, text: &str) {
        std::fs::write(self.args.dir.join("error.txt"), text).ok();
    }

    /// Deploys the next minor version of a service.
    async fn deploy(&self, role: Role, behaviour: Behaviour) -> anyhow::Result<()> {
        let mut services = self.services.lock().await;
        let Some(service) = services.iter_mut().find(|service| service.role == role) else { return Ok(()) };
        let mut parts: Vec<u32> = service.version.split('.').filter_map(|part| part.parse().ok()).collect();
        if let [_, minor, patch] = &mut parts[..] {
            *minor += 1;
            *patch = 0;
        }
        let version = parts.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        self.write_release(&service.name, &version, behaviour)?;
        service.previous = Some(std::mem::replace(&mut service.version, version));
        self.start_process(service).await?;
        self.report_deployment(service);
        Ok(())
    }

    fn report_deployment(&self, service: &RunningService) {
        let Some(outbox) = &self.deployments else { return };
        let event = json!({ "timestamp": rfc3339(now_ms()), "service": service.name, "version": service.version,
            "status": "success", "metadata": { "deployed_by": "pipeline" } });
        outbox.enqueue(event.to_string().into_bytes());
    }

    /// Injects the fault. `first` is the scenario's own; later ones follow a repair that `--fix-lasts` limits.
    async fn inject_fault(&self, first: bool) -> anyhow::Result<()> {
        let Some((kind, role)) = self.scenario.fault else { return Ok(()) };
        if first {
            self.write_truth(true)?;
        }
        let with_deployment = first && self.scenario.case == Case::Deployment && kind != FaultKind::BadSetting;
        if with_deployment {
            return self.deploy(role, Behaviour::of_fault(kind)).await;
        }
        let mut services = self.services.lock().await;
        let Some(service) = services.iter_mut().find(|service| service.role == role) else { return Ok(()) };
        if kind == FaultKind::BadSetting {
            let (key, value) =
                if self.scenario.timeout_setting { (&self.names.timeout_key, 1) } else { (&self.names.rate_key, 5) };
            self.write_setting(&service.name, key, value)?;
            return Self::send_command(service, &ServiceCommand::Reload).await;
        }
        service.runtime = Behaviour::of_fault(kind);
        Self::send_command(service, &ServiceCommand::SetBehaviour(service.runtime)).await
    }

    /// The settings of a service.
    pub(crate) fn settings(&self, name: &str) -> Settings {
        let text = std::fs::read_to_string(self.service_folder(name).join("settings.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn write_setting(&self, name: &str, key: &str, value: u64) -> anyhow::Result<()> {
        let mut settings = self.settings(name);
        settings.insert(key.to_owned(), value);
        replace_file(&self.service_folder(name).join("settings.json"), &serde_json::to_string_pretty(&settings)?)
    }

    /// Executes an operation and appends its effect to `effects.jsonl`, fsynced before the response.
    ///
    /// # Errors
    /// Returns an error if the operation is not possible or a file cannot be written.
    pub(crate) async fn operate(
        self: &Arc<Self>,
        service: &mut RunningService,
        operation: Operation,
        setting: Option<(String, u64)>,
        key: &str,
    ) -> anyhow::Result<()> {
        let before =
            json!({ "version": service.version, "settings": self.settings(&service.name), "pid": service.pid });
        match operation {
            Operation::Restart => self.start_process(service).await?,
            Operation::Rollback => {
                let Some(previous) = service.previous.take() else { anyhow::bail!("no previous version") };
                self.set_current(&service.name, &previous)?;
                service.previous = Some(std::mem::replace(&mut service.version, previous));
                self.start_process(service).await?;
            }
            Operation::Settings => {
                let (key, value) = setting.ok_or_else(|| anyhow::anyhow!("no setting given"))?;
                self.write_setting(&service.name, &key, value)?;
                Self::send_command(service, &ServiceCommand::Reload).await?;
            }
        }
        service.last_key = Some(key.to_owned());
        let after = json!({ "version": service.version, "settings": self.settings(&service.name), "pid": service.pid });
        let effect = json!({ "ts": rfc3339(now_ms()), "key": key, "service": service.name, "operation": operation,
            "before": before, "after": after });
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(self.args.dir.join("effects.jsonl"))?;
        file.write_all(format!("{effect}\n").as_bytes())?;
        file.sync_all()?;
        let faulty = self.scenario.fault.is_some_and(|(_, role)| role == service.role);
        if let Some(lasts) = self.args.fix_lasts.filter(|_| faulty) {
            let supervisor = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(lasts).await;
                supervisor.inject_fault(false).await.ok();
            });
        }
        Ok(())
    }

    /// Writes the truth file: which fault is injected, where and when.
    fn write_truth(&self, injected: bool) -> anyhow::Result<()> {
        let fault = self.scenario.fault.map(|(kind, role)| {
            let heals = match (kind, self.scenario.case) {
                (FaultKind::BadSetting, _) => Operation::Settings,
                (_, Case::Deployment) => Operation::Rollback,
                _ => Operation::Restart,
            };
            json!({ "kind": kind, "service": self.names.name_of(role), "heals": heals,
                "at": injected.then(|| rfc3339(now_ms())), "at_ms": injected.then(now_ms) })
        });
        let truth = json!({ "seed": self.args.seed, "case": self.scenario.case, "fault": fault,
            "harmless": self.scenario.harmless_deployment.map(|(role, _)| self.names.name_of(role)) });
        replace_file(&self.args.dir.join("truth.json"), &truth.to_string())
    }

    /// Writes `run.json`, which tells that the shop is ready.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub(crate) async fn write_status(&self, control: Option<std::net::SocketAddr>) -> anyhow::Result<()> {
        self.write_truth(false)?;
        let services: Vec<_> = self
            .services
            .lock()
            .await
            .iter()
            .map(|service| {
                json!({ "name": service.name, "pid": service.pid, "version": service.version,
                    "url": self.url(service.role) })
            })
            .collect();
        let text = json!({ "pid": std::process::id(), "control": control.map(|addr| format!("http://{addr}")),
            "services": services });
        replace_file(&self.args.dir.join("run.json"), &text.to_string())
    }
}

/// Waits until the service accepts requests, at most two seconds.
async fn wait_ready(port: u16, pid: u32, replaced: bool) {
    for _ in 0..MAX_READY_POLLS {
        // A predecessor on the same port would accept the connection; that the new process listens is visible in its
        // open files.
        let ready = if replaced {
            std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
                fds.flatten()
                    .filter_map(|fd| std::fs::read_link(fd.path()).ok())
                    .any(|target| target.to_string_lossy().starts_with("socket:"))
            })
        } else {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        };
        if ready {
            tokio::time::sleep(Duration::from_millis(if replaced { 60 } else { 0 })).await;
            return;
        }
        tokio::time::sleep(READY_POLL_INTERVAL).await;
    }
}

/// A free loopback port for each service.
fn free_ports() -> anyhow::Result<HashMap<Role, u16>> {
    // All are held until each has one, so that no port is chosen twice.
    let mut held = Vec::new();
    for role in Role::ALL {
        held.push((role, std::net::TcpListener::bind(("127.0.0.1", 0))?));
    }
    held.iter().map(|(role, listener)| Ok((*role, listener.local_addr()?.port()))).collect()
}
