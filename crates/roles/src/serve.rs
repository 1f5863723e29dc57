//! The server: everything that is not the executor, in one confined process.

mod backend;
mod ports;
mod tables;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use wardroom_api::recorder;
use wardroom_bus::{Bus, DeadLetters, EmbeddedBus, Expiry};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{Envelope, IncidentState};
use wardroom_edge::{AuthMode, InflateBudget, Port, Refused, Routes, TokenTable, listen_otlp_grpc};
use wardroom_knowledge::Library;
use wardroom_lake::Queries;
use wardroom_pipeline::checkpoint::{self, Checkpoints};
use wardroom_pipeline::findings::Findings;
use wardroom_pipeline::intake::{Queue, intake};
use wardroom_pipeline::keep::{Kept, Tables};
use wardroom_pipeline::pump::Pump;
use wardroom_pipeline::tenants::{News, Tenants};
use wardroom_pipeline::{events, keep, poison};
use wardroom_respond::Workflow;
use wardroom_store::{Store, database};

use self::backend::{Readiness, backend};
use crate::config::Config;
use crate::metrics as names;
use crate::respond::{Responder, entry};
use crate::tokens;
use crate::{clock, gold, heartbeat, respond};
use wardroom_executor::{ExecutorClient, socket_path};
use wardroom_process::isolation::{FOLDERS, Isolation, confine_server};

/// What `wardroom serve` was told.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The data folder.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whether credentials are asked for.
    pub auth: AuthMode,
    /// Where the first administrator's token goes; stdout if absent.
    pub admin_token_file: Option<PathBuf>,
    /// Whether an executor was started beside this process.
    pub executor: bool,
}

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// `--auth off` beyond loopback.
    #[error("--auth off is accepted on loopback only, and {0} is not; use --listen 127.0.0.1:PORT")]
    Exposed(SocketAddr),
    /// The bus.
    #[error(transparent)]
    Bus(#[from] wardroom_bus::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
    /// The tables.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    /// The runbooks.
    #[error(transparent)]
    Knowledge(#[from] wardroom_knowledge::Error),
    /// Something that has to go on for ever stopped. What it needs to go on is on the disk: start it again.
    #[error("a role ended: {0}")]
    Ended(String),
    /// What had to be left out at the start can be done now.
    #[error("the store of the tables is back: start again, to keep what came meanwhile")]
    Again,
    /// A file or the listener.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's words.
        error: std::io::Error,
    },
}

/// Confines the process, then serves until `stop` resolves; drains and flushes before it returns.
/// `announce` gets the lines for stdout: the address first.
///
/// # Errors
/// See [`ServeError`].
pub fn serve<F: Future<Output = ()> + Send + 'static>(
    options: ServeOptions,
    config: Config,
    announce: impl FnMut(String),
    stop: impl FnOnce() -> F,
) -> Result<(), ServeError> {
    if options.auth == AuthMode::Off {
        let more = config.edge.otlp_grpc.parse::<SocketAddr>().ok();
        let exposed = [Some(options.listen), more].into_iter().flatten().find(|address| !address.ip().is_loopback());
        if let Some(address) = exposed {
            return Err(ServeError::Exposed(address));
        }
    }
    let lake = if config.lake.enabled { config.lake.folder(&options.data)? } else { None };
    for dir in FOLDERS.map(|folder| options.data.join(folder)).into_iter().chain(lake.clone()) {
        std::fs::create_dir_all(&dir).map_err(|error| io(format!("create {}", dir.display()), error))?;
    }
    // The file with the first token is opened before the walls go up, so that its folder need not be open after.
    let admin_file = options.admin_token_file.as_deref().map(open_secret).transpose()?;
    let readable: Vec<PathBuf> = config.knowledge.runbooks.iter().cloned().collect();
    let isolation = confine_server(&options.data, lake, &readable);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("role")
        .enable_all()
        .build()
        .map_err(|error| io("start threads".into(), error))?;
    let outcome = runtime.block_on(run(options, config, isolation, admin_file, announce, stop));
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}

