use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Deployment, LogEntry, Matcher, Severity, Span, SpanKind};

use super::*;
use crate::events::{Events, Line, Origin};
use crate::spec::{DEPLOYMENTS, LOG_TEMPLATES, LOGS, SPANS};
use crate::sql::{Form, Queries, QueryConfig};

/// A table that the reader of the bus fills.
pub(crate) fn of<'a>(lake: &'a Lake, spec: &Spec) -> &'a Mutex<Table> {
    lake.table(spec.name).unwrap()
}

pub(crate) fn run(from_ms: i64, count: i64) -> Vec<Sample> {
    (0..count).map(|at| Sample { ts_ms: from_ms + at * 15_000, value: at as f64 / 10.0 }).collect()
}

pub(crate) fn flush(offset: u64, from_ms: i64) -> Flush {
    let mut flush = Flush::new(offset);
    for series in 1..=3 {
        flush.push(&TenantId::main(), series, &run(from_ms, 10)).unwrap();
    }
    flush
}

/// A finished file that no commit names.
pub(crate) fn stray(offset: u64, from_ms: i64) -> DataFile {
    let mut lost = flush(offset, from_ms);
    lost.close().unwrap();
    lost.full.remove(0)
}

pub(crate) fn new(id: i64) -> NewSeries {
    let labels = Labels::of(&[("__name__", "up"), ("n", &id.to_string())]);
    NewSeries { tenant: TenantId::main(), id, labels, first_ms: 0 }
}

pub(crate) async fn rows(lake: &Lake) -> usize {
    lake.files().await.unwrap().iter().map(|file| file.rows as usize).sum()
}

/// Bar 5a, in one process: tried again, tried by another writer, tried with an older offset.
#[tokio::test]
async fn a_batch_lands_once_and_the_recorded_offset_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::default();
    let lake = Lake::open(&config, dir.path()).await.unwrap();
    let other = Lake::open(&config, dir.path()).await.unwrap();
    assert_eq!(lake.reached().await.unwrap(), None);
    let series: Vec<_> = (1..=3).map(new).collect();
    let now = Timestamp::from_millis(1000);
    for (writer, offset, landed) in [
        (&lake, 7, Landed::Now),
        (&lake, 7, Landed::Before),
        (&other, 7, Landed::Before),
        (&other, 3, Landed::Before),
        (&other, 9, Landed::Now),
        (&lake, 9, Landed::Before),
    ] {
        assert_eq!(writer.flush(flush(offset, offset as i64 * 1_000_000), &series, now).await.unwrap(), landed);
    }
    for lake in [&lake, &other] {
        assert_eq!((rows(lake).await, lake.reached().await.unwrap()), (60, Some(9)));
    }
    let (first, second) = tokio::join!(lake.flush(flush(11, 0), &[], now), other.flush(flush(11, 0), &[], now),);
    let landed = [first.unwrap(), second.unwrap()];
    assert!(landed.contains(&Landed::Now) && landed.contains(&Landed::Before), "{landed:?}");
    assert_eq!(rows(&lake).await, 90);
    let (highest, known) = lake.series(Some(7)).await.unwrap().remove(&TenantId::main()).unwrap();
    assert_eq!((highest, known.len()), (3, 3), "those of the batch that ends at 9");
    // One that was left behind may not go on with a batch of its own, wherever that ends.
    let late = Lake::open(&config, dir.path()).await.unwrap();
    assert_eq!(lake.flush(flush(13, 0), &[], now).await.unwrap(), Landed::Now);
    let overtaken = late.flush(flush(15, 0), &[], now).await;
    assert!(matches!(overtaken, Err(Error::Overtaken { left: Some(11), reached: Some(13), .. })), "{overtaken:?}");
    assert_eq!(late.flush(flush(12, 0), &[], now).await.unwrap(), Landed::Before, "all of it is there");
    assert!(late.flush(flush(15, 0), &[], now).await.is_err(), "and it still does not know where to go on");
    assert_eq!((rows(&lake).await, late.reached().await.unwrap()), (120, Some(13)));
    assert_eq!(late.flush(flush(15, 0), &[], now).await.unwrap(), Landed::Now);
}

