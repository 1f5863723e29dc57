use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{
    Entity, EntityKind, Event, EventKind, Labels, Matcher, Sample, Severity, Span, SpanKind, TenantId, Timestamp,
};

use crate::config::{Config, QueryConfig};
use crate::error::Error;
use crate::fixtures::{
    add_events, event_batch, file_and_row_count, flush, log_entry, new_series, sample_row_count, sample_run, table_of,
};
use crate::format::table_schemas::{EVENTS, LOG_TEMPLATES, LOGS, SPANS};
use crate::lake::Lake;
use crate::read::replay_window::ReplayWindow;
use crate::read::sql_engine::{OutputFormat, QueryEngine};
use crate::table::delta_table::CommitOutcome;
use crate::write::event_batch::{CommittedOffsets, EventBatch, LogLine, RequestOrigin};
use crate::write::flush::{Flush, NewSeries};

/// Bar 5a within a process: retries, another writer, and an older offset.
#[tokio::test]
async fn commits_a_batch_once_and_never_decreases_the_offset() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::default();
    let lake = Lake::open(&config, dir.path()).await.unwrap();
    let other = Lake::open(&config, dir.path()).await.unwrap();
    assert_eq!(lake.committed_offset().await.unwrap(), None);
    let series: Vec<_> = (1..=3).map(new_series).collect();
    let now = Timestamp::from_millis(1000);
    for (writer, offset, outcome) in [
        (&lake, 7, CommitOutcome::Committed),
        (&lake, 7, CommitOutcome::AlreadyCommitted),
        (&other, 7, CommitOutcome::AlreadyCommitted),
        (&other, 3, CommitOutcome::AlreadyCommitted),
        (&other, 9, CommitOutcome::Committed),
        (&lake, 9, CommitOutcome::AlreadyCommitted),
    ] {
        assert_eq!(writer.flush(flush(offset, offset as i64 * 1_000_000), &series, now).await.unwrap(), outcome);
    }
    for lake in [&lake, &other] {
        assert_eq!((sample_row_count(lake).await, lake.committed_offset().await.unwrap()), (60, Some(9)));
    }
    let (first, second) = tokio::join!(lake.flush(flush(11, 0), &[], now), other.flush(flush(11, 0), &[], now),);
    let outcome = [first.unwrap(), second.unwrap()];
    assert!(
        outcome.contains(&CommitOutcome::Committed) && outcome.contains(&CommitOutcome::AlreadyCommitted),
        "{outcome:?}"
    );
    assert_eq!(sample_row_count(&lake).await, 90);
    let (highest, known) = lake.known_series(Some(7)).await.unwrap().remove(&TenantId::main()).unwrap();
    assert_eq!((highest, known.len()), (3, 3), "series of the batch that ends at 9");
    // A writer that was overtaken must not append another batch, whatever its offset.
    let late = Lake::open(&config, dir.path()).await.unwrap();
    assert_eq!(lake.flush(flush(13, 0), &[], now).await.unwrap(), CommitOutcome::Committed);
    let conflict = late.flush(flush(15, 0), &[], now).await;
    assert!(matches!(conflict, Err(Error::OffsetConflict { expected: Some(11), found: Some(13), .. })), "{conflict:?}");
    assert_eq!(
        late.flush(flush(12, 0), &[], now).await.unwrap(),
        CommitOutcome::AlreadyCommitted,
        "the whole batch is committed"
    );
    assert!(late.flush(flush(15, 0), &[], now).await.is_err(), "still without a reload of the position");
    assert_eq!((sample_row_count(&lake).await, late.committed_offset().await.unwrap()), (120, Some(13)));
    assert_eq!(late.flush(flush(15, 0), &[], now).await.unwrap(), CommitOutcome::Committed);
}

/// Without the label sets of its series, no query would find a sample.
#[tokio::test]
async fn samples_without_their_series_are_damage() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Timestamp::from_millis(1000));
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    lake.check_series().await.unwrap();
    let folder = dir.path().join("lake/silver/series");
    let copy = dir.path().join("older");
    copy_folder(&folder, &copy);
    let series: Vec<_> = (1..=3).map(new_series).collect();
    assert_eq!(lake.flush(flush(7, 0), &series, now).await.unwrap(), CommitOutcome::Committed);
    lake.check_series().await.unwrap();
    drop(lake);
    for is_deleted in [false, true] {
        std::fs::remove_dir_all(&folder).unwrap();
        if !is_deleted {
            copy_folder(&copy, &folder);
        }
        let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
        let error = lake.check_series().await.unwrap_err().to_string();
        assert!(error.contains("silver.series ends at series 0 of tenant main") && error.contains("up to series 3"));
    }
    std::fs::remove_dir_all(dir.path().join("lake/silver/samples")).unwrap();
    Lake::open(&Config::default(), dir.path()).await.unwrap().check_series().await.unwrap();
}