async fn run<F: Future<Output = ()> + Send + 'static>(
    options: ServeOptions,
    config: Config,
    isolation: Isolation,
    admin_file: Option<std::fs::File>,
    mut announce: impl FnMut(String),
    stop: impl FnOnce() -> F,
) -> Result<(), ServeError> {
    let recorder = recorder::install();
    let mut background = JoinSet::new();
    background.spawn(recorder::upkeep(recorder.clone()));
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::open(&options.data.join("bus"), config.bus.clone())?);
    let store = Store::open(&database(&options.data)).await?;
    let table = TokenTable::new(options.auth);
    let minted = if options.auth == AuthMode::On { tokens::first_admin(&store).await? } else { None };
    table.replace(Some(tokens::load(&store).await?));

    let runbooks = Arc::new(Library::load(&config.knowledge)?);
    let budget = InflateBudget::new(config.edge.inflate_budget_bytes, config.edge.max_inflated_bytes);
    let (news_in, news_out) = mpsc::channel(1024);
    let detection = detect(&options, &config, &bus, &store, &budget, news_in).await?;
    let Detection { tenants, queue, next, letters, kept, thread: detecting } = detection;
    let start = |tables| events::start(tables, &config.pipeline(), &bus, &budget, &letters, &mut background);
    let recording = kept.tables().map(start);
    let query = |tables: &Tables| Queries::new(Arc::clone(&tables.lake), config.lake.query.clone());
    let queries = kept.tables().map(query).transpose()?.map(Arc::new);
    conclude(&kept, &store, &tenants, &config, &mut background);

    let executor = ExecutorClient::new(options.executor.then(|| socket_path(&options.data)));
    let responder =
        Responder { config: config.clone(), store: store.clone(), tenants: Arc::clone(&tenants), executor, runbooks };
    let intake = intake(&config.pipeline(), Arc::clone(&bus), Arc::clone(&tenants), queue, budget.clone());
    background.spawn(tokens::refresh(store.clone(), table.clone()));
    background.spawn(respond::run(responder.clone(), news_out));
    background.spawn(heartbeat::run(config.heartbeat.clone(), intake.clone(), Arc::clone(&tenants)));
    background.spawn(housekeeping(store.clone(), Arc::clone(&bus), Arc::clone(&next), kept.clone(), config.clone()));

    let (otlp, executor_up) = (Arc::new(OnceLock::new()), Arc::new(AtomicBool::new(false)));
    if responder.executor.configured() {
        background.spawn(watch_executor(responder.executor.clone(), Arc::clone(&executor_up)));
    }
    let (executor, otlp_grpc) = (responder.executor.clone(), Arc::clone(&otlp));
    let (data, away) = (options.data.clone(), kept.clone());
    let readiness = Readiness { data, bus, next, executor, executor_up, isolation, letters, kept, queries, otlp_grpc };
    let backend =
        backend(options.auth == AuthMode::On, Arc::new(responder), budget, recorder, readiness, intake.clone());
    let routes = wardroom_sources::routes(&intake).merge(wardroom_api::routes(&backend));
    debug_assert_eq!(mounted(&routes), wardroom_api::described(), "every route is described, and nothing else");
    let (refused_in, refused_out) = mpsc::channel(256);
    background.spawn(audit_refusals(store.clone(), refused_out));
    let port = Port {
        tokens: table,
        refused: Arc::new(move |refused| {
            // A flood of refusals is counted by the metric; the book takes what it can.
            let _full = refused_in.try_send(refused);
        }),
        now: Arc::new(clock::now),
    };
    let (listeners, address, otlp_grpc) = listen(options.listen, &config.edge.otlp_grpc).await?;
    otlp.get_or_init(|| otlp_grpc);
    announce(format!("listening http://{address}"));
    tell_first_token(minted, admin_file, address, &mut announce)?;
    tracing::info!(%address, isolation = isolation.as_str(), "serving");
    // A stopping server does not wait for ever on a connection that somebody keeps open.
    let (stopping, stopped) = oneshot::channel::<()>();
    let (stop, again, (leave, left)) = (stop(), AtomicBool::new(false), oneshot::channel());
    // The port stays here too: whoever hears of refusals takes it for the end if nobody can tell of them any more.
    let ports = ports::serve(port.clone(), listeners, routes, async move {
        tokio::select! {
            () = stop => {}
            Ok(()) = left => {}
        }
        // Nobody waits for it any more if serving failed meanwhile.
        let _gone = stopping.send(());
    });
    let (serving, ports) = ports.map_err(|error| io("start the ports".into(), error))?;
    let back = async {
        tables::back(&away, &config.lake, &options.data).await;
        again.store(true, Ordering::Release);
        leave.send(()).unwrap_or_default(); // Nobody waits for it any more if serving ended meanwhile.
        std::future::pending().await
    };
    let until_ended = until_ended(serving, stopped, &mut background);
    let ended = tokio::select! { ended = until_ended => ended, ended = back => ended };
    drop(recording);
    ended_cleanly(ports, "serving").await;
    background.shutdown().await;
    // With the response gone nobody listens to detection, and it ends; then the bus writes out what it holds.
    ended_cleanly(detecting, "detection").await;
    store.close().await;
    tracing::info!("stopped");
    ended.and(if again.load(Ordering::Acquire) { Err(ServeError::Again) } else { Ok(()) })
}

