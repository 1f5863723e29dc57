//! Starts the server's roles, serves until it is stopped, and shuts down.

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use wardroom_access::{AccessService, new_service};
use wardroom_api::metrics_recorder;
use wardroom_bus::{Bus, EmbeddedBus};
use wardroom_domain::executor::Confinement;
use wardroom_edge::{AuthMode, Certificates, InflateBudget, Port, Routes, TokenTable, bind_listeners};
use wardroom_executor::{ExecutorClient, socket_path};
use wardroom_knowledge::Library;
use wardroom_pipeline::intake::source_intake::source_intake;
use wardroom_pipeline::lake::event_writer::{EventWriterHandle, spawn_event_writer};
use wardroom_pipeline::lake::lake_state::{LakeState, LakeTables};
use wardroom_pipeline::state::tenants::Tenants;
use wardroom_process::descriptors::raise_descriptor_limit;
use wardroom_process::sandbox::WRITABLE_FOLDERS;
use wardroom_store::Store;

use super::api_backend::{ApiState, api_backend};
use super::audit_configuration::audit_configuration;
use super::audit_rejections::audit_rejections;
use super::audit_signer::{AuditSigner, SigningStatus};
use super::detection_startup::{Detection, start_detection};
use super::first_token::{deliver_first_token, open_secret_file};
use super::housekeeping::{run_housekeeping, watch_executor, watch_store};
use super::lake_access::wait_until_available;
use super::port_thread::spawn_port_thread;
use super::query_workers::start_query_pool;
use super::readiness::{ExecutorHealth, Readiness};
use super::series_reads::SeriesReads;
use super::serve_error::{ServeError, io_error};
use super::serve_options::ServeOptions;
use super::server_sandbox::server_sandbox;
use crate::bus_epoch::note_bus_end;
use crate::config::{Config, read_policy};
use crate::gold_writer::GoldWriter;
use crate::state_database::{RequiredState, folder_id, open_configured_state};
use crate::{clock, heartbeat, tokens};
use wardroom_response::{ReplayProgress, Responder, StreamControl, run_effect_workers, run_responder};

/// Capacity of the channel from detection to the response, in events.
const DETECTOR_EVENTS_CAPACITY: usize = 1024;
/// Capacity of the channel of rejected requests; rejections beyond it are counted but not audited.
const REJECTIONS_CAPACITY: usize = 256;
/// Maximum wait for open connections at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum wait for tasks of the runtime at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Sandboxes the process, then serves until `stop` resolves; drains and flushes before it returns.
/// `announce` receives the lines for stdout, the address first.
///
/// # Errors
/// See [`ServeError`].
pub fn serve<F: Future<Output = ()> + Send + 'static>(
    options: ServeOptions,
    mut config: Config,
    announce: impl FnMut(String),
    stop: impl FnOnce() -> F,
) -> Result<(), ServeError> {
    if options.auth == AuthMode::Off {
        let otlp_grpc = config.edge.otlp_grpc.parse::<SocketAddr>().ok();
        let mut addresses = [Some(options.listen), otlp_grpc].into_iter().flatten();
        if let Some(address) = addresses.find(|address| !address.ip().is_loopback()) {
            return Err(ServeError::Exposed(address));
        }
    }
    let lake = if config.lake.enabled { config.lake.folder(&options.data)? } else { None };
    for dir in WRITABLE_FOLDERS.map(|folder| options.data.join(folder)).into_iter().chain(lake) {
        std::fs::create_dir_all(&dir).map_err(|error| io_error(format!("create {}", dir.display()), error))?;
    }
    // Opened before the sandbox is set up, so that the sandbox need not include its folder.
    let admin_file = options.admin_token_file.as_deref().map(open_secret_file).transpose()?;
    let confinement = server_sandbox(&options.data, &config)?.enter();
    // The other half is for files.
    config.edge.max_connections = config.edge.max_connections.min(raise_descriptor_limit() / 2);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("role")
        .enable_all()
        .build()
        .map_err(|error| io_error("start threads", error))?;
    let outcome = runtime.block_on(run(options, config, confinement, admin_file, announce, stop));
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    outcome
}

