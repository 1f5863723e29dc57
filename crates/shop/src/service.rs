//! One service: a process that serves and calls HTTP, and exports metrics, logs and spans.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntGauge, Opts, Registry};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Semaphore;

use crate::faults::Behaviour;
use crate::ledger::{self, LedgerClient};
use crate::names::{Names, Role};
use crate::otlp::{FinishedSpan, SpanKind, Spans, TraceContext};
use crate::telemetry::{Log, Outboxes, Targets, now_ms};

/// Memory that a service may use.
const MEMORY_LIMIT_BYTES: f64 = 160.0 * 1024.0 * 1024.0;
/// File descriptors that a process may have open.
const MAX_DESCRIPTORS: u64 = 512;
/// File descriptors that a request needs while it is served.
const DESCRIPTORS_PER_REQUEST: usize = 16;
const MAX_QUEUED_MESSAGES: usize = 60;
/// Messages that a consumer takes at once.
const MAX_TAKEN_MESSAGES: usize = 5;
/// Default size of the connection pool.
const DEFAULT_POOL_CONNECTIONS: usize = 20;
const DEFAULT_TIMEOUT_MS: u64 = 2000;
const DEFAULT_MAX_REQUESTS_PER_S: u64 = 1000;
/// Time that a call waits for a free connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_millis(600);
/// Retries of a call while its peer is being replaced, and the interval between them.
const MAX_CALL_RETRIES: usize = 14;
const CALL_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Upper bounds of the histograms, in seconds.
const BUCKETS: [f64; 19] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0];

/// A service's specification, the first line of its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceSpec {
    pub(crate) role: Role,
    pub(crate) version: String,
    pub(crate) names: Names,
    pub(crate) ports: HashMap<Role, u16>,
    pub(crate) release: PathBuf,
    pub(crate) settings: PathBuf,
    pub(crate) targets: Targets,
    pub(crate) interval_ms: u64,
}

/// A command to a running service, one line of its standard input each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServiceCommand {
    /// Read the settings again.
    Reload,
    /// Replace the behaviour injected at run time.
    SetBehaviour(Behaviour),
}

/// A service's settings by key; `--names-seed` renames the keys.
pub(crate) type Settings = std::collections::BTreeMap<String, u64>;

struct Service {
    spec: ServiceSpec,
    client: reqwest::Client,
    connections: Arc<Semaphore>,
    pool_size: usize,
    pool_used: prometheus::Gauge,
    behaviour: RwLock<Behaviour>,
    /// Behaviour of the release.
    built_in: Behaviour,
    settings: RwLock<Settings>,
    leaked_blocks: Mutex<Vec<Vec<u8>>>,
    leaked_bytes: AtomicI64,
    leaked_files: Mutex<Vec<std::fs::File>>,
    ledger: Option<LedgerClient>,
    /// Held while a CPU hog computes; requests wait for it.
    cpu: tokio::sync::Mutex<()>,
    /// Token bucket of the rate limit: when it was filled last, and its tokens.
    rate: Mutex<(Instant, f64)>,
    queue: Mutex<VecDeque<String>>,
    depth: IntGauge,
    stopping: AtomicBool,
    request_duration: HistogramVec,
    client_duration: HistogramVec,
    process_duration: HistogramVec,
    log: Log,
    /// Only with `--otlp`.
    spans: Option<Spans>,
}