#[tokio::test]
async fn partitions_samples_by_day_and_reads_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let midnight = 20_000 * 86_400_000;
    let mut flush = Flush::new(1);
    flush.push(&TenantId::main(), 1, &sample_run(midnight - 45_000, 6)).unwrap();
    lake.flush(flush, &[new_series(1)], Timestamp::from_millis(midnight)).await.unwrap();
    let files = lake.sample_files().await.unwrap();
    let mut found: Vec<_> = files.iter().map(|file| (file.day, file.rows, file.span_ms)).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [(19_999, 3, (midnight - 45_000, midnight - 15_000)), (20_000, 3, (midnight, midnight + 30_000))]
    );
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let mut all = Vec::new();
    for file in lake.sample_files().await.unwrap() {
        all.extend(lake.sample_rows(&file).await.unwrap().into_iter().map(|row| row.sample));
    }
    all.sort_by_key(|sample: &Sample| sample.ts_ms);
    let plain = |all: &[Sample]| all.iter().map(|sample| (sample.ts_ms, sample.value)).collect::<Vec<_>>();
    assert_eq!(plain(&all), plain(&sample_run(midnight - 45_000, 6)));
    let ids_by_labels = HashMap::from([(new_series(1).labels, 1)]);
    assert_eq!(lake.known_series(None).await.unwrap(), BTreeMap::from([(TenantId::main(), (1, ids_by_labels))]));
}

/// Reads all pages.
async fn read_all_pages(
    lake: &Lake,
    query: &SeriesQuery,
    before: u64,
    max_samples: usize,
) -> BTreeMap<String, Vec<(i64, f64)>> {
    let (mut found, mut from) = (BTreeMap::new(), Some(0));
    while let Some(next) = from {
        let page = lake.read_samples(&TenantId::main(), query, (next, before), max_samples).await.unwrap();
        for (labels, samples) in page.series {
            let samples = samples.iter().map(|sample| (sample.ts_ms, sample.value)).collect();
            assert_eq!(found.insert(labels.to_string(), samples), None, "a series is on one page");
        }
        from = page.next;
    }
    found
}

