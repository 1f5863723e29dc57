//! Starts the services, keeps their versions and settings, restarts what exits, tells the story.

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

use crate::fault::{Behaviour, Kind, Story};
use crate::names::{Names, Role};
use crate::service::{Order, Settings, Spec};
use crate::telemetry::{Outbox, Targets, now_ms, rfc3339};
use crate::{RunArgs, control, load};

/// What is known of one service.
pub(crate) struct Running {
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) previous: Option<String>,
    pub(crate) started_ms: i64,
    pub(crate) last_key: Option<String>,
    pub(crate) pid: u32,
    child: Option<tokio::process::Child>,
    input: Option<tokio::process::ChildStdin>,
    /// What a runtime fault makes it do, until it is restarted.
    runtime: Behaviour,
}

/// The supervisor.
pub(crate) struct Shop {
    pub(crate) args: RunArgs,
    pub(crate) names: Names,
    pub(crate) story: Story,
    ports: HashMap<Role, u16>,
    targets: Targets,
    deployments: Option<Arc<Outbox>>,
    pub(crate) services: Mutex<Vec<Running>>,
    struck: Mutex<bool>,
}

/// What heals a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    Restart,
    Rollback,
    Settings,
}

/// Runs the shop until a signal comes.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.dir)?;
    let names = Names::new(args.names_seed);
    let story = Story::tell(&args, &names)?;
    let targets = Targets {
        otlp: args.otlp.clone(),
        remote_write: args.remote_write.clone(),
        logs: args.logs.clone(),
        deployments: args.deployments.clone(),
        bearer_token_file: args.bearer_token_file.clone(),
    };
    let deployments = targets.deployments.clone().map(|url| Outbox::json(url, targets.bearer_token_file.clone()));
    if let Some(outbox) = &deployments {
        tokio::spawn(Arc::clone(outbox).run());
    }
    let shop = Arc::new(Shop {
        ports: free_ports()?,
        services: Mutex::default(),
        struck: Mutex::new(false),
        args,
        names,
        story,
        targets,
        deployments,
    });
    shop.install().await?;
    for index in 0..Role::ALL.len() {
        shop.start(index).await?;
    }
    let control = control::listen(Arc::clone(&shop)).await?;
    shop.describe(control).await?;
    for role in [Role::Storefront, Role::Newsletter] {
        let url = format!("http://127.0.0.1:{}/", shop.ports[&role]);
        tokio::spawn(load::run(url, shop.args.rps, shop.args.seed));
    }
    tokio::spawn(Arc::clone(&shop).keep_running());
    tokio::spawn(Arc::clone(&shop).tell());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    for service in shop.services.lock().await.iter_mut() {
        if let Some(child) = &mut service.child {
            child.start_kill().ok();
        }
    }
    Ok(())
}

/// Writes a file anew in one step: whoever reads it meanwhile sees the old or the new, never half of one.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text)?;
    Ok(std::fs::rename(fresh, path)?)
}

/// Says what runs, from the folder's `run.json`.
pub(crate) async fn status(dir: &Path, as_json: bool) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(dir.join("run.json"))
        .map_err(|error| anyhow::anyhow!("no shop was started in {}: {error}", dir.display()))?;
    let status: serde_json::Value = serde_json::from_str(&text)?;
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{status}")?;
    } else {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
    }
    Ok(())
}

impl Shop {
    fn home(&self, name: &str) -> PathBuf {
        self.args.dir.join("releases").join(name)
    }