#[tokio::test]
async fn samples_stand_under_their_day_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let midnight = 20_000 * 86_400_000;
    let mut flush = Flush::new(1);
    flush.push(&TenantId::main(), 1, &run(midnight - 45_000, 6)).unwrap();
    lake.flush(flush, &[new(1)], Timestamp::from_millis(midnight)).await.unwrap();
    let files = lake.files().await.unwrap();
    let mut found: Vec<_> = files.iter().map(|file| (file.day, file.rows, file.span_ms)).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [(19_999, 3, (midnight - 45_000, midnight - 15_000)), (20_000, 3, (midnight, midnight + 30_000))]
    );
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let mut all = Vec::new();
    for file in lake.files().await.unwrap() {
        all.extend(lake.rows(&file).await.unwrap().into_iter().map(|row| row.sample));
    }
    all.sort_by_key(|sample: &Sample| sample.ts_ms);
    let plain = |all: &[Sample]| all.iter().map(|sample| (sample.ts_ms, sample.value)).collect::<Vec<_>>();
    assert_eq!(plain(&all), plain(&run(midnight - 45_000, 6)));
    let named = HashMap::from([(new(1).labels, 1)]);
    assert_eq!(lake.series(None).await.unwrap(), BTreeMap::from([(TenantId::main(), (1, named))]));
}

/// What a page by page reader sees.
async fn all(lake: &Lake, query: &SeriesQuery, before: u64, most: usize) -> BTreeMap<String, Vec<(i64, f64)>> {
    let (mut found, mut from) = (BTreeMap::new(), Some(0));
    while let Some(next) = from {
        let page = lake.samples(&TenantId::main(), query, (next, before), most).await.unwrap();
        for (labels, samples) in page.series {
            let samples = samples.iter().map(|sample| (sample.ts_ms, sample.value)).collect();
            assert_eq!(found.insert(labels.to_string(), samples), None, "a series stands on one page");
        }
        from = page.next;
    }
    found
}

/// Series 1 to 6 of two names and another tenant's, flushed at random, some samples written twice, some merged: any
/// question finds what came before an offset, once, and of two with one time the later.
#[tokio::test]
async fn a_series_is_found_whole_wherever_its_samples_lie() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let (main, other) = (TenantId::main(), TenantId::new("other").unwrap());
    let named = |id: i64| Labels::of(&[("__name__", if id % 2 == 0 { "even" } else { "odd" }), ("n", &id.to_string())]);
    let mut model: BTreeMap<(String, i64), Vec<(u64, f64)>> = BTreeMap::new();
    for flush_at in 1..=40_u64 {
        let (mut flush, mut new) = (Flush::new(flush_at * 10), Vec::new());
        for tenant in [&main, &other] {
            for id in 1..=6 {
                // Each skips some batches; every third batch comes again, late, with other values.
                if (flush_at + id as u64).is_multiple_of(4) {
                    continue;
                }
                let start = if flush_at.is_multiple_of(3) { flush_at - 2 } else { flush_at } as i64 * 600_000;
                let run: Vec<_> = (0..10)
                    .map(|at| Sample { ts_ms: start + at * 60_000, value: (flush_at * 100 + id as u64) as f64 + 0.5 })
                    .collect();
                flush.push(tenant, id, &run).unwrap();
                if tenant == &main {
                    for sample in &run {
                        let known = model.entry((named(id).to_string(), sample.ts_ms)).or_default();
                        known.push((flush_at * 10, sample.value));
                    }
                }
                let labels = named(id);
                let first_ms = start;
                if flush_at <= 2 {
                    new.push(NewSeries { tenant: tenant.clone(), id, labels, first_ms });
                }
            }
        }
        lake.flush(flush, &new, Timestamp::from_millis(0)).await.unwrap();
        if flush_at == 38 {
            assert!(lake.maintain(None).await.unwrap().files_in > 30, "some of it is merged");
        }
    }
    let expected = |query: &SeriesQuery, before: u64, names: &[&str]| {
        let mut found: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
        for ((labels, ts_ms), all) in &model {
            let within = (query.start.millis()..=query.end.millis()).contains(ts_ms);
            let last = all.iter().rev().find(|(offset, _)| *offset <= before);
            if let Some((_, value)) = last.filter(|_| within && names.iter().any(|name| labels.contains(name))) {
                found.entry(labels.clone()).or_default().push((*ts_ms, *value));
            }
        }
        found
    };
    let moment = |minutes: i64| Timestamp::from_millis(minutes * 60_000);
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
                SeriesQuery { selectors: selectors.clone(), start: moment(start), end: moment(end), step_ms: None };
            // Merged batches know the later of two samples only, so an earlier offset is asked for beyond them.
            for before in [400, 395] {
                for most in [1, 50, 100_000] {
                    let found = all(&lake, &query, before, most).await;
                    assert_eq!(found, expected(&query, before, names), "{names:?} {start}..{end} before {before}");
                }
            }
        }
    }
    // A copy that nobody writes shows the same, and makes no tables where there are none.
    let copy = Lake::look(&Config::default(), dir.path()).await.unwrap().unwrap();
    let query = SeriesQuery { selectors: Vec::new(), start: moment(0), end: moment(1000), step_ms: None };
    assert_eq!(all(&copy, &query, 400, 1000).await, expected(&query, 400, &["even", "odd"]));
    assert!(Lake::look(&Config::default(), &dir.path().join("nothing")).await.unwrap().is_none());
    assert!(!dir.path().join("nothing").exists());
}

