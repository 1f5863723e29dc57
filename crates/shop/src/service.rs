//! One service: a process of its own, serving and calling HTTP, measuring itself as services do.

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

use crate::fault::Behaviour;
use crate::names::{Names, Role};
use crate::otlp::{End, Ended, Here, Spans};
use crate::telemetry::{Log, Outboxes, Targets, now_ms};

/// Bytes of memory and share of a processor each service may use.
const MEMORY_LIMIT: f64 = 160.0 * 1024.0 * 1024.0;
const CPU_LIMIT: f64 = 0.5;
/// Messages the queue holds.
const QUEUE_LIMIT: usize = 60;
const BUCKETS: [f64; 19] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0];

/// What a service is told when it starts, as the first line of its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) role: Role,
    pub(crate) version: String,
    pub(crate) names: Names,
    pub(crate) ports: HashMap<Role, u16>,
    pub(crate) release: PathBuf,
    pub(crate) settings: PathBuf,
    pub(crate) targets: Targets,
    pub(crate) interval_ms: u64,
}

/// What a running service is told, one line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Read the settings again.
    Reload,
    /// Behave like this from now on.
    Behave(Behaviour),
}

/// A service's settings, by their (renamed) keys.
pub(crate) type Settings = std::collections::BTreeMap<String, u64>;

struct Service {
    spec: Spec,
    client: reqwest::Client,
    connections: Arc<Semaphore>,
    pool_size: usize,
    pool_used: prometheus::Gauge,
    behaviour: RwLock<Behaviour>,
    built_in: Behaviour,
    settings: RwLock<Settings>,
    hoard: Mutex<Vec<Vec<u8>>>,
    hoarded: AtomicI64,
    turn: tokio::sync::Mutex<()>,
    rate: Mutex<(Instant, f64)>,
    queue: Mutex<VecDeque<String>>,
    depth: IntGauge,
    stopping: AtomicBool,
    served: HistogramVec,
    called: HistogramVec,
    worked: HistogramVec,
    log: Log,
    /// Told only to whoever understands them.
    spans: Option<Spans>,
}

/// Runs one service until it is told to stop.
pub(crate) async fn run() -> anyhow::Result<()> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let first = input.next_line().await?.ok_or_else(|| anyhow::anyhow!("`shop service` is started by `shop run`"))?;
    let spec: Spec = serde_json::from_str(&first)?;
    let registry = Registry::new();
    let service = Arc::new(Service::new(spec, &registry)?);
    service.reload(false);
    let listener = listen(service.spec.ports[&service.spec.role])?;

    let orders = Arc::clone(&service);
    tokio::spawn(async move {
        while let Ok(Some(line)) = input.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Order::Reload) => orders.reload(true),
                Ok(Order::Behave(behaviour)) => {
                    *orders.behaviour.write().unwrap_or_else(PoisonError::into_inner) = behaviour.or(orders.built_in);
                }
                Err(error) => orders.log.write("ERROR", format!("order not understood: {error}"), ""),
            }
        }
        // The supervisor is gone.
        std::process::exit(0);
    });
    service.log.write("INFO", format!("{} {} started", service.name(), service.spec.version), "");
    let pushing = tokio::spawn(push(Arc::clone(&service), registry));
    std::thread::spawn({
        let service = Arc::clone(&service);
        move || misbehave(&service)
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
    let stopping = Arc::clone(&service);
    let stop = async move {
        let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(terminate) => terminate,
            Err(_) => return std::future::pending().await,
        };
        terminate.recv().await;
        stopping.stopping.store(true, Ordering::Release);
    };
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop);
    serving.await?;
    pushing.abort();
    Ok(())
}