async fn run<F: Future<Output = ()> + Send + 'static>(
    options: ServeOptions,
    config: Config,
    confinement: Confinement,
    admin_file: Option<File>,
    mut announce: impl FnMut(String),
    stop: impl FnOnce() -> F,
) -> Result<(), ServeError> {
    // First: a port that is in use ends the start before anything else has begun. Connections wait until the roles run.
    let bound = bind_listeners(options.listen, &config.edge).await?;
    let url = bound.url();
    let mut background = JoinSet::new();
    let (stopping_sender, stopping) = watch::channel(false);
    let listening = (bound.otlp_grpc, bound.certificates.clone());
    let roles = start_roles(&options, &config, confinement, (listening, stopping), &mut background).await?;
    let Roles { store, lake, event_writer, detection_thread, first_token, port, routes } = roles;
    let signer = ExecutorClient::new(options.executor.then(|| socket_path(&options.data)));
    background.spawn(bound.certificates.watch(clock::now));
    // Before a caller knows that the server runs, and may stop it.
    let stop = stop();
    announce(format!("listening {url}"));
    deliver_first_token(first_token, admin_file, &url, &mut announce)?;
    tracing::info!(url, "serving");
    let (drain_sender, drain_started) = oneshot::channel::<()>();
    let (restart, (stop_sender, stop_receiver)) = (AtomicBool::new(false), oneshot::channel());
    // A clone of the port stays here: it holds the sender of rejections, whose audit task would end otherwise.
    let spawned = spawn_port_thread(port.clone(), bound.listeners, routes, async move {
        tokio::select! {
            () = stop => {}
            Ok(()) = stop_receiver => {}
        }
        // Open streams end, so that the drain does not wait for them.
        stopping_sender.send_replace(true);
        // The receiver is dropped if serving failed meanwhile.
        let _result = drain_sender.send(());
    });
    let (port_finished, port_thread) = spawned.map_err(|error| io_error("start the port thread", error))?;
    let restart_for_lake = async {
        wait_until_available(&lake, &config.lake, &options.data).await;
        restart.store(true, Ordering::Release);
        stop_sender.send(()).unwrap_or_default(); // The receiver is dropped if serving ended meanwhile.
        std::future::pending().await
    };
    let until_ended = wait_until_ended(port_finished, drain_started, &mut background);
    let ended = tokio::select! { ended = until_ended => ended, ended = restart_for_lake => ended };
    drop(event_writer);
    join_thread(port_thread, "ports").await;
    background.shutdown().await;
    // With the response stopped, the receiver of detector events is dropped and detection ends.
    join_thread(detection_thread, "detect").await;
    AuditSigner::finish(store.clone(), signer).await;
    store.close().await;
    tracing::info!("stopped");
    ended.and(if restart.load(Ordering::Acquire) { Err(ServeError::LakeAvailable) } else { Ok(()) })
}

/// The started roles, as far as serving and shutdown need them.
struct Roles {
    store: Store,
    lake: LakeState,
    event_writer: Option<EventWriterHandle>,
    /// Thread of detection.
    detection_thread: JoinHandle<()>,
    /// The first administrator's token, if it was created at this start.
    first_token: Option<String>,
    port: Port,
    routes: Routes,
}