fn line(offset: u64, message: &str) -> (Origin, LogEntry) {
    let at = Timestamp::from_millis(1_795_255_038_000 + offset as i64);
    let log = LogEntry {
        at,
        severity: Severity::Warning,
        message: message.into(),
        service: "web".into(),
        labels: Labels::of(&[("region", "eu")]),
    };
    (Origin::new(TenantId::main(), offset, at, Some(u64::MAX - offset)), log)
}

pub(crate) fn events(reached: Reached, offsets: std::ops::Range<u64>) -> Events {
    let mut events = Events::new(reached);
    fill(&mut events, offsets);
    events
}

fn fill(events: &mut Events, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        let (from, log) = line(offset, &format!("took {offset} ms"));
        let number = offset.to_string();
        let line = Line { log: &log, service: "web", template: "took <*> ms", parameters: &[&number] };
        events.log(&from, 0, &line).unwrap();
        let deployment = Deployment {
            at: log.at,
            service: "web".into(),
            version: number.clone(),
            status: "success".into(),
            metadata: Labels::default(),
        };
        events.deployment(&from, 0, &deployment).unwrap();
    }
}

pub(crate) async fn count(table: &Mutex<Table>) -> (usize, u64) {
    let files = table.lock().await.files().await.unwrap();
    (files.len(), files.iter().map(|file| file.rows).sum())
}

/// A crash came between the commits of two tables: the batch that is made up anew ends elsewhere.
#[tokio::test]
async fn a_table_that_is_ahead_lets_go_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let now = Timestamp::from_millis(1_795_255_040_000);
    let mut torn = events(lake.events_reached().await.unwrap(), 0..10).finish(10, now).unwrap();
    torn.files.remove("silver.deployments");
    torn.files.remove("silver.log_templates");
    lake.land(&torn).await.unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let mut events = Events::new(lake.events_reached().await.unwrap());
    // The first of the new batches ends before the table that is ahead does.
    for stretch in [0..6, 6..15] {
        let end = stretch.end;
        fill(&mut events, stretch);
        let whole = events.finish(end, now).unwrap();
        lake.land(&whole).await.unwrap();
        lake.land(&whole).await.unwrap();
    }
    assert_eq!(
        [
            count(of(&lake, &LOGS)).await.1,
            count(of(&lake, &DEPLOYMENTS)).await.1,
            count(of(&lake, &LOG_TEMPLATES)).await.1
        ],
        [15, 15, 2]
    );
    let requests = lake.requests(12, 0).await.unwrap().remove(&TenantId::main()).unwrap();
    let expected: Vec<_> = (0..12).map(|offset| (offset, u64::MAX - offset)).collect();
    assert_eq!(requests.iter().map(|request| (request.offset, request.fingerprint)).collect::<Vec<_>>(), expected);
}

