//! Bar 5e: the tables on object stores. On each the server is killed under load, and every row that was acknowledged must be
//! there once; a store that overlooks conditions is refused at the start.
//!
//! moto is S3, Azurite is Azure, and for Google, and for what neither of them can be told to do wrong, there is a store of our own
//! ([`Bucket`]). The objects are copied to a disk by another client than the server's, and looked into by DuckDB.

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
use wardroom_testing::{Bucket, Server, server};

use crate::ack::{Load, SERIES, Spread};
use crate::events::Events;
use crate::silver::{self, Silver, python};
use crate::{Options, Tally, tell};

/// A store has answered its first request this soon.
const UP: Duration = Duration::from_secs(60);
/// The server is ready again this soon after a kill: all tables are read from the store before.
const READY: Duration = Duration::from_secs(30);
/// How long the store is away.
const AWAY: Duration = Duration::from_secs(3);

/// A server that was started meanwhile serves this soon, and has its tables this soon after the store is back.
const BACK: Duration = Duration::from_secs(60);

/// The account that every emulator of Azure has.
const ACCOUNT: &str = "devstoreaccount1";
/// Its key, which is in Microsoft's documentation and no secret.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Tells the server's client that it is one.
const EMULATED: &str = "AZURE_STORAGE_USE_EMULATOR";

/// A store at work.
struct Store {
    name: &'static str,
    /// Where the tables go.
    uri: &'static str,
    /// What its clients find in their environment.
    environment: Vec<(String, String)>,
    /// It is this, or a program of its own.
    bucket: Option<Bucket>,
    program: Option<Child>,
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(program) = &mut self.program {
            // It may have ended already.
            drop(program.kill());
            drop(program.wait());
        }
    }
}

/// Runs the bar.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let dir = std::env::temp_dir().join(format!("wardroom-5e-{}-{}", std::process::id(), options.seed));
    std::fs::create_dir_all(&dir)?;
    let mut total = Tally::default();
    for dialect in [amazon as fn() -> anyhow::Result<Store>, google] {
        let store = dialect()?;
        total.faults.extend(refused(&store, &dir.join(store.uri.replace("://", "-")))?);
    }
    for open in [moto as fn(&Path) -> anyhow::Result<Store>, azurite, |_: &Path| google(), |_: &Path| amazon()] {
        let store = open(&dir)?;
        let home = dir.join(store.name);
        let tally = carry(&store, &home, options).with_context(|| format!("{}, {}", store.name, home.display()))?;
        tell(format!(
            "{}: {} of {} acknowledged, {} missing, {} spurious, {} corrupted, {} twice",
            store.name, tally.acked, tally.issued, tally.missing, tally.spurious, tally.corrupted, tally.duplicate
        ));
        total.add(tally);
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(total)
}

