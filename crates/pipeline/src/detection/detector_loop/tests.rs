//! Tests of the detector loop over an embedded bus.

mod missing_offsets;
mod poison_samples;

use bytes::Bytes;
use tokio::sync::mpsc;
use wardroom_bus::EmbeddedBus;
use wardroom_domain::{Envelope, Principal, Severity, Timestamp};

use super::super::detector_output::DetectorEvent;
use super::*;
use crate::poison_injection::{POISON_DISABLED, POISON_LINE};
use crate::poison_records::MAX_ATTEMPTS;

fn envelope(at: Timestamp) -> Envelope {
    Envelope {
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        protocol: "json_logs".into(),
        content_type: "application/json".into(),
        content_encoding: String::new(),
        received_at: at,
        refused: Vec::new(),
        has_events: true,
    }
}

/// A bus and the inputs of a detector loop.
struct Fixture {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    bus: Arc<dyn Bus>,
    config: Config,
    tenants: Arc<Tenants>,
    dead_letters: Arc<DeadLetters>,
    next: Arc<AtomicU64>,
}

impl Fixture {
    fn new(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(&dir.path().join("bus"), wardroom_bus::Config::default()).unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            bus: Arc::new(bus),
            tenants: Arc::new(Tenants::new(config.clone())),
            dead_letters: Arc::new(DeadLetters::open(&dir.path().join("dead")).unwrap()),
            next: Arc::default(),
            config,
            dir,
        }
    }

    fn append(&self, header: Envelope, body: Bytes) {
        self.runtime.block_on(self.bus.append(header, body)).unwrap();
    }

    /// Runs detection on a thread until the receiver is closed.
    fn start(&self, lake: Option<LakeTables>) -> (mpsc::Receiver<DetectorEvent>, std::thread::JoinHandle<()>) {
        let folder = self.dir.path().join("checkpoint");
        let available = self.bus.start_offset()..=self.bus.end_offset();
        let (checkpoints, resumed) = Checkpoints::open(&folder, &self.config, available, &self.tenants, None).unwrap();
        let (sender, events) = mpsc::channel(16);
        let detector_loop = DetectorLoop {
            budget: InflateBudget::new(1 << 20, 1 << 20),
            config: self.config.clone(),
            bus: Arc::clone(&self.bus),
            tenants: Arc::clone(&self.tenants),
            queue: Arc::default(),
            output: DetectorOutput::new(sender),
            next: Arc::clone(&self.next),
            dead_letters: Arc::clone(&self.dead_letters),
            dead_lettered: BTreeSet::new(),
            runtime: self.runtime.handle().clone(),
            checkpoints,
            resumed,
            lake,
        };
        (events, std::thread::spawn(move || detector_loop.run()))
    }
}

fn line(text: &str) -> Bytes {
    serde_json::json!({ "level": "ERROR", "message": text, "service": "a" }).to_string().into()
}

/// Bar 2b in one process: a poison record is attempted five times and dead-lettered with its reason, detection
/// continues, and a replay processes it once.
#[test]
fn dead_letters_a_record_that_panics_and_continues() {
    let fixture = Fixture::new(Config::default());
    let mut broken = envelope(clock::now());
    broken.protocol = "no_such_source".into();
    fixture.append(envelope(clock::now()), line("before"));
    fixture.append(envelope(clock::now()), line(POISON_LINE));
    fixture.append(broken, line("?"));
    fixture.append(envelope(clock::now()), line("after"));
    let (mut events, detection_thread) = fixture.start(None);
    let Fixture { runtime, bus, tenants, dead_letters, next, .. } = &fixture;
    let wait = |offset: u64| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while next.load(Ordering::Acquire) < offset {
            assert!(Instant::now() < deadline, "detection is at {}", next.load(Ordering::Acquire));
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait(4);
    let finished = clock::now().nanos();
    let found = dead_letters.list(&TenantId::main()).unwrap();
    let attempts: Vec<_> = found.iter().map(|letter| (letter.reason.offset, letter.reason.tries)).collect();
    assert_eq!(attempts, [(1, MAX_ATTEMPTS), (2, 1)]);
    let reason = &found[0].reason;
    assert!(reason.reason.contains("poison") && reason.first_try < reason.last_try, "{reason:?}");
    assert!(finished - reason.last_try.nanos() < 1_000_000_000, "detection continues within a second");
    let lines = || {
        let from = clock::now().minus(Duration::from_secs(600));
        let top = tenants.with_detectors(&TenantId::main(), |detectors| {
            detectors.engine.templates(from, clock::now(), Severity::High, |_| true)
        });
        top.iter().map(|template| (template.template.clone(), template.count)).collect::<Vec<_>>()
    };
    assert_eq!(lines(), [("after".to_owned(), 1), ("before".to_owned(), 1)]);
    POISON_DISABLED.store(true, Ordering::Release);
    for _ in 0..2 {
        let replayed_as = runtime.block_on(dead_letters.replay(bus, &TenantId::main(), found[0].id)).unwrap();
        assert_eq!(replayed_as, Some(4));
    }
    wait(5);
    assert_eq!(lines().iter().filter(|(line, count)| line == POISON_LINE && *count == 1).count(), 1, "{:?}", lines());
    assert_eq!(poison_records::dead_lettered_offsets(dead_letters).unwrap(), BTreeSet::from([1, 2]));
    events.close();
    detection_thread.join().unwrap();
}
