//! Bar 9a: every parser of bytes from outside, on a clock. Nothing panics, nothing takes longer than a second, and
//! the process stays below 512 MiB.
//!
//! Real requests and the receiver's fixtures are the corpus; proptest bends them (and shrinks what it finds), once as
//! they travel and once inside their compression. `--kills` is the seconds that each target gets.

mod ports;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine as _;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestCaseError, TestRunner};
use wardroom_bus::{DeadLetters, EmbeddedBus, decode_payload, encode_payload};
use wardroom_detect::Engine;
use wardroom_domain::{
    EntityRules, Envelope, Labels, LogEntry, Matcher, Principal, Sample, SeriesId, Severity, TenantId, Timestamp,
};
use wardroom_edge::InflateBudget;
use wardroom_head::{Recent, START};
use wardroom_knowledge::Runbook;

use crate::{Options, Tally, tell};

const NOW_MS: i64 = 1_795_255_200_000;
/// No input may take longer.
const SLOW: Duration = Duration::from_secs(1);
/// Memory of this process, in KiB.
const MOST_KIB: f64 = 512.0 * 1024.0;

/// Hands bytes to a parser.
type Run = Box<dyn Fn(&[u8]) + Send>;

/// A parser under fire.
struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    run: Run,
}

/// Runs the bar: two targets at a time, as there are cores.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let seconds = options.kills.max(1);
    let mut targets = targets()?;
    let mut tally = Tally::default();
    tell(format!("{} targets, {seconds} s each", targets.len()));
    // What panics is caught and shrunk: its words come with the result.
    std::panic::set_hook(Box::new(|_| {}));
    while !targets.is_empty() {
        let some = targets.split_off(targets.len().saturating_sub(2));
        let found = std::thread::scope(|scope| {
            let turns: Vec<_> = some
                .into_iter()
                .map(|target| scope.spawn(move || (target.name, fire(&target, Duration::from_secs(seconds)))))
                .collect();
            turns.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        for turn in found {
            let (name, (inputs, fault)) = turn.map_err(|_| anyhow::anyhow!("a target's thread panicked"))?;
            tell(format!("{name}: {inputs} inputs"));
            (tally.issued, tally.acked) = (tally.issued + inputs, tally.acked + inputs);
            tally.faults.extend(fault.map(|fault| format!("{name}: {fault}")));
        }
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        if kib > MOST_KIB {
            tally.faults.push(format!("the process took {:.0} MiB", kib / 1024.0));
        }
    }
    drop(std::panic::take_hook());
    tally.kills = seconds;
    Ok(tally)
}

/// Bends seeds until the time is up; how many inputs, and what went wrong.
fn fire(target: &Target, time: Duration) -> (u64, Option<String>) {
    let (started, mut inputs) = (Instant::now(), 0);
    let seeds = Arc::new(target.seeds.clone());
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..6, any::<u8>()), 0..12);
    let strategy = (0..seeds.len(), edits, any::<prop::sample::Index>());
    while started.elapsed() < time {
        let mut runner = TestRunner::new(Runs { cases: 200, failure_persistence: None, ..Runs::default() });
        let outcome = runner.run(&strategy, |(seed, edits, other)| {
            let bytes = bend(&seeds[seed], &edits, &seeds[other.index(seeds.len())]);
            let begun = Instant::now();
            (target.run)(&bytes);
            if begun.elapsed() > SLOW {
                return Err(TestCaseError::fail(format!("{:?} for {} bytes", begun.elapsed(), bytes.len())));
            }
            Ok(())
        });
        inputs += 200;
        if let Err(error) = outcome {
            return (inputs, Some(error.to_string()));
        }
    }
    (inputs, None)
}

type Edit = (prop::sample::Index, u8, u8, u8);