/// Waits for a thread that is about to end.
async fn ended_cleanly(thread: JoinHandle<()>, what: &str) {
    let ended = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(ended, Ok(Ok(()))) {
        tracing::error!("{what} did not end cleanly");
    }
}

/// Has the tables of gold written, if the tables are open.
fn conclude(kept: &Kept, store: &Store, tenants: &Arc<Tenants>, config: &Config, background: &mut JoinSet<()>) {
    let Some(Tables { lake, .. }) = kept.tables() else { return };
    let concluder = gold::Concluder { lake: Arc::clone(lake), store: store.clone(), tenants: Arc::clone(tenants) };
    background.spawn(concluder.run(Duration::from_secs(config.lake.gold_seconds.max(1))));
}

/// The listeners, the address of the first of them, and where OTLP over gRPC is taken.
async fn listen(on: SocketAddr, otlp_grpc: &str) -> Result<(Vec<TcpListener>, SocketAddr, String), ServeError> {
    let listener = TcpListener::bind(on).await.map_err(|error| io(format!("listen on {on}"), error))?;
    let address = listener.local_addr().map_err(|error| io("listen".into(), error))?;
    let mut listeners = vec![listener];
    let otlp_grpc = listen_otlp_grpc(otlp_grpc, on, &mut listeners).await;
    let otlp_grpc = otlp_grpc.map_err(|error| io("listen (edge.otlp-grpc)".into(), error))?;
    Ok((listeners, address, otlp_grpc))
}

/// Waits until serving ends, or something without which it cannot go on.
async fn until_ended(
    serving: impl Future<Output = std::io::Result<()>>,
    stopped: oneshot::Receiver<()>,
    background: &mut JoinSet<()>,
) -> Result<(), ServeError> {
    let drained = async {
        let _closed = stopped.await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    };
    tokio::select! {
        served = serving => served.map_err(|error| io("serve".into(), error)),
        () = drained => {
            tracing::warn!("connections still open after 10 s; closing them");
            Ok(())
        }
        Some(ended) = background.join_next() => {
            let why = ended.err().map_or_else(|| "its input is gone".to_owned(), |panic| panic.to_string());
            Err(ServeError::Ended(why))
        }
    }
}

/// Detection at work.
struct Detection {
    tenants: Arc<Tenants>,
    queue: Arc<Queue>,
    next: Arc<AtomicU64>,
    letters: Arc<DeadLetters>,
    kept: Kept,
    thread: JoinHandle<()>,
}