/// Runs one service until SIGTERM, or until its standard input is closed.
///
/// # Errors
/// Returns an error if the specification cannot be read or the port is in use.
pub(crate) async fn run() -> anyhow::Result<()> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let first = input.next_line().await?.ok_or_else(|| anyhow::anyhow!("`shop service` is started by `shop run`"))?;
    let spec: ServiceSpec = serde_json::from_str(&first)?;
    let registry = Registry::new();
    let service = Arc::new(Service::new(spec, &registry)?);
    service.reload(false);
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, MAX_DESCRIPTORS, MAX_DESCRIPTORS)?;
    let listener = listen(service.spec.ports[&service.spec.role])?;
    if service.spec.role == Role::Ledger {
        return ledger::serve(listener).await;
    }

    let command_target = Arc::clone(&service);
    tokio::spawn(async move {
        while let Ok(Some(line)) = input.next_line().await {
            match serde_json::from_str(&line) {
                Ok(ServiceCommand::Reload) => command_target.reload(true),
                Ok(ServiceCommand::SetBehaviour(behaviour)) => {
                    *command_target.behaviour.write().unwrap_or_else(PoisonError::into_inner) =
                        behaviour.union(command_target.built_in);
                }
                Err(error) => command_target.log.write("ERROR", format!("invalid command: {error}"), ""),
            }
        }
        // The supervisor has ended.
        std::process::exit(0);
    });
    service.log.write("INFO", format!("{} {} started", service.name(), service.spec.version), "");
    let export_task = tokio::spawn(export_telemetry(Arc::clone(&service), registry));
    std::thread::spawn({
        let service = Arc::clone(&service);
        move || run_background_faults(&service)
    });
    if service.spec.role == Role::Fulfilment {
        for _ in 0..2 {
            tokio::spawn(consume(Arc::clone(&service)));
        }
    }
    let app = Router::new()
        .route("/", get(serve))
        .route("/enqueue", post(enqueue))
        .route("/take", post(take))
        .with_state(Arc::clone(&service));
    let stop_target = Arc::clone(&service);
    let stop = async move {
        let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(terminate) => terminate,
            Err(_) => return std::future::pending().await,
        };
        terminate.recv().await;
        stop_target.stopping.store(true, Ordering::Release);
    };
    let server = axum::serve(listener, app).with_graceful_shutdown(stop);
    server.await?;
    export_task.abort();
    Ok(())
}

/// Binds the port with SO_REUSEPORT, so that a new process is ready before its predecessor ends.
fn listen(port: u16) -> anyhow::Result<tokio::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(1024)?;
    Ok(tokio::net::TcpListener::from_std(socket.into())?)
}

impl Service {
    fn new(spec: ServiceSpec, registry: &Registry) -> anyhow::Result<Self> {
        let name = spec.names.name_of(spec.role).to_owned();
        let metric = |suffix: &str| format!("{}_{suffix}", spec.names.prefix);
        let buckets = |suffix: &str, help: &str, labels: &[&str]| -> anyhow::Result<HistogramVec> {
            let opts = HistogramOpts::new(metric(suffix), help).const_label("service", &name).buckets(BUCKETS.to_vec());
            let histogram = HistogramVec::new(opts, labels)?;
            Ok(histogram)
        };
        let request_duration = buckets("request_duration_seconds", "Requests served", &["code"])?;
        let client_duration = buckets("client_duration_seconds", "Requests made", &["peer_service", "code"])?;
        let process_duration = buckets("process_duration_seconds", "Messages handled", &["code"])?;
        let gauge = |suffix: &str, help: &str| Opts::new(metric(suffix), help).const_label("service", &name);
        let pool = GaugeVec::new(gauge("pool_connections", "Connections of the pool"), &["state"])?;
        let depth = IntGauge::with_opts(gauge("queue_depth", "Messages waiting"))?;
        let info = GaugeVec::new(gauge("build_info", "Version that runs"), &["version"])?;
        info.with_label_values(&[spec.version.as_str()]).set(1.0);
        registry.register(Box::new(request_duration.clone()))?;
        if !spec.role.calls().is_empty() {
            registry.register(Box::new(client_duration.clone()))?;
            registry.register(Box::new(pool.clone()))?;
        }
        if spec.role == Role::Fulfilment {
            registry.register(Box::new(process_duration.clone()))?;
        }
        if spec.role == Role::Queue {
            registry.register(Box::new(depth.clone()))?;
        }
        registry.register(Box::new(info))?;
        let built_in: Behaviour = std::fs::read_to_string(spec.release.join("behaviour.json"))
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let settings = read_settings(&spec);
        let pool_size = settings.get(&spec.names.pool_key).map_or(DEFAULT_POOL_CONNECTIONS, |size| *size as usize);
        pool.with_label_values(&["max"]).set(pool_size as f64);
        Ok(Self {
            client: reqwest::Client::builder().pool_max_idle_per_host(64).build()?,
            connections: Arc::new(Semaphore::new(pool_size)),
            pool_size,
            pool_used: pool.with_label_values(&["used"]),
            behaviour: RwLock::new(built_in),
            built_in,
            settings: RwLock::new(settings),
            leaked_blocks: Mutex::default(),
            leaked_bytes: AtomicI64::new(0),
            leaked_files: Mutex::default(),
            ledger: ledger_client(&spec, &name, registry)?,
            cpu: tokio::sync::Mutex::new(()),
            rate: Mutex::new((Instant::now(), 50.0)),
            queue: Mutex::default(),
            depth,
            stopping: AtomicBool::new(false),
            request_duration,
            client_duration,
            process_duration,
            log: Log::new(&name),
            spans: spec.targets.otlp.is_some().then(|| Spans::new(&name)),
            spec,
        })
    }

