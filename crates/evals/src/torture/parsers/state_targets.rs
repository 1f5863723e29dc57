//! Fuzz targets: files on disk, which may be damaged.

use wardroom_bus::{DeadLetters, EmbeddedBus, decode_payload, encode_payload};
use wardroom_detect::Engine;
use wardroom_domain::{Labels, Sample, SeriesId, TenantId};
use wardroom_head::{RecentSamples, STREAM_START};
use wardroom_signals::Catalog;

use super::fuzz_target::{FuzzTarget, discard, envelope, read_files};

/// Returns the targets for files of the bus.
pub(super) fn storage_targets() -> anyhow::Result<Vec<FuzzTarget>> {
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
    let segments = read_files(&dir.join("seed"), |name| name.ends_with(".seg"))?;
    std::fs::remove_dir_all(&dir)?;
    let record = encode_payload(&envelope("json_logs", "application/json", "gzip"), b"a body");
    let bus_dir = dir.join("bus");
    let dead_letter_dir = dir.join("dead");
    std::fs::create_dir_all(&bus_dir)?;
    std::fs::create_dir_all(&dead_letter_dir)?;
    Ok(vec![
        FuzzTarget {
            name: "bus record",
            seeds: vec![record],
            parse: Box::new(|bytes| discard(decode_payload(bytes).is_ok())),
        },
        FuzzTarget {
            name: "bus segment",
            seeds: segments.clone(),
            parse: Box::new(move |bytes| {
                let path = bus_dir.join("00000000000000000000.seg");
                if std::fs::write(path, bytes).is_ok()
                    && let Ok(bus) = wardroom_bus::ReadOnlyBus::open(&bus_dir)
                {
                    discard(bus.read(0, 100).is_ok());
                }
            }),
        },
        FuzzTarget {
            name: "dead letters",
            seeds: segments,
            parse: Box::new(move |bytes| {
                let file = dead_letter_dir.join("00000000000000000000.seg");
                if std::fs::write(file, bytes).is_ok()
                    && let Ok(letters) = DeadLetters::open(&dead_letter_dir)
                {
                    discard(letters.list(&TenantId::main()).is_ok());
                }
            }),
        },
    ])
}

/// Returns the targets for checkpoints.
pub(super) fn checkpoint_targets() -> anyhow::Result<Vec<FuzzTarget>> {
    let mut recent = RecentSamples::new();
    for step in 0..100 {
        let sample = Sample { ts_ms: i64::from(step) * 1000, value: f64::from(step) / 10.0 };
        recent.push(SeriesId(step % 3), sample, &|_, _| None);
    }
    let stream = recent.unpersisted_blocks().1.to_vec();
    let (mut saved, mut engine_saved) = (Vec::new(), Vec::new());
    recent.save(&mut saved)?;
    let labels = [Labels::of(&[("__name__", "depth"), ("service", "a")])];
    let mut engine = Engine::new(wardroom_detect::Config::default(), Catalog::builtin());
    engine.add_series(&labels[0], None);
    (0..50).for_each(|step| engine.observe(SeriesId(0), &[Sample { ts_ms: step * 1000, value: step as f64 }]));
    engine.save(&mut engine_saved)?;
    Ok(vec![
        FuzzTarget {
            name: "checkpoint of the live series",
            seeds: vec![saved.clone()],
            parse: Box::new(|bytes| {
                if let Ok((recent, _)) = RecentSamples::load(bytes) {
                    let samples = recent.range(SeriesId(0), i64::MIN, i64::MAX);
                    discard(samples.read_all(&|_, _| None).is_some());
                }
            }),
        },
        FuzzTarget {
            name: "stream of sealed blocks",
            seeds: vec![stream],
            parse: Box::new(move |bytes| {
                let Ok((mut recent, _)) = RecentSamples::load(&saved) else { return };
                recent.mark_persisted();
                let fetch = |position: u64, buffer: &mut [u8]| {
                    let available = bytes.get(usize::try_from(position.checked_sub(STREAM_START)?).ok()?..)?;
                    let count = available.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&available[..count]);
                    Some(count)
                };
                (0..3).for_each(|id| {
                    discard(recent.range(SeriesId(id), i64::MIN, i64::MAX).read_all(&fetch).is_some());
                });
            }),
        },
        FuzzTarget {
            name: "checkpoint of the detectors",
            seeds: vec![engine_saved],
            parse: Box::new(move |bytes| {
                let (config, catalog) = (wardroom_detect::Config::default(), Catalog::builtin());
                discard(Engine::load(config, catalog, &labels, bytes).is_ok());
            }),
        },
    ])
}