/// Turns, cuts, repeats and replaces, and takes pieces from another seed.
fn bend(seed: &[u8], edits: &[Edit], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (place, value, what, size) in edits {
        let at = place.index(bytes.len() + 1);
        let end = (at + usize::from(*size)).min(bytes.len());
        match what {
            0 => bytes.insert(at, *value),
            1 if at < bytes.len() => bytes[at] = *value,
            2 if at < bytes.len() => bytes[at] ^= 1 << (value % 8),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            _ => {
                let from = place.index(other.len() + 1);
                let piece = other[from..(from + usize::from(*size)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

fn targets() -> anyhow::Result<Vec<Target>> {
    let mut all = sources()?;
    all.extend(storage()?);
    all.extend(state()?);
    all.extend(text());
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sources/tests/it/captures/otlp");
    all.extend(ports::targets(&files(&captures, |name| name.contains("metrics") && name.ends_with(".pb"))?)?);
    Ok(all)
}

fn envelope(protocol: &str, content_type: &str, encoding: &str) -> Envelope {
    Envelope {
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        protocol: protocol.into(),
        content_type: content_type.into(),
        content_encoding: encoding.into(),
        received_at: Timestamp::from_millis(NOW_MS),
        refused: Vec::new(),
        events: true,
    }
}

/// Decodes as intake and replay do, down to every label set.
fn decode(envelope: &Envelope, body: &[u8], budget: &InflateBudget) {
    if let Ok(decoded) = wardroom_sources::replay(envelope, body, budget) {
        for (at, _) in decoded.metrics.iter() {
            keep(decoded.metrics.labels(at).is_ok());
        }
        keep(decoded.resolve(body, envelope.received_at));
    }
}

/// Every source, each also inside its compression.
fn sources() -> anyhow::Result<Vec<Target>> {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sources/tests/it/captures");
    let cases: Vec<serde_json::Value> = serde_json::from_str(include_str!("../fixtures/receiver/cases.json"))?;
    let v2: Vec<Vec<u8>> = cases
        .iter()
        .filter(|case| case["headers"]["content-type"].as_str().is_some_and(|kind| kind.contains("v2")))
        .filter_map(|case| base64::engine::general_purpose::STANDARD.decode(case["body"].as_str()?).ok())
        .filter(|body| unsnap(body).is_some())
        .collect();
    let mut all = Vec::new();
    let rw1 = files(&captures, |name| name.ends_with(".snappy.pb"))?;
    for (name, kind, seeds) in [
        ("remote_write 1.0", "application/x-protobuf", rw1),
        ("remote_write 2.0", "application/x-protobuf;proto=io.prometheus.write.v2.request", v2),
    ] {
        let (inside, envelope, budget) = (seeds.clone(), envelope("prometheus_remote_write", kind, "snappy"), budget());
        let (envelope2, budget2) = (envelope.clone(), budget.clone());
        let plain: Vec<Vec<u8>> = inside.iter().filter_map(|seed| unsnap(seed)).collect();
        let run = Box::new(move |bytes: &[u8]| decode(&envelope, bytes, &budget));
        all.push(Target { name: "snappy", seeds, run });
        let run = Box::new(move |bytes: &[u8]| {
            let body = snap::raw::Encoder::new().compress_vec(bytes).unwrap_or_default();
            decode(&envelope2, &body, &budget2);
        });
        all.push(Target { name, seeds: plain, run });
    }
    let otlp = captures.join("otlp");
    for (name, protocol, word) in [
        ("OTLP metrics", "otlp_metrics", "metrics"),
        ("OTLP logs", "otlp_logs", "logs"),
        ("OTLP traces", "otlp_traces", "traces"),
    ] {
        let packed = files(&otlp, |file| file.contains(word) && file.ends_with(".pb.gz"))?;
        let mut plain = files(&otlp, |file| file.contains(word) && file.ends_with(".pb"))?;
        plain.extend(packed.iter().filter_map(|seed| gunzip(seed)));
        all.push(source(name, protocol, "application/x-protobuf", "", plain));
        if !packed.is_empty() {
            all.push(source("gzip", protocol, "application/x-protobuf", "gzip", packed));
        }
        let mut json = files(&otlp, |file| file.contains(word) && file.ends_with(".json"))?;
        json.push(br#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a"}}]},"scopeMetrics":[{"metrics":[{"name":"d","unit":"s","histogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"1795255200000000000","count":"5","sum":2.5,"bucketCounts":["2","3"],"explicitBounds":[0.1]}]}},{"name":"g","gauge":{"dataPoints":[{"asDouble":1e308,"timeUnixNano":"1"}]}}]}]}]}"#.to_vec());
        all.push(source(
            match word {
                "metrics" => "OTLP/JSON metrics",
                "logs" => "OTLP/JSON logs",
                _ => "OTLP/JSON traces",
            },
            protocol,
            "application/json",
            "",
            json,
        ));
    }
    for (name, protocol, seed) in [
        (
            "/ingest/metrics",
            "json_metrics",
            r#"[{"timestamp":"2026-11-21T10:00:00Z","metric_name":"cpu","value":1.5e3,"labels":{"a":"\u00fc"}}]"#,
        ),
        (
            "/ingest/logs",
            "json_logs",
            r#"{"timestamp":"2026-11-21T10:00:00.123+01:00","level":"ERROR","message":"no \"room\"","service":"a","metadata":{"x":[1,{"y":null}]}}"#,
        ),
        (
            "/ingest/deployment",
            "json_deployment",
            r#"{"timestamp":"2026-11-21T10:00:00Z","service":"a","version":"1.2","status":"success","metadata":{"commit":"abc"}}"#,
        ),
    ] {
        all.push(source(name, protocol, "application/json", "", vec![seed.into()]));
    }
    Ok(all)
}

fn source(name: &'static str, protocol: &str, kind: &str, encoding: &str, seeds: Vec<Vec<u8>>) -> Target {
    let (envelope, budget) = (envelope(protocol, kind, encoding), budget());
    Target { name, seeds, run: Box::new(move |bytes| decode(&envelope, bytes, &budget)) }
}

/// What stands on disk, and may have been damaged there.
fn storage() -> anyhow::Result<Vec<Target>> {
    let dir = std::env::temp_dir().join(format!("wardroom-9a-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let bus = EmbeddedBus::open(&dir.join("seed"), wardroom_bus::Config::default())?;
    for text in ["one", "two"] {
        runtime.block_on(wardroom_bus::Bus::append(
            &bus,
            envelope("json_logs", "application/json", ""),
            text.into(),
        ))?;
    }
    drop(bus);
    let segments = files(&dir.join("seed"), |name| name.ends_with(".seg"))?;
    std::fs::remove_dir_all(&dir)?;
    let record = encode_payload(&envelope("json_logs", "application/json", "gzip"), b"a body");
    let kept = tempfile(&dir)?;
    let buried = tempfile(&dir.join("dead"))?;
    Ok(vec![
        Target { name: "bus record", seeds: vec![record], run: Box::new(|bytes| keep(decode_payload(bytes).is_ok())) },
        Target {
            name: "bus segment",
            seeds: segments.clone(),
            run: Box::new(move |bytes| {
                let path = kept.join("00000000000000000000.seg");
                if std::fs::write(path, bytes).is_ok()
                    && let Ok(bus) = wardroom_bus::ReadOnlyBus::open(&kept)
                {
                    keep(bus.read(0, 100).is_ok());
                }
            }),
        },
        Target {
            name: "dead letters",
            seeds: segments,
            run: Box::new(move |bytes| {
                let file = buried.join("00000000000000000000.seg");
                if std::fs::write(file, bytes).is_ok()
                    && let Ok(letters) = DeadLetters::open(&buried)
                {
                    keep(letters.list(&TenantId::main()).is_ok());
                }
            }),
        },
    ])
}

/// What detection writes down.
fn state() -> anyhow::Result<Vec<Target>> {
    let mut recent = Recent::new();
    for at in 0..100 {
        recent
            .push(SeriesId(at % 3), Sample { ts_ms: i64::from(at) * 1000, value: f64::from(at) / 10.0 }, &|_, _| None);
    }
    let stream = recent.pending().1.to_vec();
    let (mut saved, mut engine_saved) = (Vec::new(), Vec::new());
    recent.save(&mut saved)?;
    let labels = [Labels::of(&[("__name__", "depth"), ("service", "a")])];
    let mut engine = Engine::new(wardroom_detect::Config::default(), EntityRules::default());
    engine.add_series(&labels[0]);
    (0..50).for_each(|at| engine.observe(SeriesId(0), &[Sample { ts_ms: at * 1000, value: at as f64 }]));
    engine.save(&mut engine_saved)?;
    Ok(vec![
        Target {
            name: "checkpoint of the live series",
            seeds: vec![saved.clone()],
            run: Box::new(|bytes| {
                if let Ok((recent, _)) = Recent::load(bytes) {
                    let part = recent.part(SeriesId(0), i64::MIN, i64::MAX);
                    keep(part.whole(&|_, _| None).is_some());
                }
            }),
        },
        Target {
            name: "stream of sealed blocks",
            seeds: vec![stream],
            run: Box::new(move |bytes| {
                let Ok((mut recent, _)) = Recent::load(&saved) else { return };
                recent.flushed();
                let fetch = |at: u64, buffer: &mut [u8]| {
                    let rest = bytes.get(usize::try_from(at.checked_sub(START)?).ok()?..)?;
                    let count = rest.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&rest[..count]);
                    Some(count)
                };
                (0..3).for_each(|id| {
                    keep(recent.part(SeriesId(id), i64::MIN, i64::MAX).whole(&fetch).is_some());
                });
            }),
        },
        Target {
            name: "checkpoint of the detectors",
            seeds: vec![engine_saved],
            run: Box::new(move |bytes| {
                let rules = (wardroom_detect::Config::default(), EntityRules::default());
                keep(Engine::load(rules.0, rules.1, &labels, bytes).is_ok());
            }),
        },
    ])
}

/// What people write.
fn text() -> Vec<Target> {
    let runbooks = wardroom_knowledge::BUILTIN.iter().map(|(_, text)| text.as_bytes().to_vec()).collect();
    let selectors = [r#"up{job="node",env!~"dev|test",x=~"a.*"}"#, r#"{__name__="g", q="a\"b\n"}"#];
    let lines = [
        "cannot reach 10.0.0.1:5432 after 31.5 s: pool exhausted (id=8f3a)",
        "configuration reloaded key=a from=1 to=2",
    ];
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    vec![
        Target {
            name: "selector",
            seeds: selectors.map(|text| text.as_bytes().to_vec()).into(),
            run: Box::new(move |bytes| keep(Matcher::parse_selector(&words(bytes)).is_ok())),
        },
        Target {
            name: "timestamp",
            seeds: vec![b"2026-11-21T10:00:00.123456789+01:00".to_vec(), b"1795255200.5".to_vec()],
            run: Box::new(move |bytes| keep(Timestamp::parse(&words(bytes)).is_ok())),
        },
        Target {
            name: "log template",
            seeds: lines.map(|text| text.as_bytes().to_vec()).into(),
            run: Box::new(move |bytes| {
                let mut engine = Engine::new(wardroom_detect::Config::default(), EntityRules::default());
                let at = Timestamp::from_millis(NOW_MS);
                let (message, service) = (words(bytes), "a".to_owned());
                engine.log(&LogEntry { at, severity: Severity::High, message, service, labels: Labels::default() });
                keep(engine.templates(at, at, Severity::Info).len());
            }),
        },
        Target {
            name: "runbook",
            seeds: runbooks,
            run: Box::new(move |bytes| keep(Runbook::parse("x", &words(bytes)).is_ok())),
        },
    ]
}

/// What was made of an input is of no use here.
fn keep<T>(made: T) {
    drop(std::hint::black_box(made));
}

fn budget() -> InflateBudget {
    InflateBudget::new(64 << 20, 32 << 20)
}

fn tempfile(dir: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    Ok(dir.to_owned())
}

fn files(dir: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted) {
            found.push(std::fs::read(path)?);
        }
    }
    ensure!(!found.is_empty() || dir.ends_with("otlp"), "no seeds in {}", dir.display());
    Ok(found)
}

fn unsnap(body: &[u8]) -> Option<Vec<u8>> {
    let size = snap::raw::decompress_len(body).ok().filter(|size| *size < 32 << 20)?;
    let mut plain = vec![0; size];
    snap::raw::Decoder::new().decompress(body, &mut plain).ok().map(|_| plain)
}

fn gunzip(body: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body), &mut plain).ok().map(|_| plain)
}