/// A store that overlooks conditions: the server says so and does not start.
#[expect(clippy::disallowed_methods, reason = "the program is started to see it refuse")]
fn refused(store: &Store, dir: &Path) -> anyhow::Result<Option<String>> {
    let bucket = store.bucket.as_ref().context("a store of our own")?;
    bucket.manners.overlooks.store(true, Ordering::Release);
    let mut serve = Command::new(server::program("WARDROOM_BIN"));
    serve.args(["serve", "--auth", "off", "--listen", "127.0.0.1:0", "--data"]).arg(dir);
    serve.envs(store.environment.iter().map(|(name, value)| (name, value))).env("WARDROOM_EDGE__OTLP_GRPC", "off");
    let mut child = serve.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > READY {
            child.kill()?;
            child.wait()?;
            return Ok(Some(format!("{}: started on a store that overlooks conditions", store.name)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let refused = !output.status.success() && said.contains("lake.uri") && said.contains("If-None-Match");
    Ok((!refused).then(|| format!("{}: ended with {} and said: {said}", store.name, output.status)))
}

/// Writes to a store under kills, and looks what is there.
fn carry(store: &Store, home: &Path, options: &Options) -> anyhow::Result<Tally> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut environment: Vec<(&str, &str)> =
        store.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    environment.extend([("WARDROOM_LAKE__FLUSH_SECONDS", "1"), ("WARDROOM_LAKE__MAINTAIN_SECONDS", "2")]);
    environment.push(("WARDROOM_MUTANT", options.mutant.as_deref().unwrap_or_default()));
    if let Some(bucket) = &store.bucket {
        bucket.manners.unreliable.store(true, Ordering::Release);
    }
    let mut server = Server::start(home, "", &environment)?;
    ready(&server)?;
    let mut load = Load::start(&server, 4, Duration::from_millis(20), options.seed, Spread::RECENT);
    let mut events = Events::start(&server, options.seed);
    let mut faults = Vec::new();
    for _ in 0..options.kills {
        std::thread::sleep(Duration::from_millis(random.random_range(300..2500)));
        server.kill();
        server.restart()?;
        ready(&server)?;
    }
    if let Some(bucket) = &store.bucket {
        for restarted in [false, true] {
            bucket.manners.away.store(true, Ordering::Release);
            if restarted {
                server.kill();
                server.restart()?;
                ready_within(&server, BACK)?;
                if lake(&server)? == "ok" {
                    faults.push("started without its store, and says that it has its tables".to_owned());
                }
            }
            let before = load.oracle.acked().len();
            std::thread::sleep(AWAY);
            if load.oracle.acked().len() <= before {
                faults.push(format!("nothing was acknowledged while the store was away (restarted: {restarted})"));
            }
            bucket.manners.away.store(false, Ordering::Release);
        }
        let back = Instant::now();
        while !lake(&server).is_ok_and(|lake| lake == "ok") {
            ensure!(back.elapsed() < BACK, "{}: no tables {BACK:?} after it was back", store.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    load.stop()?;
    events.stop()?;
    silver::settle(&server)?;
    let acked = load.oracle.acked();
    let rows = asked(&server, "SELECT count(*) AS rows FROM samples")?;
    if rows < acked.len() as u64 * SERIES {
        faults.push(format!("SQL finds {rows} rows of {} requests", acked.len()));
    }
    // What only the store has: nothing of it is in memory after this.
    server.kill();
    std::fs::remove_dir_all(home.join("data/checkpoint"))?;
    server.restart()?;
    ready(&server)?;
    if asked(&server, "SELECT count(DISTINCT timestamp) AS rows FROM metrics WHERE metric_name = 'oracle'")? == 0 {
        faults.push("nothing is left after a restart".to_owned());
    }
    server.kill();
    copy(store, &home.join("data/lake"))?;
    let silver = Silver::read(home, false)?;
    let mut tally = load.oracle.judge_silver(&silver, &acked);
    tally.add(events.judge_silver(&silver));
    tally.kills = options.kills;
    tally.faults = faults.into_iter().map(|fault| format!("{}: {fault}", store.name)).collect();
    ensure!(tally.acked > options.kills, "{} requests are too few for the bar to mean anything", tally.acked);
    Ok(tally)
}

/// What it says of its tables.
fn lake(server: &Server) -> anyhow::Result<String> {
    let (_, text) = server.get("/readyz", &server.sender)?;
    let document: serde_json::Value = serde_json::from_str(&text)?;
    document["lake"].as_str().map(str::to_owned).context("/readyz does not tell of the lake")
}

fn ready(server: &Server) -> anyhow::Result<()> {
    ready_within(server, READY)
}

fn ready_within(server: &Server, limit: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    while !server.get("/readyz", &server.sender).is_ok_and(|(status, _)| status == 200) {
        ensure!(started.elapsed() < limit, "not ready {limit:?} after a start");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A number that SQL answers with.
fn asked(server: &Server, query: &str) -> anyhow::Result<u64> {
    let (status, answer) = server.json("/api/v1/sql", &server.responder, &json!({ "query": query }))?;
    ensure!(status == 200, "{query}: {answer}");
    answer[0]["rows"].as_u64().with_context(|| format!("{query}: {answer}"))
}

/// Copies everything in a store to a folder.
fn copy(store: &Store, folder: &Path) -> anyhow::Result<()> {
    let uri: axum::http::Uri = store.uri.parse()?;
    // Clients find an emulator through their own environment only.
    let options = store.environment.iter().filter(|(name, _)| name != EMULATED);
    let options: BTreeMap<_, _> = options.map(|(name, value)| (name.to_lowercase(), value)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let url = object_store::path::Path::from(uri.path());
        let client = client(store.uri, &options)?;
        let listed = client.list_with_delimiter(Some(&url)).await?;
        let mut folders = listed.common_prefixes;
        let mut count = 0;
        while let Some(place) = folders.pop() {
            let listed = client.list_with_delimiter(Some(&place)).await?;
            folders.extend(listed.common_prefixes);
            for object in listed.objects {
                let within = object.location.as_ref().trim_start_matches(url.as_ref()).trim_start_matches('/');
                let path = folder.join(within);
                std::fs::create_dir_all(path.parent().context("a folder")?)?;
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
            let begun = <$builder>::new().with_url(uri);
            let told = options.iter().fold(begun, |builder, (name, value)| match name.parse() {
                Ok(name) => builder.with_config(name, value.as_str()),
                Err(_) => builder,
            });
            Ok(Box::new(told.build()?))
        }};
    }
    match uri.split("://").next() {
        Some("s3") => client!(object_store::aws::AmazonS3Builder),
        Some("az") => client!(object_store::azure::MicrosoftAzureBuilder),
        _ => client!(object_store::gcp::GoogleCloudStorageBuilder),
    }
}

fn environment(uri: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = [("WARDROOM_LAKE__URI", uri)];
    own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn amazon_environment(uri: &str, endpoint: &str) -> Vec<(String, String)> {
    let more = [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "testtest"),
    ];
    environment(uri, &more)
}

/// Our own store, spoken to as to Amazon's.
fn amazon() -> anyhow::Result<Store> {
    let (bucket, uri) = (Bucket::start()?, "s3://wardroom/tables");
    let environment = amazon_environment(uri, &bucket.url);
    Ok(Store { name: "s3-unreliable", uri, environment, bucket: Some(bucket), program: None })
}

/// Our own store, spoken to as to Google's.
fn google() -> anyhow::Result<Store> {
    let (bucket, uri) = (Bucket::start()?, "gs://wardroom/tables");
    let key = json!({ "gcs_base_url": bucket.url, "disable_oauth": true, "client_email": "", "private_key": "",
        "private_key_id": "" });
    let key = key.to_string();
    let environment = environment(uri, &[("GOOGLE_SERVICE_ACCOUNT_KEY", &key), ("GOOGLE_ALLOW_HTTP", "true")]);
    Ok(Store { name: "gs-unreliable", uri, environment, bucket: Some(bucket), program: None })
}

fn moto(dir: &Path) -> anyhow::Result<Store> {
    let (port, uri) = (free_port()?, "s3://wardroom/tables");
    let url = format!("http://127.0.0.1:{port}");
    let mut run = python();
    run.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    let program = Some(logged(run, &dir.join("moto.log"))?);
    let store = Store { name: "s3-moto", uri, environment: amazon_environment(uri, &url), bucket: None, program };
    wait(|| ureq::get(format!("{url}/moto-api/")).call().is_ok())?;
    ureq::put(format!("{url}/wardroom")).send_empty().context("make a bucket")?;
    Ok(store)
}

#[expect(clippy::disallowed_methods, reason = "the store is a program of its own")]
fn azurite(dir: &Path) -> anyhow::Result<Store> {
    let (port, uri) = (free_port()?, "az://wardroom/tables");
    let url = format!("http://127.0.0.1:{port}");
    let mut run = Command::new("node");
    run.arg(server::program("CLIENT_NODE").join("node_modules/azurite/dist/src/blob/main.js"));
    run.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--inMemoryPersistence"]);
    run.args(["--skipApiVersionCheck", "--disableTelemetry", "--silent"]);
    let program = Some(logged(run, &dir.join("azurite.log"))?);
    let endpoint = format!("{url}/{ACCOUNT}");
    let more = [
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
        ("AZURE_STORAGE_ACCOUNT_KEY", KEY),
        ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
        ("AZURE_ALLOW_HTTP", "true"),
        // It does not know every parameter of a listing that Azure knows, and clients that are told so do without.
        (EMULATED, "true"),
        ("AZURITE_BLOB_STORAGE_URL", url.as_str()),
    ];
    let environment = environment(uri, &more);
    let store = Store { name: "az-azurite", uri, environment, bucket: None, program };
    wait(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    let made = python().args(["-c", include_str!("stores.py")]).args([&url, "wardroom", ACCOUNT, KEY]).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr).trim());
    Ok(store)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn logged(mut program: Command, log: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(log)?;
    Ok(program.stdout(log.try_clone()?).stderr(log).spawn()?)
}

fn wait(up: impl Fn() -> bool) -> anyhow::Result<()> {
    let started = Instant::now();
    while !up() {
        ensure!(started.elapsed() < UP, "the store is not up after {UP:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