/// Several processes may hold the port, so that a new one is ready before the old one leaves.
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
    fn new(spec: Spec, registry: &Registry) -> anyhow::Result<Self> {
        let name = spec.names.of(spec.role).to_owned();
        let metric = |suffix: &str| format!("{}_{suffix}", spec.names.prefix);
        let buckets = |suffix: &str, help: &str, labels: &[&str]| -> anyhow::Result<HistogramVec> {
            let opts = HistogramOpts::new(metric(suffix), help).const_label("service", &name).buckets(BUCKETS.to_vec());
            let histogram = HistogramVec::new(opts, labels)?;
            Ok(histogram)
        };
        let served = buckets("request_duration_seconds", "Requests served", &["code"])?;
        let called = buckets("client_duration_seconds", "Requests made", &["peer_service", "code"])?;
        let worked = buckets("process_duration_seconds", "Messages handled", &["code"])?;
        let gauge = |suffix: &str, help: &str| Opts::new(metric(suffix), help).const_label("service", &name);
        let pool = GaugeVec::new(gauge("pool_connections", "Connections of the pool"), &["state"])?;
        let depth = IntGauge::with_opts(gauge("queue_depth", "Messages waiting"))?;
        let info = GaugeVec::new(gauge("build_info", "What runs"), &["version"])?;
        info.with_label_values(&[spec.version.as_str()]).set(1.0);
        for (name_of, value) in [("process_memory_limit_bytes", MEMORY_LIMIT), ("process_cpu_limit_cores", CPU_LIMIT)] {
            let limit = prometheus::Gauge::with_opts(Opts::new(name_of, "Limit").const_label("service", &name))?;
            limit.set(value);
            registry.register(Box::new(limit))?;
        }
        registry.register(Box::new(served.clone()))?;
        if !spec.role.calls().is_empty() {
            registry.register(Box::new(called.clone()))?;
            registry.register(Box::new(pool.clone()))?;
        }
        if spec.role == Role::Fulfilment {
            registry.register(Box::new(worked.clone()))?;
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
        let pool_size = settings.get(&spec.names.pool_key).map_or(20, |size| *size as usize);
        pool.with_label_values(&["max"]).set(pool_size as f64);
        Ok(Self {
            client: reqwest::Client::builder().pool_max_idle_per_host(64).build()?,
            connections: Arc::new(Semaphore::new(pool_size)),
            pool_size,
            pool_used: pool.with_label_values(&["used"]),
            behaviour: RwLock::new(built_in),
            built_in,
            settings: RwLock::new(settings),
            hoard: Mutex::default(),
            hoarded: AtomicI64::new(0),
            turn: tokio::sync::Mutex::new(()),
            rate: Mutex::new((Instant::now(), 50.0)),
            queue: Mutex::default(),
            depth,
            stopping: AtomicBool::new(false),
            served,
            called,
            worked,
            log: Log::new(&name),
            spans: spec.targets.otlp.is_some().then(|| Spans::new(&name)),
            spec,
        })
    }

    fn name(&self) -> &str {
        self.spec.names.of(self.spec.role)
    }

    fn behaviour(&self) -> Behaviour {
        *self.behaviour.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn setting(&self, key: &str, usual: u64) -> u64 {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or(usual)
    }

    fn reload(&self, announce: bool) {
        let fresh = read_settings(&self.spec);
        let mut settings = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        for (key, to) in fresh.iter().filter(|_| announce) {
            let from = settings.get(key).copied().unwrap_or_default();
            if from != *to {
                self.log.write("INFO", format!("{} key={key} from={from} to={to}", self.spec.names.reloaded), "");
            }
        }
        *settings = fresh;
    }

    /// Whether one more request fits the configured rate.
    fn admitted(&self) -> bool {
        let cap = self.setting(&self.spec.names.rate_key, 1000) as f64;
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        rate.1 = (rate.1 + now.duration_since(rate.0).as_secs_f64() * cap).min(cap);
        rate.0 = now;
        let fits = rate.1 >= 1.0;
        if fits {
            rate.1 -= 1.0;
        }
        fits
    }

    /// The service's own work for one request.
    async fn work(&self, usual_ms: f64) {
        let behaviour = self.behaviour();
        let mut ms = usual_ms * rand::rng().random_range(0.7..1.6);
        if behaviour.slow {
            ms += rand::rng().random_range(600.0..1100.0);
        }
        let memory = self.hoarded.load(Ordering::Relaxed) as f64 / MEMORY_LIMIT;
        if memory > 0.5 {
            ms += rand::rng().random_range(500.0..900.0) * memory;
        }
        if behaviour.spin {
            // Whoever wants the processor waits for its turn.
            drop(self.turn.lock().await);
        }
        tokio::time::sleep(Duration::from_micros((ms * 1000.0) as u64)).await;
    }

    /// Calls another service through the connection pool.
    async fn call(&self, peer: Role, path: &str, body: String, here: &Here) -> (StatusCode, String) {
        let (started, span, trace) = (Instant::now(), rand::rng().random::<u64>(), here.trace.as_str());
        let deadline = Duration::from_millis(self.setting(&self.spec.names.timeout_key, 2000));
        let peer_name = self.spec.names.of(peer);
        let wait = Duration::from_millis(600);
        let outcome = match tokio::time::timeout(wait, self.connections.acquire()).await {
            Ok(Ok(permit)) => {
                let answer = tokio::time::timeout(
                    deadline,
                    self.exchange(peer, path, body, &Here { trace: trace.to_owned(), span }),
                )
                .await;
                if self.behaviour().keep_connections && rand::rng().random_bool(0.3) {
                    permit.forget();
                } else {
                    drop(permit);
                }
                answer.unwrap_or_else(|_| Err(format!("deadline of {} ms", deadline.as_millis())))
            }
            _ => Err(format!("{} {} ms", self.spec.names.no_connection, wait.as_millis())),
        };
        self.pool_used.set((self.pool_size - self.connections.available_permits().min(self.pool_size)) as f64);
        let (status, text) = match outcome {
            Ok(answer) => answer,
            Err(reason) => {
                self.log.write(
                    "ERROR",
                    format!("{} peer={peer_name}: {reason}", self.spec.names.upstream_failed),
                    trace,
                );
                (StatusCode::GATEWAY_TIMEOUT, String::new())
            }
        };
        self.called.with_label_values(&[peer_name, status.as_str()]).observe(started.elapsed().as_secs_f64());
        self.ended(Ended {
            end: End::Client,
            trace,
            span,
            parent: here.span,
            name: format!("{} {path}", if path == "/" { "GET" } else { "POST" }),
            took: started.elapsed(),
            status: status.as_u16(),
            port: Some(self.spec.ports[&peer]),
        });
        (status, text)
    }

    fn ended(&self, ended: Ended<'_>) {
        if let Some(spans) = &self.spans {
            spans.record(ended, now_ms());
        }
    }

    async fn exchange(
        &self,
        peer: Role,
        path: &str,
        body: String,
        here: &Here,
    ) -> Result<(StatusCode, String), String> {
        let url = format!("http://127.0.0.1:{}{path}", self.spec.ports[&peer]);
        let span = format!("00-{}-{:016x}-01", here.trace, here.span);
        for attempt in 0..15 {
            let request = if path == "/" { self.client.get(&url) } else { self.client.post(&url) };
            match request.header("traceparent", &span).body(body.clone()).send().await {
                Ok(answer) => {
                    let status = answer.status();
                    return Ok((status, answer.text().await.map_err(|error| error.to_string())?));
                }
                // A connection that broke before any answer: the peer was just replaced.
                Err(error) if attempt < 14 && (error.is_connect() || error.is_request()) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("unreachable".into())
    }
}

fn read_settings(spec: &Spec) -> Settings {
    std::fs::read_to_string(&spec.settings).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Where a request that arrives is from now on, and the span that sent it.
fn enter(headers: &HeaderMap) -> (Here, u64) {
    let given = headers.get("traceparent").and_then(|value| value.to_str().ok());
    let mut parts = given.into_iter().flat_map(|text| text.split('-')).skip(1);
    let trace = parts.next().filter(|id| id.len() == 32).map(str::to_owned);
    let parent = parts.next().and_then(|id| u64::from_str_radix(id, 16).ok()).unwrap_or_default();
    let trace = trace.unwrap_or_else(|| format!("{:032x}", rand::rng().random::<u128>()));
    (Here { trace, span: rand::rng().random() }, parent)
}

/// A request was answered.
fn served(service: &Service, here: &Here, parent: u64, path: &str, status: StatusCode, started: Instant) {
    observe(&service.served, status, started);
    service.ended(Ended {
        end: End::Server,
        trace: &here.trace,
        span: here.span,
        parent,
        name: path.to_owned(),
        took: started.elapsed(),
        status: status.as_u16(),
        port: None,
    });
}

async fn serve(State(service): State<Arc<Service>>, headers: HeaderMap) -> StatusCode {
    let (here, parent) = enter(&headers);
    let started = Instant::now();
    let status = if service.admitted() {
        handle(&service, &here).await
    } else {
        service.log.write("ERROR", service.spec.names.too_many.clone(), &here.trace);
        StatusCode::SERVICE_UNAVAILABLE
    };
    served(&service, &here, parent, "GET /", status, started);
    if status == StatusCode::OK && rand::rng().random_bool(0.02) {
        let took = started.elapsed().as_millis();
        service.log.write("INFO", format!("{} in {took} ms", service.spec.names.served), &here.trace);
    }
    status
}

fn observe(histogram: &HistogramVec, status: StatusCode, started: Instant) {
    let observed: Histogram = histogram.with_label_values(&[status.as_str()]);
    observed.observe(started.elapsed().as_secs_f64());
}

async fn handle(service: &Arc<Service>, here: &Here) -> StatusCode {
    let usual_ms = match service.spec.role {
        Role::Storefront | Role::Cart => 2.0,
        Role::Catalogue | Role::Newsletter => 4.0,
        Role::Payments => 5.0,
        _ => 3.0,
    };
    service.work(usual_ms).await;
    let mut worst = StatusCode::OK;
    for peer in service.spec.role.calls() {
        let (path, skip) = match peer {
            Role::Queue => ("/enqueue", rand::rng().random_bool(0.5)),
            _ => ("/", false),
        };
        if skip {
            continue;
        }
        let (status, _) = service.call(*peer, path, here.trace.clone(), here).await;
        if !status.is_success() {
            worst = if status == StatusCode::GATEWAY_TIMEOUT {
                StatusCode::BAD_GATEWAY
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            if service.spec.role != Role::Storefront {
                break;
            }
        }
    }
    worst
}

async fn enqueue(State(service): State<Arc<Service>>, headers: HeaderMap, body: String) -> StatusCode {
    let ((here, parent), started) = (enter(&headers), Instant::now());
    service.work(1.0).await;
    let (depth, status) = {
        let mut queue = service.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = queue.len() < QUEUE_LIMIT;
        if fits {
            queue.push_back(body);
        }
        (queue.len(), if fits { StatusCode::ACCEPTED } else { StatusCode::SERVICE_UNAVAILABLE })
    };
    service.depth.set(depth as i64);
    if !status.is_success() {
        service.log.write("ERROR", service.spec.names.queue_refused.clone(), &here.trace);
    }
    served(&service, &here, parent, "POST /enqueue", status, started);
    status
}

async fn take(State(service): State<Arc<Service>>, headers: HeaderMap) -> String {
    let ((here, parent), started) = (enter(&headers), Instant::now());
    let taken: Vec<String> = {
        let mut queue = service.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let count = queue.len().min(5);
        let taken = queue.drain(..count).collect();
        service.depth.set(queue.len() as i64);
        taken
    };
    served(&service, &here, parent, "POST /take", StatusCode::OK, started);
    taken.join("\n")
}

async fn consume(service: Arc<Service>) {
    while !service.stopping.load(Ordering::Acquire) {
        let (here, _) = enter(&HeaderMap::new());
        let (_, batch) = service.call(Role::Queue, "/take", String::new(), &here).await;
        for message in batch.lines() {
            let started = Instant::now();
            service.work(4.0).await;
            if service.behaviour().stall {
                let ms = rand::rng().random_range(1200..1800);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                service.log.write("WARN", service.spec.names.behind.clone(), message);
            }
            observe(&service.worked, StatusCode::OK, started);
        }
        tokio::time::sleep(Duration::from_millis(if batch.is_empty() { 50 } else { 1 })).await;
    }
}

/// The faults that need no request: a spinning thread and memory that is never given back.
fn misbehave(service: &Service) {
    loop {
        let behaviour = service.behaviour();
        if behaviour.keep_memory && (service.hoarded.load(Ordering::Relaxed) as f64) < MEMORY_LIMIT * 0.9 {
            let block = vec![1_u8; 4 << 20];
            service.hoarded.fetch_add(block.len() as i64, Ordering::Relaxed);
            service.hoard.lock().unwrap_or_else(PoisonError::into_inner).push(block);
        }
        if behaviour.spin {
            let guard = service.turn.blocking_lock();
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

/// Sends metrics and logs, once an interval.
async fn push(service: Arc<Service>, registry: Registry) {
    let name = service.name().to_owned();
    let targets = &service.spec.targets;
    let label = [("service".to_owned(), name)].into();
    let process = prometheus::process_collector::ProcessCollector::new(std::process::id() as i32, "");
    let readings = Registry::new_custom(None, Some(label)).ok();
    if let Some(readings) = &readings {
        readings.register(Box::new(process)).ok();
    }
    let outboxes = Outboxes::new(targets);
    // The first reading comes one interval after the start, when a predecessor has fallen silent: its
    // counters must not interleave with ours.
    let interval = Duration::from_millis(service.spec.interval_ms);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    loop {
        tick.tick().await;
        // While a predecessor drains, two processes would report one identity: the one that leaves is silent.
        if service.stopping.load(Ordering::Acquire) {
            return;
        }
        let registries: Vec<&Registry> = std::iter::once(&registry).chain(&readings).collect();
        outboxes.put(service.name(), &registries, &service.log, service.spans.as_ref());
    }
}