/// Goes on where the last checkpoint ended.
async fn detect(
    options: &ServeOptions,
    config: &Config,
    bus: &Arc<dyn Bus>,
    store: &Store,
    budget: &InflateBudget,
    news: mpsc::Sender<News>,
) -> Result<Detection, ServeError> {
    let mut settings = config.pipeline();
    let tenants = Arc::new(Tenants::new(settings.clone()));
    let letters = Arc::new(DeadLetters::open(&options.data.join("dead-letters"))?);
    let unusable = |error: checkpoint::Error| io("open checkpoints".into(), std::io::Error::other(error));
    let folder = options.data.join("checkpoint");
    let kept = tables::open(config, &options.data, bus.as_ref()).await?;
    let reached = match &kept {
        Kept::Off => None,
        Kept::Open(tables) => tables.reached,
        // Nobody knows, so the checkpoint is believed; and none is taken, for it would have to say it of itself.
        Kept::Away(_) => {
            settings.checkpoint.interval_seconds = u64::MAX;
            Some(u64::MAX)
        }
    };
    let opened = Checkpoints::open(&folder, &settings, bus.start()..=bus.end(), &tenants, reached);
    let (checkpoints, resumed) = opened.map_err(unusable)?;
    if let Some(Tables { lake, .. }) = kept.tables() {
        keep::learn(lake, &tenants, resumed.and_then(|resumed| resumed.lake)).await?;
    }
    restore(store, &tenants).await?;
    let (queue, next) = (Arc::new(Queue::default()), Arc::new(AtomicU64::new(0)));
    let pump = Pump {
        config: settings,
        bus: Arc::clone(bus),
        tenants: Arc::clone(&tenants),
        queue: Arc::clone(&queue),
        budget: budget.clone(),
        findings: Findings::new(news),
        next: Arc::clone(&next),
        buried: poison::buried(&letters)?,
        letters: Arc::clone(&letters),
        runtime: tokio::runtime::Handle::current(),
        checkpoints,
        resumed,
        lake: kept.tables().cloned(),
    };
    let thread = std::thread::Builder::new().name("detect".into()).spawn(move || pump.run());
    let thread = thread.map_err(|error| io("start detection".into(), error))?;
    Ok(Detection { tenants, queue, next, letters, kept, thread })
}

/// Method, path and access of every route, sorted.
fn mounted(routes: &Routes) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut all: Vec<_> = routes.list().iter().map(|route| (route.method, route.path, route.access.as_str())).collect();
    all.sort_unstable();
    all
}

/// Takes the incidents back in that may still get company.
async fn restore(store: &Store, tenants: &Tenants) -> Result<(), ServeError> {
    let since = clock::now().minus(Duration::from_secs(24 * 3600));
    for row in store.live_incidents(since).await? {
        let workflow = match Workflow::read(&row.workflow) {
            Ok(workflow) => workflow,
            Err(error) => {
                tracing::error!(incident = %row.id(), %error, "incident left as it is");
                continue;
            }
        };
        let settled = matches!(row.state, IncidentState::Resolved | IncidentState::Suppressed | IncidentState::Closed);
        let mut released_ms = workflow.settled_ms;
        if released_ms.is_none() && settled {
            // One that was closed without having been settled; a verdict may have come long after.
            let history = store.history(&row.tenant, &row.key).await?;
            released_ms = Some(history.last().map_or(row.updated_at, |moved| moved.at).millis());
        }
        tenants.with(&row.tenant, |state| {
            state.correlator.restore(&row.key, &workflow.incident.services, workflow.opened_ms, released_ms);
        });
    }
    Ok(())
}

async fn watch_executor(executor: ExecutorClient, up: Arc<AtomicBool>) {
    loop {
        let answered = executor.ask(&wardroom_domain::executor::Request::Ping).await.is_ok();
        up.store(answered, Ordering::Release);
        metrics::gauge!(names::EXECUTOR_UP).set(if answered { 1.0 } else { 0.0 });
        tokio::time::sleep(Duration::from_millis(if answered { 1000 } else { 100 })).await;
    }
}