/// Starts all roles; their tasks are spawned on `background`.
async fn start_roles(
    options: &ServeOptions,
    config: &Config,
    confinement: Confinement,
    ((otlp_grpc, certificates), stopping): ((String, Certificates), watch::Receiver<bool>),
    background: &mut JoinSet<()>,
) -> Result<Roles, ServeError> {
    let recorder = metrics_recorder::install();
    background.spawn(metrics_recorder::run_upkeep(recorder.clone()));
    let required = if options.auth == AuthMode::On { RequiredState::Tokens } else { RequiredState::Tables };
    let store = open_configured_state(&options.data, &config.store, required).await?;
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::open(&options.data.join("bus"), config.bus.clone())?);
    let token_table = TokenTable::new(options.auth);
    let first_token = if options.auth == AuthMode::On { tokens::first_admin(&store).await? } else { None };
    token_table.replace(Some(tokens::load(&store).await?));
    audit_configuration(&store, options, config).await?;
    store.checkpoint().await?;

    let budget = InflateBudget::new(config.edge.inflate_budget_bytes, config.edge.max_inflated_bytes);
    let (event_sender, event_receiver) = mpsc::channel(DETECTOR_EVENTS_CAPACITY);
    let detection = start_detection(options, config, &bus, &store, &budget, event_sender).await?;
    let Detection { tenants, queue, next, dead_letters, lake, thread: detection_thread } = detection;
    let spawn_events =
        |tables| spawn_event_writer(tables, &config.pipeline(), &bus, &budget, &dead_letters, background);
    let event_writer = lake.tables().map(spawn_events);
    let query_pool = |tables: &LakeTables| start_query_pool(tables, &config.lake.query, options.query_workers);
    let queries = lake.tables().map(query_pool).transpose()?.map(Arc::new);
    spawn_gold_writer(&lake, &store, &tenants, config, background);

    let (executor, executor_health, signing) = spawn_executor_tasks(options, &store, background);
    let responder = new_responder(options, config, (&store, &tenants, executor))?;
    let config = &responder.config;
    let intake = source_intake(&config.pipeline(), Arc::clone(&bus), Arc::clone(&tenants), queue, budget.clone());
    background.spawn(tokens::refresh(store.clone(), token_table.clone()));
    background.spawn(watch_store(store.clone()));
    let (access, port) = guarded_port(config, token_table, (&store, &responder.executor), background);
    let replay = ReplayProgress { next: Arc::clone(&next), end: bus.end_offset() };
    background.spawn(run_effect_workers(responder.clone(), replay.clone()));
    background.spawn(run_responder(responder.clone(), event_receiver, replay));
    background.spawn(heartbeat::run_heartbeat(config.heartbeat.clone(), intake.clone(), tenants));
    background.spawn(note_bus_end(options.data.clone(), Arc::clone(&bus)));
    background.spawn(run_housekeeping(
        store.clone(),
        Arc::clone(&bus),
        Arc::clone(&next),
        lake.clone(),
        config.clone(),
    ));

    let readiness = Readiness {
        data: options.data.clone(),
        bus,
        store: store.clone(),
        next,
        executor: responder.executor.clone(),
        executor_health,
        signing,
        confinement,
        lake: lake.clone(),
        queries,
        otlp_grpc,
        certificates,
    };
    let backend = api_backend(ApiState {
        authenticated: options.auth == AuthMode::On,
        access,
        responder: Arc::new(responder),
        budget,
        recorder,
        readiness: Arc::new(readiness),
        dead_letters,
        intake: intake.clone(),
        reads: Arc::new(SeriesReads::new()?),
        stream: StreamControl {
            is_valid: {
                let port = port.clone();
                Arc::new(move |headers| port.is_valid(headers))
            },
            stopping,
        },
    });
    let routes = wardroom_sources::routes(&intake).merge(wardroom_api::routes(&backend));
    wardroom_api::check_routes(&routes);
    Ok(Roles { store, lake, event_writer, detection_thread, first_token, port, routes })
}

/// Starts what watches the executor and has it sign the audit log, if one is configured.
fn spawn_executor_tasks(
    options: &ServeOptions,
    store: &Store,
    background: &mut JoinSet<()>,
) -> (ExecutorClient, Arc<ExecutorHealth>, Arc<SigningStatus>) {
    let executor = ExecutorClient::new(options.executor.then(|| socket_path(&options.data)));
    let (health, signing) = (Arc::<ExecutorHealth>::default(), Arc::<SigningStatus>::default());
    if executor.configured() {
        background.spawn(AuditSigner::new(store.clone(), executor.clone(), Arc::clone(&signing)).run());
        background.spawn(watch_executor(executor.clone(), store.clone(), Arc::clone(&health)));
    }
    (executor, health, signing)
}

