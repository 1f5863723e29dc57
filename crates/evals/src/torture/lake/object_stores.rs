//! Bar 5e: the lake on object stores. On each store the server is killed under load, and every acknowledged row must be
//! there once. A store that ignores conditional writes must be refused at startup.
//!
//! S3 is moto, Azure is Azurite. Google Cloud Storage, and S3 with injected faults, are our own [`FakeObjectStore`].
//! The objects are copied to a disk by another client than the server's, and read by DuckDB.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use object_store::ObjectStore;
use object_store::ObjectStoreExt as _;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use wardroom_testing::{FakeObjectStore, Server, server};

use crate::bar::{BarOptions, BarResult};
use crate::client_python::python;
use crate::oracle::event_load::EventLoad;
use crate::oracle::lake_contents::{LakeContents, wait_for_lake};
use crate::oracle::sample_load::{SERIES, SampleLoad, Timestamps};
use crate::progress::print_progress;

/// A store must respond to its first request within this time.
const STORE_START_TIMEOUT: Duration = Duration::from_secs(60);
/// The server must be ready within this time after a kill; it reads all tables from the store first.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Duration of the outage of the store.
const OUTAGE_DURATION: Duration = Duration::from_secs(3);

/// A server started during the outage must be ready within this time, and its lake after the outage.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Account of every Azure emulator.
const AZURE_ACCOUNT: &str = "devstoreaccount1";
/// Key of that account, published in Microsoft's documentation.
const AZURITE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Tells the server's client that the store is an emulator.
const EMULATOR_VARIABLE: &str = "AZURE_STORAGE_USE_EMULATOR";

const WRITERS: u64 = 4;
const WRITE_INTERVAL: Duration = Duration::from_millis(20);

/// A running store.
struct Store {
    name: &'static str,
    /// `lake.uri`.
    uri: &'static str,
    /// Environment variables for its clients.
    environment: Vec<(String, String)>,
    fake: Option<FakeObjectStore>,
    program: Option<Child>,
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(program) = &mut self.program {
            // It may have exited already.
            drop(program.kill());
            drop(program.wait());
        }
    }
}

pub(crate) fn run(options: &BarOptions) -> anyhow::Result<BarResult> {
    let dir = options.create_dir("5e")?;
    let mut total = BarResult::default();
    for store in [fake_s3()?, fake_gcs()?] {
        total.faults.extend(check_refusal(&store, &dir.join(store.uri.replace("://", "-")))?);
    }
    // Two stores at a time.
    let dir = dir.as_path();
    for pair in [[moto as OpenStore, |_: &Path| fake_gcs()], [azurite, |_: &Path| fake_s3()]] {
        let results = std::thread::scope(|scope| {
            let runs = pair.map(|open| scope.spawn(move || run_store(open, dir, options)));
            runs.map(std::thread::ScopedJoinHandle::join)
        });
        for result in results {
            total.add(result.map_err(|_| anyhow::anyhow!("a store's thread panicked"))??);
        }
    }
    std::fs::remove_dir_all(dir)?;
    Ok(total)
}

/// Starts a store; its log goes to the folder.
type OpenStore = fn(&Path) -> anyhow::Result<Store>;

fn run_store(open: OpenStore, dir: &Path, options: &BarOptions) -> anyhow::Result<BarResult> {
    let store = open(dir)?;
    let home = dir.join(store.name);
    let result =
        write_under_kills(&store, &home, options).with_context(|| format!("{}, {}", store.name, home.display()))?;
    print_progress(format!(
        "{}: {} of {} acknowledged, {} missing, {} spurious, {} corrupted, {} duplicate",
        store.name, result.acked, result.issued, result.missing, result.spurious, result.corrupted, result.duplicate
    ));
    Ok(result)
}