    fn name(&self) -> &str {
        self.spec.names.name_of(self.spec.role)
    }

    fn behaviour(&self) -> Behaviour {
        *self.behaviour.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn setting(&self, key: &str, default: u64) -> u64 {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or(default)
    }

    /// Reads the settings again; with `log_changes` logs every changed one.
    fn reload(&self, log_changes: bool) {
        let new_settings = read_settings(&self.spec);
        let mut settings = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        for (key, to) in new_settings.iter().filter(|_| log_changes) {
            let from = settings.get(key).copied().unwrap_or_default();
            if from != *to {
                self.log.write("INFO", format!("{} key={key} from={from} to={to}", self.spec.names.reloaded), "");
            }
        }
        *settings = new_settings;
    }

    /// Takes a token from the rate limit's bucket, which holds those of one second; false if it is empty.
    fn take_rate_limit_token(&self) -> bool {
        let max_tokens = self.setting(&self.spec.names.rate_key, DEFAULT_MAX_REQUESTS_PER_S) as f64;
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        rate.1 = (rate.1 + now.duration_since(rate.0).as_secs_f64() * max_tokens).min(max_tokens);
        rate.0 = now;
        let has_token = rate.1 >= 1.0;
        if has_token {
            rate.1 -= 1.0;
        }
        has_token
    }

    /// Simulates the service's work for one request, `typical_ms` without a fault.
    async fn work(&self, typical_ms: f64) {
        let behaviour = self.behaviour();
        let mut ms = typical_ms * rand::rng().random_range(0.7..1.6);
        if behaviour.slow {
            ms += rand::rng().random_range(600.0..1100.0);
        }
        let memory = self.leaked_bytes.load(Ordering::Relaxed) as f64 / MEMORY_LIMIT_BYTES;
        if memory > 0.5 {
            ms += rand::rng().random_range(500.0..900.0) * memory;
        }
        if behaviour.spin_cpu {
            // Wait until the CPU hog pauses.
            drop(self.cpu.lock().await);
        }
        tokio::time::sleep(Duration::from_micros((ms * 1000.0) as u64)).await;
    }

    /// Calls another service through the connection pool.
    async fn call(&self, peer: Role, path: &str, body: String, context: &TraceContext) -> (StatusCode, String) {
        let (started, span, trace) = (Instant::now(), rand::rng().random::<u64>(), context.trace.as_str());
        let deadline = Duration::from_millis(self.setting(&self.spec.names.timeout_key, DEFAULT_TIMEOUT_MS));
        let peer_name = self.spec.names.name_of(peer);
        let outcome = match tokio::time::timeout(CONNECTION_TIMEOUT, self.connections.acquire()).await {
            Ok(Ok(permit)) => {
                let response = tokio::time::timeout(
                    deadline,
                    self.exchange(peer, path, body, &TraceContext { trace: trace.to_owned(), span }),
                )
                .await;
                if self.behaviour().leak_connections && rand::rng().random_bool(0.3) {
                    permit.forget();
                } else {
                    drop(permit);
                }
                response.unwrap_or_else(|_| Err(format!("deadline of {} ms", deadline.as_millis())))
            }
            _ => Err(format!("{} {} ms", self.spec.names.no_connection, CONNECTION_TIMEOUT.as_millis())),
        };
        self.pool_used.set((self.pool_size - self.connections.available_permits().min(self.pool_size)) as f64);
        let (status, text) = match outcome {
            Ok(response) => response,
            Err(reason) => {
                self.log.write(
                    "ERROR",
                    format!("{} peer={peer_name}: {reason}", self.spec.names.upstream_failed),
                    trace,
                );
                (StatusCode::GATEWAY_TIMEOUT, String::new())
            }
        };
        self.client_duration.with_label_values(&[peer_name, status.as_str()]).observe(started.elapsed().as_secs_f64());
        self.record_span(FinishedSpan {
            kind: SpanKind::Client,
            trace,
            span,
            parent: context.span,
            name: format!("{} {path}", if path == "/" { "GET" } else { "POST" }),
            duration: started.elapsed(),
            status: status.as_u16(),
            port: Some(self.spec.ports[&peer]),
        });
        (status, text)
    }

    fn record_span(&self, span: FinishedSpan<'_>) {
        if let Some(spans) = &self.spans {
            spans.record(span, now_ms());
        }
    }

    /// Sends a request and reads the response.
    async fn exchange(
        &self,
        peer: Role,
        path: &str,
        body: String,
        context: &TraceContext,
    ) -> Result<(StatusCode, String), String> {
        let url = format!("http://127.0.0.1:{}{path}", self.spec.ports[&peer]);
        let span = format!("00-{}-{:016x}-01", context.trace, context.span);
        for attempt in 0..=MAX_CALL_RETRIES {
            let request = if path == "/" { self.client.get(&url) } else { self.client.post(&url) };
            match request.header("traceparent", &span).body(body.clone()).send().await {
                Ok(response) => {
                    let status = response.status();
                    return Ok((status, response.text().await.map_err(|error| error.to_string())?));
                }
                // The connection failed before the response: the peer may be in the middle of a restart.
                Err(error) if attempt < MAX_CALL_RETRIES && (error.is_connect() || error.is_request()) => {
                    tokio::time::sleep(CALL_RETRY_INTERVAL).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("unreachable".into())
    }
}

/// Returns the client of the ledger, for the service that keeps its accounts there.
fn ledger_client(spec: &ServiceSpec, name: &str, registry: &Registry) -> anyhow::Result<Option<LedgerClient>> {
    if spec.role != Role::Payments {
        return Ok(None);
    }
    let host = format!("{}.internal", spec.names.name_of(Role::Ledger));
    Ok(Some(LedgerClient::new(name, &host, spec.ports[&Role::Ledger], registry)?))
}

fn read_settings(spec: &ServiceSpec) -> Settings {
    std::fs::read_to_string(&spec.settings).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// The context of a received request (header `traceparent`), and the id of the span that sent it.
fn trace_context(headers: &HeaderMap) -> (TraceContext, u64) {
    let header = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let mut parts = header.into_iter().flat_map(|text| text.split('-')).skip(1);
    let trace = parts.next().filter(|id| id.len() == 32).map(str::to_owned);
    let parent = parts.next().and_then(|id| u64::from_str_radix(id, 16).ok()).unwrap_or_default();
    let trace = trace.unwrap_or_else(|| format!("{:032x}", rand::rng().random::<u128>()));
    (TraceContext { trace, span: rand::rng().random() }, parent)
}

/// Records a served request.
fn record_served(
    service: &Service,
    context: &TraceContext,
    parent: u64,
    path: &str,
    status: StatusCode,
    started: Instant,
) {
    observe(&service.request_duration, status, started);
    service.record_span(FinishedSpan {
        kind: SpanKind::Server,
        trace: &context.trace,
        span: context.span,
        parent,
        name: path.to_owned(),
        duration: started.elapsed(),
        status: status.as_u16(),
        port: None,
    });
}

async fn serve(State(service): State<Arc<Service>>, headers: HeaderMap) -> StatusCode {
    let (context, parent) = trace_context(&headers);
    let started = Instant::now();
    let status = if service.take_rate_limit_token() {
        handle(&service, &context).await
    } else {
        service.log.write("ERROR", service.spec.names.rate_limited.clone(), &context.trace);
        StatusCode::SERVICE_UNAVAILABLE
    };
    record_served(&service, &context, parent, "GET /", status, started);
    if status == StatusCode::OK && rand::rng().random_bool(0.02) {
        let duration_ms = started.elapsed().as_millis();
        service.log.write("INFO", format!("{} in {duration_ms} ms", service.spec.names.served), &context.trace);
    }
    status
}

fn observe(histogram: &HistogramVec, status: StatusCode, started: Instant) {
    let observed: Histogram = histogram.with_label_values(&[status.as_str()]);
    observed.observe(started.elapsed().as_secs_f64());
}

async fn handle(service: &Arc<Service>, context: &TraceContext) -> StatusCode {
    let typical_ms = match service.spec.role {
        Role::Storefront | Role::Cart => 2.0,
        Role::Catalogue | Role::Newsletter => 4.0,
        Role::Payments => 5.0,
        _ => 3.0,
    };
    let Ok(files) = open_files(DESCRIPTORS_PER_REQUEST) else {
        service.log.write("ERROR", service.spec.names.no_descriptor.clone(), &context.trace);
        return StatusCode::INTERNAL_SERVER_ERROR;
    };
    service.work(typical_ms).await;
    drop(files);
    if service.behaviour().fail && rand::rng().random_bool(0.4) {
        service.log.write("ERROR", service.spec.names.request_failed.clone(), &context.trace);
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    let mut result = StatusCode::OK;
    if let Some(ledger) = &service.ledger
        && let Err(reason) = ledger.add(context.trace.get(..8).unwrap_or_default()).await
    {
        service.log.write("ERROR", format!("{}: {reason}", service.spec.names.upstream_failed), &context.trace);
        return StatusCode::BAD_GATEWAY;
    }
    for peer in service.spec.role.calls() {
        let (path, skip) = match peer {
            Role::Queue => ("/enqueue", rand::rng().random_bool(0.5)),
            _ => ("/", false),
        };
        if skip {
            continue;
        }
        let (status, _) = service.call(*peer, path, context.trace.clone(), context).await;
        if !status.is_success() {
            result = if status == StatusCode::GATEWAY_TIMEOUT {
                StatusCode::BAD_GATEWAY
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            if service.spec.role != Role::Storefront {
                break;
            }
        }
    }
    result
}

/// Opens files, as a request that reads templates or temporary files does.
fn open_files(count: usize) -> std::io::Result<Vec<std::fs::File>> {
    (0..count).map(|_| std::fs::File::open("/dev/null")).collect()
}

async fn enqueue(State(service): State<Arc<Service>>, headers: HeaderMap, body: String) -> StatusCode {
    let ((context, parent), started) = (trace_context(&headers), Instant::now());
    service.work(1.0).await;
    let (depth, status) = {
        let mut queue = service.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let has_space = queue.len() < MAX_QUEUED_MESSAGES;
        if has_space {
            queue.push_back(body);
        }
        (queue.len(), if has_space { StatusCode::ACCEPTED } else { StatusCode::SERVICE_UNAVAILABLE })
    };
    service.depth.set(depth as i64);
    if !status.is_success() {
        service.log.write("ERROR", service.spec.names.queue_refused.clone(), &context.trace);
    }
    record_served(&service, &context, parent, "POST /enqueue", status, started);
    status
}

async fn take(State(service): State<Arc<Service>>, headers: HeaderMap) -> String {
    let ((context, parent), started) = (trace_context(&headers), Instant::now());
    let taken: Vec<String> = {
        let mut queue = service.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let count = queue.len().min(MAX_TAKEN_MESSAGES);
        let taken = queue.drain(..count).collect();
        service.depth.set(queue.len() as i64);
        taken
    };
    record_served(&service, &context, parent, "POST /take", StatusCode::OK, started);
    taken.join("\n")
}

async fn consume(service: Arc<Service>) {
    while !service.stopping.load(Ordering::Acquire) {
        let (context, _) = trace_context(&HeaderMap::new());
        let (_, batch) = service.call(Role::Queue, "/take", String::new(), &context).await;
        for message in batch.lines() {
            let started = Instant::now();
            service.work(4.0).await;
            if service.behaviour().stall {
                let ms = rand::rng().random_range(1200..1800);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                service.log.write("WARN", service.spec.names.handled_slowly.clone(), message);
            }
            observe(&service.process_duration, StatusCode::OK, started);
        }
        tokio::time::sleep(Duration::from_millis(if batch.is_empty() { 50 } else { 1 })).await;
    }
}

/// The faults that do not depend on requests: a CPU hog, a leak of memory and one of file descriptors.
fn run_background_faults(service: &Service) {
    loop {
        let behaviour = service.behaviour();
        if behaviour.leak_memory && (service.leaked_bytes.load(Ordering::Relaxed) as f64) < MEMORY_LIMIT_BYTES * 0.9 {
            let block = vec![1_u8; 4 << 20];
            service.leaked_bytes.fetch_add(block.len() as i64, Ordering::Relaxed);
            service.leaked_blocks.lock().unwrap_or_else(PoisonError::into_inner).push(block);
        }
        if behaviour.leak_descriptors
            && let Ok(mut files) = open_files(DESCRIPTORS_PER_REQUEST)
        {
            // The last ones that are free are left: then no request can be served, but telemetry goes on.
            files.truncate(DESCRIPTORS_PER_REQUEST / 2);
            service.leaked_files.lock().unwrap_or_else(PoisonError::into_inner).append(&mut files);
        }
        if behaviour.spin_cpu {
            let guard = service.cpu.blocking_lock();
            let until = Instant::now() + Duration::from_millis(420);
            while Instant::now() < until {
                std::hint::black_box((0..2000_u64).fold(0_u64, |sum, n| sum.wrapping_mul(31).wrapping_add(n)));
            }
            drop(guard);
            std::thread::sleep(Duration::from_millis(60));
        } else {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Exports metrics, logs and spans once per interval.
async fn export_telemetry(service: Arc<Service>, registry: Registry) {
    let name = service.name().to_owned();
    let targets = &service.spec.targets;
    let label = [("service".to_owned(), name)].into();
    let process = prometheus::process_collector::ProcessCollector::new(std::process::id() as i32, "");
    let process_metrics = Registry::new_custom(None, Some(label)).ok();
    if let Some(process_metrics) = &process_metrics {
        process_metrics.register(Box::new(process)).ok();
    }
    let outboxes = Outboxes::new(targets);
    // The first export is one interval after the start, when a predecessor has stopped exporting: the counters of two
    // processes must not mix under one identity.
    let interval = Duration::from_millis(service.spec.interval_ms);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    loop {
        tick.tick().await;
        // A process that drains has a successor with the same identity.
        if service.stopping.load(Ordering::Acquire) {
            return;
        }
        let registries: Vec<&Registry> = std::iter::once(&registry).chain(&process_metrics).collect();
        outboxes.enqueue(service.name(), &registries, &service.log, service.spans.as_ref());
    }
}