/// Six series of two names and another tenant, with gaps, samples written twice, and some files merged: a query finds
/// the latest of the samples before an offset, once.
#[tokio::test]
async fn finds_all_samples_of_a_series_across_flushes_and_merges() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let (main, other) = (TenantId::main(), TenantId::new("other").unwrap());
    let labels_of =
        |id: i64| Labels::of(&[("__name__", if id % 2 == 0 { "even" } else { "odd" }), ("n", &id.to_string())]);
    let mut model: BTreeMap<(String, i64), Vec<(u64, f64)>> = BTreeMap::new();
    for flush_at in 1..=40_u64 {
        let (mut flush, mut new) = (Flush::new(flush_at * 10), Vec::new());
        for tenant in [&main, &other] {
            for id in 1..=6 {
                // Each series skips some batches. Every third batch repeats earlier times with other values.
                if (flush_at + id as u64).is_multiple_of(4) {
                    continue;
                }
                let start = if flush_at.is_multiple_of(3) { flush_at - 2 } else { flush_at } as i64 * 600_000;
                let run: Vec<_> = (0..10)
                    .map(|step| Sample {
                        ts_ms: start + step * 60_000,
                        value: (flush_at * 100 + id as u64) as f64 + 0.5,
                    })
                    .collect();
                flush.push(tenant, id, &run).unwrap();
                if tenant == &main {
                    for sample in &run {
                        let known = model.entry((labels_of(id).to_string(), sample.ts_ms)).or_default();
                        known.push((flush_at * 10, sample.value));
                    }
                }
                let labels = labels_of(id);
                let first_ms = start;
                if flush_at <= 2 {
                    new.push(NewSeries { tenant: tenant.clone(), id, labels, entity: Entity::default(), first_ms });
                }
            }
        }
        lake.flush(flush, &new, Timestamp::from_millis(0)).await.unwrap();
        if flush_at == 38 {
            assert!(lake.maintain(None).await.unwrap().files_in > 30, "some files are merged");
        }
    }
    let expected = |query: &SeriesQuery, before: u64, names: &[&str]| {
        let mut found: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
        for ((labels, ts_ms), all) in &model {
            let is_in_range = (query.start.millis()..=query.end.millis()).contains(ts_ms);
            let last = all.iter().rev().find(|(offset, _)| *offset <= before);
            if let Some((_, value)) = last.filter(|_| is_in_range && names.iter().any(|name| labels.contains(name))) {
                found.entry(labels.clone()).or_default().push((*ts_ms, *value));
            }
        }
        found
    };
    let minute = |minutes: i64| Timestamp::from_millis(minutes * 60_000);
    let selectors: [(&[&str], Vec<&str>); 4] = [
        (&["even", "odd"], vec![]),
        (&["even"], vec!["even"]),
        (&["odd\", n=\"3\"", "odd\", n=\"5\""], vec!["odd{n=~\"3|5\"}"]),
        (&["even\", n=\"2\"", "odd\", n=\"1\""], vec!["{n=\"2\"}", "odd{n=\"1\"}"]),
    ];
    for (names, selectors) in selectors {
        let selectors = selectors.iter().map(|text| Matcher::parse_selector(text).unwrap()).collect::<Vec<_>>();
        for (start, end) in [(0, 1000), (25, 25), (100, 260), (379, 381), (5000, 6000)] {
            let query =
                SeriesQuery { selectors: selectors.clone(), start: minute(start), end: minute(end), step_ms: None };
            // Merged files hold only the latest of samples at one time, so earlier offsets are queried only after the
            // merge.
            for before in [400, 395] {
                for max_samples in [1, 50, 100_000] {
                    let found = read_all_pages(&lake, &query, before, max_samples).await;
                    assert_eq!(found, expected(&query, before, names), "{names:?} {start}..{end} before {before}");
                }
            }
        }
    }
    // Read-only access finds the same, and creates no tables.
    let copy = Lake::open_read_only(&Config::default(), dir.path()).await.unwrap().unwrap();
    let query = SeriesQuery { selectors: Vec::new(), start: minute(0), end: minute(1000), step_ms: None };
    assert_eq!(read_all_pages(&copy, &query, 400, 1000).await, expected(&query, 400, &["even", "odd"]));
    assert!(Lake::open_read_only(&Config::default(), &dir.path().join("nothing")).await.unwrap().is_none());
    assert!(!dir.path().join("nothing").exists());
}

/// After a crash between the commits of two tables, the next batch ends elsewhere.
#[tokio::test]
async fn drops_rows_of_a_table_that_is_ahead_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let now = Timestamp::from_millis(1_795_255_040_000);
    let mut partial = event_batch(lake.committed_event_offsets().await.unwrap(), 0..10).finish(10, now).unwrap();
    partial.files.remove("silver.events");
    partial.files.remove("silver.log_templates");
    lake.commit_events(&partial).await.unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let mut events = EventBatch::new(lake.committed_event_offsets().await.unwrap());
    // The first new batch ends before the table that is ahead.
    for range in [0..6, 6..15] {
        let end = range.end;
        add_events(&mut events, range);
        let files = events.finish(end, now).unwrap();
        lake.commit_events(&files).await.unwrap();
        lake.commit_events(&files).await.unwrap();
    }
    assert_eq!(
        [
            file_and_row_count(table_of(&lake, &LOGS)).await.1,
            file_and_row_count(table_of(&lake, &EVENTS)).await.1,
            file_and_row_count(table_of(&lake, &LOG_TEMPLATES)).await.1
        ],
        [15, 15, 2]
    );
    let requests = lake.stored_requests(12, 0).await.unwrap().remove(&TenantId::main()).unwrap();
    let expected: Vec<_> = (0..12).map(|offset| (offset, u64::MAX - offset)).collect();
    assert_eq!(requests.iter().map(|request| (request.offset, request.fingerprint)).collect::<Vec<_>>(), expected);
}

/// A sender may claim any start time: that must not create a file per day.
#[tokio::test]
async fn partitions_spans_by_end_and_clamps_negative_durations() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let (end, now) = (Timestamp::from_millis(1_795_255_038_000), Timestamp::from_millis(1_795_255_040_000));
    let mut events = EventBatch::new(CommittedOffsets::default());
    for days in -20..20_i64 {
        let span = Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent_id: [0; 8],
            kind: SpanKind::Server,
            name: "GET /".into(),
            start: Timestamp::from_millis(end.millis() + days * 86_400_000),
            end,
            failed: false,
            labels: Labels::default(),
        };
        events
            .add_span(&RequestOrigin::new(TenantId::main(), 1, now, None), 0, &span, &Entity::service("web"))
            .unwrap();
    }
    lake.commit_events(&events.finish(2, now).unwrap()).await.unwrap();
    assert_eq!(file_and_row_count(table_of(&lake, &SPANS)).await, (1, 40));
    let queries = QueryEngine::new(Arc::new(lake), QueryConfig::default()).unwrap();
    let text = "SELECT min(duration_ns) AS least, count(DISTINCT day) AS days FROM spans";
    let found = queries.run_sql(&TenantId::main(), text, OutputFormat::Csv).await.unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), "least,days\n0,1\n");
}