/// Checks that the server reports a store that ignores conditional writes, and does not start.
#[expect(clippy::disallowed_methods, reason = "the program is expected to exit with an error")]
fn check_refusal(store: &Store, dir: &Path) -> anyhow::Result<Option<String>> {
    let fake = store.fake.as_ref().context("not a fake store")?;
    fake.faults.ignore_conditions.store(true, Ordering::Release);
    let mut serve = Command::new(server::program("WARDROOM_BIN"));
    serve.args(["serve", "--auth", "off", "--listen", "127.0.0.1:0", "--data"]).arg(dir);
    serve.envs(store.environment.iter().map(|(name, value)| (name, value))).env("WARDROOM_EDGE__OTLP_GRPC", "off");
    let mut child = serve.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > READY_TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Ok(Some(format!("{}: started on a store that ignores conditional writes", store.name)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    let refused = !output.status.success() && message.contains("lake.uri") && message.contains("If-None-Match");
    Ok((!refused).then(|| format!("{}: exited with {} and reported: {message}", store.name, output.status)))
}

/// Writes to a store while the server is killed, and checks what the store holds.
fn write_under_kills(store: &Store, home: &Path, options: &BarOptions) -> anyhow::Result<BarResult> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut environment: Vec<(&str, &str)> =
        store.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    environment.extend([("WARDROOM_LAKE__FLUSH_SECONDS", "1"), ("WARDROOM_LAKE__MAINTAIN_SECONDS", "2")]);
    environment.push(("WARDROOM_MUTANT", options.mutant_name()));
    if let Some(fake) = &store.fake {
        fake.faults.unreliable.store(true, Ordering::Release);
    }
    let mut server = Server::start(home, "", &environment)?;
    wait_ready(&server, READY_TIMEOUT)?;
    let mut load = SampleLoad::start(&server, WRITERS, WRITE_INTERVAL, options.seed, Timestamps::LAST_HOUR);
    let mut events = EventLoad::start(&server, options.seed);
    let mut faults = Vec::new();
    for _ in 0..options.kills {
        std::thread::sleep(Duration::from_millis(random.random_range(300..2500)));
        server.kill();
        server.restart()?;
        wait_ready(&server, READY_TIMEOUT)?;
    }
    if let Some(fake) = &store.fake {
        for restarted in [false, true] {
            fake.faults.unavailable.store(true, Ordering::Release);
            if restarted {
                server.kill();
                server.restart()?;
                wait_ready(&server, RECOVERY_TIMEOUT)?;
                if lake_state(&server)? == "ok" {
                    faults.push("started during the outage, and /readyz reports the lake as ok".to_owned());
                }
            }
            let before = load.oracle.acked().len();
            std::thread::sleep(OUTAGE_DURATION);
            if load.oracle.acked().len() <= before {
                faults.push(format!("nothing was acknowledged during the outage (restarted: {restarted})"));
            }
            fake.faults.unavailable.store(false, Ordering::Release);
        }
        let restored = Instant::now();
        while !lake_state(&server).is_ok_and(|state| state == "ok") {
            ensure!(
                restored.elapsed() < RECOVERY_TIMEOUT,
                "{}: no lake {RECOVERY_TIMEOUT:?} after the outage",
                store.name
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    load.stop()?;
    events.stop()?;
    wait_for_lake(&server)?;
    let acked = load.oracle.acked();
    let rows = query_count(&server, "SELECT count(*) AS rows FROM samples")?;
    if rows < acked.len() as u64 * SERIES {
        faults.push(format!("SQL counts {rows} rows of {} requests", acked.len()));
    }
    // After this, the data can only come from the store.
    server.kill();
    std::fs::remove_dir_all(home.join("data/checkpoint"))?;
    server.restart()?;
    wait_ready(&server, READY_TIMEOUT)?;
    if query_count(&server, "SELECT count(DISTINCT timestamp) AS rows FROM metrics WHERE metric_name = 'oracle'")? == 0
    {
        faults.push("SQL finds nothing after a restart".to_owned());
    }
    server.kill();
    copy_objects(store, &home.join("data/lake"))?;
    let lake = LakeContents::read(home, false)?;
    let mut result = load.oracle.compare_lake(&lake, &acked);
    result.add(events.compare_lake(&lake));
    result.kills = options.kills;
    result.faults = faults.into_iter().map(|fault| format!("{}: {fault}", store.name)).collect();
    ensure!(result.acked > options.kills, "{} requests are too few for a result", result.acked);
    Ok(result)
}

/// Returns the state of the lake that /readyz reports.
fn lake_state(server: &Server) -> anyhow::Result<String> {
    let (_, text) = server.get("/readyz", &server.sender_token)?;
    let document: serde_json::Value = serde_json::from_str(&text)?;
    document["lake"].as_str().map(str::to_owned).context("/readyz does not report the lake")
}

fn wait_ready(server: &Server, timeout: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    while !server.get("/readyz", &server.sender_token).is_ok_and(|(status, _)| status == 200) {
        ensure!(started.elapsed() < timeout, "not ready {timeout:?} after a start");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Runs a query that returns one number as `rows`.
fn query_count(server: &Server, query: &str) -> anyhow::Result<u64> {
    let (status, response) = server.post_json("/api/v1/sql", &server.responder_token, &json!({ "query": query }))?;
    ensure!(status == 200, "{query}: {response}");
    response[0]["rows"].as_u64().with_context(|| format!("{query}: {response}"))
}

/// Copies all objects of a store to a folder.
fn copy_objects(store: &Store, folder: &Path) -> anyhow::Result<()> {
    let uri: axum::http::Uri = store.uri.parse()?;
    // Not an option of the client here; it is read from the process environment only.
    let options = store.environment.iter().filter(|(name, _)| name != EMULATOR_VARIABLE);
    let options: BTreeMap<_, _> = options.map(|(name, value)| (name.to_lowercase(), value)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let root = object_store::path::Path::from(uri.path());
        let client = client(store.uri, &options)?;
        let listed = client.list_with_delimiter(Some(&root)).await?;
        let mut folders = listed.common_prefixes;
        let mut count = 0;
        while let Some(prefix) = folders.pop() {
            let listed = client.list_with_delimiter(Some(&prefix)).await?;
            folders.extend(listed.common_prefixes);
            for object in listed.objects {
                let relative_path = object.location.as_ref().trim_start_matches(root.as_ref()).trim_start_matches('/');
                let path = folder.join(relative_path);
                std::fs::create_dir_all(path.parent().context("no parent folder")?)?;
                std::fs::write(path, client.get(&object.location).await?.bytes().await?)?;
                count += 1;
            }
        }
        ensure!(count > 0, "the store holds nothing");
        Ok(())
    })
}

fn client(uri: &str, options: &BTreeMap<String, &String>) -> anyhow::Result<Box<dyn ObjectStore>> {
    macro_rules! client {
        ($builder:ty) => {{
            let builder = <$builder>::new().with_url(uri);
            let builder = options.iter().fold(builder, |builder, (name, value)| match name.parse() {
                Ok(name) => builder.with_config(name, value.as_str()),
                Err(_) => builder,
            });
            Ok(Box::new(builder.build()?))
        }};
    }
    match uri.split("://").next() {
        Some("s3") => client!(object_store::aws::AmazonS3Builder),
        Some("az") => client!(object_store::azure::MicrosoftAzureBuilder),
        _ => client!(object_store::gcp::GoogleCloudStorageBuilder),
    }
}

fn environment(uri: &str, store_variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let lake = [("WARDROOM_LAKE__URI", uri)];
    lake.iter().chain(store_variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn s3_environment(uri: &str, endpoint: &str) -> Vec<(String, String)> {
    let store_variables = [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "testtest"),
    ];
    environment(uri, &store_variables)
}

/// Starts the fake store with its S3 API.
fn fake_s3() -> anyhow::Result<Store> {
    let (fake, uri) = (FakeObjectStore::start()?, "s3://wardroom/tables");
    let environment = s3_environment(uri, &fake.url);
    Ok(Store { name: "s3-unreliable", uri, environment, fake: Some(fake), program: None })
}

/// Starts the fake store with its Google Cloud Storage API.
fn fake_gcs() -> anyhow::Result<Store> {
    let (fake, uri) = (FakeObjectStore::start()?, "gs://wardroom/tables");
    let key = json!({ "gcs_base_url": fake.url, "disable_oauth": true, "client_email": "", "private_key": "",
        "private_key_id": "" });
    let key = key.to_string();
    let environment = environment(uri, &[("GOOGLE_SERVICE_ACCOUNT_KEY", &key), ("GOOGLE_ALLOW_HTTP", "true")]);
    Ok(Store { name: "gs-unreliable", uri, environment, fake: Some(fake), program: None })
}

fn moto(dir: &Path) -> anyhow::Result<Store> {
    let (port, uri) = (free_port()?, "s3://wardroom/tables");
    let url = format!("http://127.0.0.1:{port}");
    let mut run = python();
    run.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    let program = Some(spawn_logged(run, &dir.join("moto.log"))?);
    let store = Store { name: "s3-moto", uri, environment: s3_environment(uri, &url), fake: None, program };
    wait_started(|| ureq::get(format!("{url}/moto-api/")).call().is_ok())?;
    ureq::put(format!("{url}/wardroom")).send_empty().context("cannot create a bucket")?;
    Ok(store)
}

#[expect(clippy::disallowed_methods, reason = "the emulator is a separate program")]
fn azurite(dir: &Path) -> anyhow::Result<Store> {
    let (port, uri) = (free_port()?, "az://wardroom/tables");
    let url = format!("http://127.0.0.1:{port}");
    let mut run = Command::new("node");
    run.arg(server::program("CLIENT_NODE").join("node_modules/azurite/dist/src/blob/main.js"));
    run.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--inMemoryPersistence"]);
    run.args(["--skipApiVersionCheck", "--disableTelemetry", "--silent"]);
    let program = Some(spawn_logged(run, &dir.join("azurite.log"))?);
    let endpoint = format!("{url}/{AZURE_ACCOUNT}");
    let store_variables = [
        ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT),
        ("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY),
        ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
        ("AZURE_ALLOW_HTTP", "true"),
        // The emulator lacks some list parameters; the client leaves them out.
        (EMULATOR_VARIABLE, "true"),
        ("AZURITE_BLOB_STORAGE_URL", url.as_str()),
    ];
    let environment = environment(uri, &store_variables);
    let store = Store { name: "az-azurite", uri, environment, fake: None, program };
    wait_started(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    let created = python()
        .args(["-c", include_str!("azure_container.py")])
        .args([&url, "wardroom", AZURE_ACCOUNT, AZURITE_KEY])
        .output()?;
    ensure!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr).trim());
    Ok(store)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn spawn_logged(mut program: Command, log: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(log)?;
    Ok(program.stdout(log.try_clone()?).stderr(log).spawn()?)
}

fn wait_started(is_up: impl Fn() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while !is_up() {
        ensure!(started.elapsed() < STORE_START_TIMEOUT, "the store does not respond after {STORE_START_TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