    /// Lays out the first release and the settings of every service.
    async fn install(&self) -> anyhow::Result<()> {
        let mut random = StdRng::seed_from_u64(self.args.seed ^ 0x7665_7273);
        for role in Role::ALL {
            let name = self.names.of(role).to_owned();
            let version =
                format!("{}.{}.{}", random.random_range(1..4), random.random_range(0..30), random.random_range(0..9));
            let settings: Settings = [
                (self.names.timeout_key.clone(), 2000),
                (self.names.rate_key.clone(), 1000),
                (self.names.pool_key.clone(), 20),
            ]
            .into();
            self.release(&name, &version, Behaviour::default())?;
            std::fs::write(self.home(&name).join("settings.json"), serde_json::to_string_pretty(&settings)?)?;
            self.services.lock().await.push(Running {
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

    fn release(&self, name: &str, version: &str, behaviour: Behaviour) -> anyhow::Result<()> {
        let folder = self.home(name).join(version);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("behaviour.json"), serde_json::to_string(&behaviour)?)?;
        self.point(name, version)
    }

    /// Makes `current` point to a version.
    fn point(&self, name: &str, version: &str) -> anyhow::Result<()> {
        let link = self.home(name).join("current.new");
        std::fs::remove_file(&link).ok();
        std::os::unix::fs::symlink(version, &link)?;
        Ok(std::fs::rename(link, self.home(name).join("current"))?)
    }

    /// Starts the process of one service; one that runs already keeps its port until the new one is up.
    async fn start(&self, index: usize) -> anyhow::Result<()> {
        let mut services = self.services.lock().await;
        self.start_locked(&mut services[index]).await
    }

    #[expect(clippy::disallowed_methods, reason = "the supervisor's job is to start processes")]
    async fn start_locked(&self, service: &mut Running) -> anyhow::Result<()> {
        let spec = Spec {
            role: service.role,
            version: service.version.clone(),
            names: self.names.clone(),
            ports: self.ports.clone(),
            release: self.home(&service.name).join(&service.version),
            settings: self.home(&service.name).join("settings.json"),
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
                if tokio::time::timeout(Duration::from_secs(3), old.wait()).await.is_err() {
                    old.start_kill().ok();
                }
            });
        }
        Ok(())
    }

    async fn order(service: &mut Running, order: &Order) -> anyhow::Result<()> {
        let line = format!("{}\n", serde_json::to_string(order)?);
        let input = service.input.as_mut().ok_or_else(|| anyhow::anyhow!("not running"))?;
        Ok(input.write_all(line.as_bytes()).await?)
    }

    /// Restarts what exits.
    async fn keep_running(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let mut services = self.services.lock().await;
            for service in services.iter_mut() {
                let exited = service.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
                if exited {
                    service.child = None;
                    self.start_locked(service).await.ok();
                }
            }
        }
    }

    /// What the story holds: a harmless deployment, then the fault.
    async fn tell(self: Arc<Self>) {
        let mut events: Vec<(Duration, bool)> = self.story.harmless.iter().map(|(_, at)| (*at, false)).collect();
        events.extend(self.story.fault.map(|_| (self.story.at, true)));
        events.sort();
        let started = tokio::time::Instant::now();
        for (at, is_fault) in events {
            tokio::time::sleep_until(started + at).await;
            let told = match (is_fault, self.story.harmless) {
                (true, _) => self.strike(true).await,
                (false, Some((role, _))) => self.deploy(role, Behaviour::default()).await,
                (false, None) => Ok(()),
            };
            if let Err(error) = told {
                self.note(&format!("story failed: {error}"));
            }
        }
    }

    fn note(&self, text: &str) {
        std::fs::write(self.args.dir.join("error.txt"), text).ok();
    }

    async fn deploy(&self, role: Role, behaviour: Behaviour) -> anyhow::Result<()> {
        let mut services = self.services.lock().await;
        let Some(service) = services.iter_mut().find(|service| service.role == role) else { return Ok(()) };
        let mut parts: Vec<u32> = service.version.split('.').filter_map(|part| part.parse().ok()).collect();
        if let [_, minor, patch] = &mut parts[..] {
            *minor += 1;
            *patch = 0;
        }
        let version = parts.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        self.release(&service.name, &version, behaviour)?;
        service.previous = Some(std::mem::replace(&mut service.version, version));
        self.start_locked(service).await?;
        self.announce(service);
        Ok(())
    }

    fn announce(&self, service: &Running) {
        let Some(outbox) = &self.deployments else { return };
        let event = json!({ "timestamp": rfc3339(now_ms()), "service": service.name, "version": service.version,
            "status": "success", "metadata": { "deployed_by": "pipeline" } });
        outbox.put(event.to_string().into_bytes());
    }