/// Rows may be days older than their request, which may still be a duplicate.
#[tokio::test]
async fn finds_requests_of_late_rows() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let (from, mut log) = log_entry(1, "late");
    log.at = Timestamp::from_millis(log.at.millis() - 30 * 86_400_000);
    let mut events = EventBatch::new(CommittedOffsets::default());
    events
        .add_log(&from, 0, &LogLine { log: &log, entity: &Entity::service("web"), template: "late", parameters: &[] })
        .unwrap();
    lake.commit_events(&events.finish(2, log.at).unwrap()).await.unwrap();
    let since = Timestamp::from_millis(1_795_255_038_000 - 86_400_000);
    let found = lake.stored_requests(2, since.nanos() / 1000).await.unwrap();
    assert_eq!(found[&TenantId::main()].len(), 1);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Tables of the first version, from before the gold tables, are read and written.
#[tokio::test]
async fn opens_tables_of_the_first_version() {
    let dir = tempfile::tempdir().unwrap();
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/lake-v1"), &dir.path().join("lake"));
    let tenant = TenantId::main();
    let query = SeriesQuery {
        selectors: vec![vec![Matcher::equal("__name__", "kept")]],
        start: Timestamp::from_millis(0),
        end: Timestamp::from_nanos(i64::MAX),
        step_ms: None,
    };
    let values = async |lake: &Lake| {
        let page = lake.read_samples(&tenant, &query, (0, u64::MAX), 1000).await.unwrap();
        let [(labels, samples)] = page.series.try_into().unwrap();
        assert_eq!(labels.get("job"), Some("sample"));
        samples.iter().map(|sample| sample.value).collect::<Vec<_>>()
    };
    let written = [0.1, 42.0, -3.25, 1e308, 0.0];
    let read_only = Lake::open_read_only(&Config::default(), dir.path()).await.unwrap().unwrap();
    assert_eq!(values(&read_only).await, written, "read-only");
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    assert_eq!(values(&lake).await, written);
    let window = lake.read_replay_window(&tenant, (query.start, query.end), u64::MAX).await.unwrap();
    let logs: Vec<_> = window.seconds.values().flat_map(|second| &second.logs).collect();
    assert_eq!((logs.len(), logs[0].message.as_str(), logs[0].severity), (1, "pool of 17 exhausted", Severity::High));
    let spans: Vec<_> = window.seconds.values().flat_map(|second| &second.spans).collect();
    assert_eq!((spans.len(), spans[0].span_id[0], spans[0].parent_id, spans[0].seconds()), (1, 1, [0; 8], 0.25));
    let deployments = |window: &ReplayWindow| -> Vec<String> {
        window.seconds.values().flat_map(|second| &second.deployments).map(|found| found.version.clone()).collect()
    };
    assert_eq!(deployments(&window).len(), 1);
    assert_eq!(window.seconds.values().map(|second| second.samples.len()).sum::<usize>(), 5);
    let former = deployments(&window).remove(0);
    check_old_and_new_deployments(lake, read_only, &former).await;
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let window = lake.read_replay_window(&tenant, (query.start, query.end), u64::MAX).await.unwrap();
    assert_eq!(deployments(&window), [former.as_str(), "new"], "what was inferred is inferred again");
    let (committed, now) = (lake.committed_offset().await.unwrap().unwrap(), Timestamp::from_millis(0));
    assert_eq!(lake.flush(flush(committed + 1, 0), &[], now).await.unwrap(), CommitOutcome::Committed);
    assert!(
        lake.write_incidents(&tenant, 0, &[crate::IncidentFact::default()], now).await.unwrap(),
        "the gold tables were created"
    );
    assert!(!lake.write_incidents(&tenant, 0, &[crate::IncidentFact::default()], now).await.unwrap(), "unchanged");
}