/// A sender may claim that an operation began long ago: that makes no file for each day it could name.
#[tokio::test]
async fn spans_stand_under_the_day_of_their_end_and_last_no_less_than_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let (end, now) = (Timestamp::from_millis(1_795_255_038_000), Timestamp::from_millis(1_795_255_040_000));
    let mut events = Events::new(Reached::default());
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
        events.span(&Origin::new(TenantId::main(), 1, now, None), 0, &span, "web").unwrap();
    }
    lake.land(&events.finish(2, now).unwrap()).await.unwrap();
    assert_eq!(count(of(&lake, &SPANS)).await, (1, 40));
    let queries = Queries::new(Arc::new(lake), QueryConfig::default()).unwrap();
    let text = "SELECT min(duration_ns) AS least, count(DISTINCT day) AS days FROM spans";
    let found = queries.ask(&TenantId::main(), text, Form::Csv).await.unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), "least,days\n0,1\n");
}

/// Rows may be let in days after their own time, and the request they came in may be repeated all the same.
#[tokio::test]
async fn late_rows_are_recognised_when_they_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let (from, mut log) = line(1, "late");
    log.at = Timestamp::from_millis(log.at.millis() - 30 * 86_400_000);
    let mut events = Events::new(Reached::default());
    events.log(&from, 0, &Line { log: &log, service: "web", template: "late", parameters: &[] }).unwrap();
    lake.land(&events.finish(2, log.at).unwrap()).await.unwrap();
    let since = Timestamp::from_millis(1_795_255_038_000 - 86_400_000);
    let found = lake.requests(2, since.nanos() / 1000).await.unwrap();
    assert_eq!(found[&TenantId::main()].len(), 1);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The tables as the first version wrote them, before there was gold: they are read, and written on.
#[tokio::test]
async fn tables_of_the_first_version_open() {
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/lake-v1"), &dir.path().join("lake"));
    let tenant = TenantId::main();
    let query = SeriesQuery {
        selectors: vec![vec![Matcher::equal("__name__", "kept")]],
        start: Timestamp::from_millis(0),
        end: Timestamp::from_nanos(i64::MAX),
        step_ms: None,
    };
    let values = async |lake: &Lake| {
        let page = lake.samples(&tenant, &query, (0, u64::MAX), 1000).await.unwrap();
        let [(labels, samples)] = page.series.try_into().unwrap();
        assert_eq!(labels.get("job"), Some("sample"));
        samples.iter().map(|sample| sample.value).collect::<Vec<_>>()
    };
    let written = [0.1, 42.0, -3.25, 1e308, 0.0];
    let looked = Lake::look(&Config::default(), dir.path()).await.unwrap().unwrap();
    assert_eq!(values(&looked).await, written, "only looked at");
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    assert_eq!(values(&lake).await, written);
    let past = lake.past(&tenant, (query.start, query.end), u64::MAX).await.unwrap();
    let logs: Vec<_> = past.seconds.values().flat_map(|second| &second.logs).collect();
    assert_eq!((logs.len(), logs[0].message.as_str(), logs[0].severity), (1, "pool of 17 exhausted", Severity::High));
    let spans: Vec<_> = past.seconds.values().flat_map(|second| &second.spans).collect();
    assert_eq!((spans.len(), spans[0].span_id[0], spans[0].parent_id, spans[0].seconds()), (1, 1, [0; 8], 0.25));
    assert_eq!(past.seconds.values().map(|second| second.deployments.len()).sum::<usize>(), 1);
    assert_eq!(past.seconds.values().map(|second| second.samples.len()).sum::<usize>(), 5);
    let (reached, now) = (lake.reached().await.unwrap().unwrap(), Timestamp::from_millis(0));
    assert_eq!(lake.flush(flush(reached + 1, 0), &[], now).await.unwrap(), Landed::Now);
    assert!(lake.conclude(&tenant, 0, &[crate::IncidentFact::default()], now).await.unwrap(), "gold is there now");
    assert!(!lake.conclude(&tenant, 0, &[crate::IncidentFact::default()], now).await.unwrap(), "and the same already");
}