async fn audit_refusals(store: Store, mut refused: mpsc::Receiver<Refused>) {
    while let Some(refused) = refused.recv().await {
        let identity = refused.identity;
        let tenant = identity.as_ref().map_or_else(wardroom_domain::TenantId::main, |identity| identity.tenant.clone());
        let decision = json!({ "path": refused.path, "code": refused.code });
        let mut audit: AuditEntry = entry(&tenant, "edge", None, "request_refused", decision, clock::now());
        audit.principal = identity.map_or_else(wardroom_domain::Principal::anonymous, |identity| identity.principal);
        if let Err(error) = store.audit(&audit).await {
            tracing::error!(%error, "refusal could not be audited");
        }
        // At most twenty a second: whoever floods must not fill the book.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn housekeeping(store: Store, bus: Arc<dyn Bus>, next: Arc<AtomicU64>, kept: Kept, config: Config) {
    let every = Duration::from_secs(config.lake.maintain_seconds.max(1));
    let held = !matches!(kept, Kept::Off);
    tokio::join!(keep::maintain(kept.tables().cloned(), every), trim(store, bus, next, held, config.bus));
}

async fn trim(store: Store, bus: Arc<dyn Bus>, next: Arc<AtomicU64>, kept: bool, config: wardroom_bus::Config) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let before = |hours: u64| clock::now().minus(Duration::from_secs(hours * 3600));
        let (log, rest) = (before(config.retention_hours), before(config.rest_hours.max(config.retention_hours)));
        if let Err(error) = store.forget_anomalies(log).await {
            tracing::error!(%error, "old anomalies could not be removed");
        }
        // No further than the checkpoint from which a restart would go on, nor than what the tables have (decision D7).
        let trimmed = bus.committed(poison::GROUP).and_then(|needed| {
            let tables = |group| if kept { Ok(bus.committed(group)?.unwrap_or_default()) } else { Ok(u64::MAX) };
            let needed = needed.unwrap_or_default().min(tables(keep::GROUP)?).min(tables(events::GROUP)?);
            let needed = needed.min(next.load(Ordering::Acquire));
            let worth = |envelope: &Envelope| envelope.events;
            bus.trim(needed, &Expiry { log, rest, worth: &worth })
        });
        if let Err(error) = trimmed {
            tracing::error!(%error, "old bus segments could not be removed");
        }
    }
}

fn tell_first_token(
    minted: Option<String>,
    file: Option<std::fs::File>,
    address: SocketAddr,
    announce: &mut impl FnMut(String),
) -> Result<(), ServeError> {
    let Some(minted) = minted else { return Ok(()) };
    if let Some(mut file) = file {
        use std::io::Write;
        writeln!(file, "{minted}").map_err(|error| io("write --admin-token-file".into(), error))?;
        return file.sync_all().map_err(|error| io("write --admin-token-file".into(), error));
    }
    announce(format!("admin token (shown once): {minted}"));
    announce(format!(
        "a sender for Prometheus, after `wardroom token create --data … --principal prometheus --role sender`:\n\
         remote_write:\n  - url: http://{address}/api/v1/write\n    authorization:\n      credentials_file: /path/to/token"
    ));
    Ok(())
}

/// A file only its owner can read; created now, filled later. One that holds something is left alone.
fn open_secret(path: &Path) -> Result<std::fs::File, ServeError> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| io(format!("open {}", path.display()), error))
}

fn io(what: String, error: std::io::Error) -> ServeError {
    ServeError::Io { what, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_off_is_for_loopback_only() {
        let options = ServeOptions {
            data: PathBuf::from("/nonexistent"),
            listen: "0.0.0.0:0".parse().unwrap(),
            auth: AuthMode::Off,
            admin_token_file: None,
            executor: false,
        };
        let refused = serve(options, Config::default(), |_| {}, std::future::pending);
        assert!(matches!(refused, Err(ServeError::Exposed(_))));
    }
}