/// Deployments of the former table and those among the events are in one view, and a batch that the former table has is
/// not written again.
async fn check_old_and_new_deployments(lake: Lake, read_only: Lake, former: &str) {
    let (tenant, text) = (TenantId::main(), "SELECT version, status, source, entity_kind FROM deployments ORDER BY ts");
    let found = async |lake: Lake| {
        let queries = QueryEngine::new(Arc::new(lake), QueryConfig::default()).unwrap();
        String::from_utf8(queries.run_sql(&tenant, text, OutputFormat::Csv).await.unwrap()).unwrap()
    };
    let old = format!("version,status,source,entity_kind\n{former},success,ingest,\n");
    let without_entity = "SELECT version FROM deployments";
    let queries = QueryEngine::new(Arc::new(read_only), QueryConfig::default()).unwrap();
    let read = queries.run_sql(&tenant, without_entity, OutputFormat::Csv).await.unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), format!("version\n{former}\n"), "a lake without events");

    let committed = lake.committed_event_offsets().await.unwrap();
    let end = committed.iter().find(|(table, _)| *table == "silver.events").unwrap().1;
    assert!(end > 0, "the events begin where the former table ends");
    let now = Timestamp::from_millis(1_900_000_000_000);
    let mut events = EventBatch::new(committed);
    for (offset, version) in [(end - 1, "repeated"), (end, "new")] {
        let deployment = wardroom_domain::Deployment {
            at: now,
            service: "web".into(),
            version: version.into(),
            status: "success".into(),
            metadata: Labels::default(),
        };
        events.add_deployment(&RequestOrigin::new(tenant.clone(), offset, now, None), 0, &deployment).unwrap();
    }
    lake.commit_events(&events.finish(end + 1, now).unwrap()).await.unwrap();
    let inferred =
        inferred_event(now.millis() + 1, EventKind::Deployment, &[("version", "3"), ("previous_version", "2")]);
    lake.append_inferred_events(&tenant, &[inferred], end, now).await.unwrap();
    let expected = format!("{old}new,success,ingest,service\n3,inferred,inferred,workload\n");
    assert_eq!(found(lake).await, expected);
}

fn inferred_event(at_ms: i64, kind: EventKind, attributes: &[(&str, &str)]) -> Event {
    let entity = Entity { namespace: "shop".into(), ..Entity::named(EntityKind::Workload, "web") };
    let (at, source) = (Timestamp::from_millis(at_ms), Event::INFERRED.to_owned());
    Event { at, entity, kind, source, attributes: Labels::of(attributes) }
}

/// The ids in the table say what is written, also after it was opened again.
#[tokio::test]
async fn inferred_events_are_found_by_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let (tenant, day_ms) = (TenantId::main(), 86_400_000);
    let events = [
        inferred_event(20_000 * day_ms, EventKind::Restart, &[("count", "1")]),
        inferred_event(20_001 * day_ms, EventKind::Setting, &[("key", "pool"), ("from", "5"), ("to", "50")]),
        inferred_event(20_002 * day_ms, EventKind::Scale, &[("from", "2"), ("to", "0")]),
    ];
    let now = Timestamp::from_millis(20_003 * day_ms);
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    lake.append_inferred_events(&tenant, &events[..2], 7, now).await.unwrap();
    lake.append_inferred_events(&tenant, &events[2..], 9, now).await.unwrap();
    lake.append_inferred_events(&TenantId::new("other").unwrap(), &events[..1], 9, now).await.unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let ids = async |days: i64| lake.inferred_event_ids(&tenant, Timestamp::from_millis(days * day_ms)).await.unwrap();
    assert_eq!(ids(0).await, events.iter().map(Event::id).collect());
    assert_eq!(ids(20_001).await, events[1..].iter().map(Event::id).collect());
    // Batches of the bus are committed independently of them.
    assert_eq!(lake.committed_event_offsets().await.unwrap().max(), 0);
    let mut batch = event_batch(lake.committed_event_offsets().await.unwrap(), 0..3);
    lake.commit_events(&batch.finish(3, now).unwrap()).await.unwrap();
    let queries = QueryEngine::new(Arc::new(lake), QueryConfig::default()).unwrap();
    let text = "SELECT kind, source, service, namespace, count(*) AS n, min(attributes['to']) AS least FROM events \
                GROUP BY 1, 2, 3, 4 ORDER BY 1";
    let found = queries.run_sql(&tenant, text, OutputFormat::Csv).await.unwrap();
    let expected = "kind,source,service,namespace,n,least\ndeployment,ingest,web,,3,\nrestart,inferred,web,shop,1,\n\
                    scale,inferred,web,shop,1,0\nsetting,inferred,web,shop,1,50\n";
    assert_eq!(String::from_utf8(found).unwrap(), expected);
}