/// Builds the response role.
fn new_responder(
    options: &ServeOptions,
    config: &Config,
    (store, tenants, executor): (&Store, &Arc<Tenants>, ExecutorClient),
) -> Result<Responder, ServeError> {
    let (queue, started_at) = (folder_id(&options.data)?, clock::now());
    Ok(Responder {
        config: config.clone(),
        store: store.clone(),
        tenants: Arc::clone(tenants),
        executor,
        runbooks: Arc::new(Library::load(&config.knowledge)?),
        policy: Arc::new(read_policy(&config.policy).map_err(ServeError::Policy)?),
        started_at,
        worker: format!("{queue}:{}", started_at.nanos()),
        queue,
    })
}

/// Starts what tells who may enter, and builds the port; rejected requests are audited.
fn guarded_port(
    config: &Config,
    tokens: TokenTable,
    (store, executor): (&Store, &ExecutorClient),
    background: &mut JoinSet<()>,
) -> (AccessService, Port) {
    let (access, key_requests) = new_service(&config.identity, store, &tokens, executor);
    background.spawn(wardroom_access::run(access.clone(), key_requests));
    let (rejection_sender, rejection_receiver) = mpsc::channel(REJECTIONS_CAPACITY);
    background.spawn(audit_rejections(store.clone(), rejection_receiver));
    let port = Port {
        config: Arc::new(config.edge.clone()),
        tokens,
        callers: access.callers(),
        on_rejection: Arc::new(move |rejected| {
            // Rejections beyond the capacity are counted by the metric only.
            let _result = rejection_sender.try_send(rejected);
        }),
        now: Arc::new(clock::now),
    };
    (access, port)
}

/// Joins a thread that is about to end.
async fn join_thread(thread: JoinHandle<()>, name: &str) {
    let ended = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(ended, Ok(Ok(()))) {
        tracing::error!(thread = name, "thread panicked before shutdown");
    }
}

/// Spawns the gold writer if the tables are open.
fn spawn_gold_writer(
    lake: &LakeState,
    store: &Store,
    tenants: &Arc<Tenants>,
    config: &Config,
    background: &mut JoinSet<()>,
) {
    let Some(tables) = lake.tables() else { return };
    let writer = GoldWriter { tables: tables.clone(), store: store.clone(), tenants: Arc::clone(tenants) };
    background.spawn(writer.run(Duration::from_secs(config.lake.gold_seconds.max(1))));
}

/// Waits until serving ends, the drain times out, or a background role ends.
async fn wait_until_ended(
    port_finished: impl Future<Output = std::io::Result<()>>,
    drain_started: oneshot::Receiver<()>,
    background: &mut JoinSet<()>,
) -> Result<(), ServeError> {
    let drain_timeout = async {
        let _result = drain_started.await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        served = port_finished => served.map_err(|error| io_error("serve", error)),
        () = drain_timeout => {
            tracing::warn!(timeout = ?DRAIN_TIMEOUT, "draining connections timed out; closing them");
            Ok(())
        }
        Some(ended) = background.join_next() => {
            let reason = ended.err().map_or_else(|| "its input channel was closed".to_owned(), |panic| panic.to_string());
            Err(ServeError::RoleEnded(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_off_is_refused_beyond_loopback() {
        let options = ServeOptions {
            data: "/nonexistent".into(),
            listen: "0.0.0.0:0".parse().unwrap(),
            auth: AuthMode::Off,
            admin_token_file: None,
            executor: false,
            query_workers: false,
        };
        let refused = serve(options, Config::default(), |_| {}, std::future::pending);
        assert!(matches!(refused, Err(ServeError::Exposed(_))));
    }
}