    /// Lets the fault strike. `first` is the story's own; later ones come back after a short-lived fix.
    async fn strike(&self, first: bool) -> anyhow::Result<()> {
        let Some((kind, role)) = self.story.fault else { return Ok(()) };
        *self.struck.lock().await = true;
        if first {
            self.write_truth(true).await?;
        }
        let with_deployment = first && self.story.case == crate::fault::Case::Deployment && kind != Kind::BadSetting;
        if with_deployment {
            return self.deploy(role, Behaviour::of(kind)).await;
        }
        let mut services = self.services.lock().await;
        let Some(service) = services.iter_mut().find(|service| service.role == role) else { return Ok(()) };
        if kind == Kind::BadSetting {
            let (key, value) =
                if self.story.timeout_setting { (&self.names.timeout_key, 1) } else { (&self.names.rate_key, 5) };
            self.set(&service.name, key, value)?;
            return Self::order(service, &Order::Reload).await;
        }
        service.runtime = Behaviour::of(kind);
        Self::order(service, &Order::Behave(service.runtime)).await
    }

    /// The settings of a service.
    pub(crate) fn settings(&self, name: &str) -> Settings {
        let text = std::fs::read_to_string(self.home(name).join("settings.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn set(&self, name: &str, key: &str, value: u64) -> anyhow::Result<()> {
        let mut settings = self.settings(name);
        settings.insert(key.to_owned(), value);
        replace(&self.home(name).join("settings.json"), &serde_json::to_string_pretty(&settings)?)
    }

    /// Carries out one operation and appends its effect, fsynced, before anyone is told.
    pub(crate) async fn operate(
        self: &Arc<Self>,
        service: &mut Running,
        operation: Operation,
        setting: Option<(String, u64)>,
        key: &str,
    ) -> anyhow::Result<()> {
        let before =
            json!({ "version": service.version, "settings": self.settings(&service.name), "pid": service.pid });
        match operation {
            Operation::Restart => self.start_locked(service).await?,
            Operation::Rollback => {
                let Some(previous) = service.previous.take() else { anyhow::bail!("no previous version") };
                self.point(&service.name, &previous)?;
                service.previous = Some(std::mem::replace(&mut service.version, previous));
                self.start_locked(service).await?;
            }
            Operation::Settings => {
                let (key, value) = setting.ok_or_else(|| anyhow::anyhow!("no setting given"))?;
                self.set(&service.name, &key, value)?;
                Self::order(service, &Order::Reload).await?;
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
        let struck = self.story.fault.is_some_and(|(_, role)| role == service.role);
        if let Some(lasts) = self.args.fix_lasts.filter(|_| struck) {
            let shop = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(lasts).await;
                shop.strike(false).await.ok();
            });
        }
        Ok(())
    }

    /// Writes the one file that tells the truth.
    async fn write_truth(&self, struck: bool) -> anyhow::Result<()> {
        let fault = self.story.fault.map(|(kind, role)| {
            let heals = match (kind, self.story.case) {
                (Kind::BadSetting, _) => Operation::Settings,
                (_, crate::fault::Case::Deployment) => Operation::Rollback,
                _ => Operation::Restart,
            };
            json!({ "kind": kind, "service": self.names.of(role), "heals": heals,
                "at": struck.then(|| rfc3339(now_ms())), "at_ms": struck.then(now_ms) })
        });
        let truth = json!({ "seed": self.args.seed, "case": self.story.case, "fault": fault,
            "harmless": self.story.harmless.map(|(role, _)| self.names.of(role)) });
        replace(&self.args.dir.join("truth.json"), &truth.to_string())
    }

    async fn describe(&self, control: Option<std::net::SocketAddr>) -> anyhow::Result<()> {
        self.write_truth(false).await?;
        let services: Vec<_> = self
            .services
            .lock()
            .await
            .iter()
            .map(|service| {
                json!({ "name": service.name, "pid": service.pid, "version": service.version,
                    "url": format!("http://127.0.0.1:{}/", self.ports[&service.role]) })
            })
            .collect();
        let text = json!({ "pid": std::process::id(), "control": control.map(|addr| format!("http://{addr}")),
            "services": services });
        replace(&self.args.dir.join("run.json"), &text.to_string())
    }
}

/// Waits until the service answers, at most two seconds.
async fn wait_ready(port: u16, pid: u32, replaced: bool) {
    for _ in 0..100 {
        // With a predecessor on the same port an answer proves nothing; the new process listens once it
        // has read its settings, which its socket table shows.
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
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One free loopback port a service.
fn free_ports() -> anyhow::Result<HashMap<Role, u16>> {
    let mut held = Vec::new();
    for role in Role::ALL {
        held.push((role, std::net::TcpListener::bind(("127.0.0.1", 0))?));
    }
    held.iter().map(|(role, listener)| Ok((*role, listener.local_addr()?.port()))).collect()
}
