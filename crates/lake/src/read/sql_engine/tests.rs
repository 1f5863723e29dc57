mod limits;

use wardroom_domain::{Deployment, Entity, EntityKind, Labels, LogEntry, Sample, Severity, Timestamp};

use super::*;
use crate::config::{Config, QueryConfig};
use crate::lake::Lake;
use crate::read::sql_engine::{OutputFormat, QueryEngine, QueryError};
use crate::write::event_batch::{EventBatch, LogLine, RequestOrigin};
use crate::write::flush::{Flush, NewSeries};

const START_MS: i64 = 1_795_255_038_000;

/// Two tenants, each with a series of ten samples, a log line and a deployment.
async fn lake(folder: &tempfile::TempDir) -> Arc<Lake> {
    let lake = Arc::new(Lake::open(&Config::default(), folder.path()).await.unwrap());
    let (mut flush, mut new) = (Flush::new(9), Vec::new());
    let mut events = EventBatch::new(lake.committed_event_offsets().await.unwrap());
    for (offset, tenant) in ["main", "other"].into_iter().enumerate() {
        let tenant = TenantId::new(tenant).unwrap();
        let samples: Vec<_> = (0..10)
            .map(|step| Sample {
                ts_ms: START_MS + step * 15_000,
                value: if step == 3 { f64::NAN } else { step as f64 / 10.0 },
            })
            .collect();
        flush.push(&tenant, 1, &samples).unwrap();
        let labels = Labels::of(&[("__name__", "up"), ("of", tenant.as_str()), ("validator_id", "v1")]);
        let entity = Entity::named(EntityKind::Instance, "a:1");
        new.push(NewSeries { tenant: tenant.clone(), id: 1, labels, entity, first_ms: START_MS });
        let at = Timestamp::from_millis(START_MS);
        let from = RequestOrigin::new(tenant.clone(), offset as u64, at, None);
        let message = format!("secret of {tenant}");
        let (service, labels) = (String::from("web"), Labels::default());
        let log = LogEntry { at, severity: Severity::High, message, service: service.clone(), labels: labels.clone() };
        events
            .add_log(
                &from,
                0,
                &LogLine { log: &log, entity: &Entity::service("web"), template: "secret", parameters: &[] },
            )
            .unwrap();
        let deployment = Deployment { at, service, version: "1".into(), status: "success".into(), metadata: labels };
        events.add_deployment(&from, 0, &deployment).unwrap();
    }
    let now = Timestamp::from_millis(START_MS + 200_000);
    lake.flush(flush, &new, now).await.unwrap();
    lake.commit_events(&events.finish(9, now).unwrap()).await.unwrap();
    lake
}

async fn query(queries: &QueryEngine, text: &str) -> Result<serde_json::Value, QueryError> {
    let result = queries.run_sql(&TenantId::main(), text, OutputFormat::Json).await?;
    Ok(serde_json::from_slice(&result).unwrap())
}

#[tokio::test]
async fn runs_queries_in_all_formats() {
    let folder = tempfile::tempdir().unwrap();
    let queries = QueryEngine::new(lake(&folder).await, QueryConfig::default()).unwrap();
    for (text, expected) in [
        ("SELECT count(*) AS n FROM samples", serde_json::json!([{ "n": 10 }])),
        (
            "SELECT message FROM silver.logs WHERE severity = 'high'",
            serde_json::json!([{ "message": "secret of main" }]),
        ),
        (
            "SELECT value, labels['of'] AS of, validator_id, src_uri FROM metrics WHERE metric_name = 'up' \
             ORDER BY \"timestamp\" LIMIT 3 OFFSET 6",
            serde_json::json!([6, 7, 8].map(|step| serde_json::json!({
                "value": f64::from(step) / 10.0, "of": "main", "validator_id": "v1", "src_uri": "bus://telemetry/0/9"
            }))),
        ),
        ("SELECT 1 AS one WHERE false", serde_json::json!([])),
    ] {
        assert_eq!(query(&queries, text).await.unwrap(), expected, "{text}");
    }
    let text = "SELECT service, version FROM deployments";
    let main = TenantId::main();
    let csv = queries.run_sql(&main, text, OutputFormat::Csv).await.unwrap();
    assert_eq!(String::from_utf8(csv).unwrap(), "service,version\nweb,1\n");
    let nested = queries.run_sql(&main, "SELECT labels, parameters FROM logs", OutputFormat::Csv).await.unwrap();
    assert_eq!(String::from_utf8(nested).unwrap(), "labels,parameters\n{},[]\n");
    let pretty = String::from_utf8(queries.run_sql(&main, text, OutputFormat::Pretty).await.unwrap()).unwrap();
    assert!(pretty.contains("| web     | 1       |"), "{pretty}");
    let arrow = queries.run_sql(&main, text, OutputFormat::Arrow).await.unwrap();
    let rows = ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    assert_eq!(rows.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1);
}

/// Rows from files and rows that are not flushed have texts of different Arrow types, also within maps and lists.
#[tokio::test]
async fn maps_and_lists_are_read_from_unflushed_rows_too() {
    let folder = tempfile::tempdir().unwrap();
    let queries = queries_with_unflushed_row(lake(&folder).await).await;
    for (text, expected) in [
        (
            "SELECT message, ts > now() AS later, labels['k'] AS k FROM logs WHERE service = 'web' ORDER BY ts",
            serde_json::json!([{ "message": "secret of main", "later": false, "k": null }, { "message": "pool of 17", "later": false, "k": "v" }]),
        ),
        ("SELECT message FROM logs WHERE labels['k'] = 'v'", serde_json::json!([{ "message": "pool of 17" }])),
        (
            "SELECT parameters[1] AS p, labels FROM logs ORDER BY ts DESC LIMIT 1",
            serde_json::json!([{ "p": "17", "labels": { "k": "v" } }]),
        ),
        (
            "SELECT labels['k'] AS k, count(*) AS n FROM logs GROUP BY 1 ORDER BY 1",
            serde_json::json!([{ "k": "v", "n": 1 }, { "k": null, "n": 1 }]),
        ),
    ] {
        assert_eq!(query(&queries, text).await.unwrap(), expected, "{text}");
    }
}

/// The same without any row in files, so that one side of the union is empty.
#[tokio::test]
async fn maps_and_lists_are_read_from_unflushed_rows_alone() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Arc::new(Lake::open(&Config::default(), folder.path()).await.unwrap());
    let queries = queries_with_unflushed_row(lake).await;
    for text in [
        "SELECT message, labels['k'] AS k FROM logs WHERE service = 'web'",
        "SELECT message, ts > now() AS later, labels['k'] AS k FROM logs WHERE service = 'web' AND labels['k'] = 'v'",
        "SELECT l.message, l.labels['k'] AS k, day FROM logs l",
    ] {
        let rows = query(&queries, text).await.unwrap();
        assert_eq!((&rows[0]["message"], &rows[0]["k"]), (&"pool of 17".into(), &"v".into()), "{text}");
    }
}

async fn queries_with_unflushed_row(lake: Arc<Lake>) -> QueryEngine {
    let mut events = EventBatch::new(lake.committed_event_offsets().await.unwrap());
    let at = Timestamp::from_millis(START_MS + 1000);
    let from = RequestOrigin::new(TenantId::main(), 10, at, None);
    let (message, labels) = ("pool of 17".to_owned(), Labels::of(&[("k", "v")]));
    let log = LogEntry { at, severity: Severity::High, message, service: "web".into(), labels };
    events
        .add_log(
            &from,
            0,
            &LogLine { log: &log, entity: &Entity::service("web"), template: "pool", parameters: &["17"] },
        )
        .unwrap();
    lake.publish_pending(events.pending_rows(60).unwrap()).await;
    QueryEngine::new(lake, QueryConfig::default()).unwrap()
}

/// No query returns a row of another tenant.
#[tokio::test]
async fn hides_rows_of_other_tenants() {
    let folder = tempfile::tempdir().unwrap();
    let queries = QueryEngine::new(lake(&folder).await, QueryConfig::default()).unwrap();
    for text in [
        "SELECT * FROM logs WHERE tenant = 'other' OR true",
        "SELECT * FROM logs a RIGHT JOIN logs b ON a.tenant <> b.tenant",
        "SELECT tenant, message FROM logs UNION ALL SELECT tenant, message FROM wardroom.silver.logs",
        "SELECT (SELECT max(message) FROM logs WHERE tenant = 'other') AS message, \
         (SELECT count(*) FROM metrics WHERE tenant = 'other') AS n",
        "SELECT message FROM logs WHERE true OR tenant = 'main' -- ')",
        "WITH logs AS (SELECT * FROM silver.logs) SELECT * FROM logs",
        "SELECT * FROM log_templates",
        "SELECT * FROM deployments",
        "SELECT DISTINCT tenant FROM samples",
        "SELECT * FROM series",
    ] {
        let found = query(&queries, text).await.unwrap().to_string();
        assert!(!found.contains("other"), "{text}: {found}");
    }
}

#[tokio::test]
async fn refuses_statements_that_are_not_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let queries = QueryEngine::new(lake(&folder).await, QueryConfig::default()).unwrap();
    for text in [
        "COPY samples TO '/tmp/out.parquet'",
        "CREATE EXTERNAL TABLE passwd STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO logs SELECT * FROM logs",
        "DELETE FROM logs",
        "UPDATE logs SET message = ''",
        "DROP TABLE logs",
        "SET datafusion.execution.target_partitions = 64",
        "EXPLAIN ANALYZE INSERT INTO logs SELECT * FROM logs",
        "PREPARE p AS SELECT 1",
    ] {
        let error = query(&queries, text).await.unwrap_err();
        let refused = matches!(error, QueryError::Refused(_) | QueryError::Invalid(_) | QueryError::LimitExceeded(_));
        assert!(refused, "{text}: {error:?}");
    }
    for text in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_parquet('/etc/passwd')",
        "SELECT load_file('/etc/passwd')",
        "SELECT nothing FROM nowhere",
        "SELEC",
        "",
        "SELECT 1; SELECT 2",
    ] {
        let error = query(&queries, text).await.unwrap_err();
        assert!(matches!(error, QueryError::Invalid(_)), "{text}: {error:?}");
    }
}

/// Errors are for people: no debug output, names of optimizer rules or variants, or a request to report a bug.
#[tokio::test]
async fn errors_of_queries_are_sentences() {
    let folder = tempfile::tempdir().unwrap();
    let queries = QueryEngine::new(lake(&folder).await, QueryConfig::default()).unwrap();
    for (text, expected) in [
        ("selec 1", "cannot be parsed"),
        ("SELECT 'a", "cannot be parsed"),
        ("SELECT nothing FROM logs", "there is no column nothing"),
        ("SELECT messag FROM logs", "message"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT floo(1)", "floo"),
        ("SELECT message FROM logs a, logs b", "message"),
        ("SELECT sum(message) FROM logs", "sum"),
        ("SELECT 1 + message FROM logs WHERE message = now() - 1", ""),
        ("SELECT 1/0", "division by zero"),
        ("SELECT CAST('x' AS INT)", "'x'"),
        ("SELECT regexp_like(message, '(') FROM logs", "regular expression"),
        ("SELECT message ~ '(' FROM logs", "regular expression"),
        ("CREATE TABLE t AS SELECT 1", "only queries are allowed"),
        ("SELECT * FROM logs WHERE message", ""),
        ("SELECT count(*) FROM logs GROUP BY nothing", "nothing"),
        ("SELECT message, count(*) FROM logs", "message"),
    ] {
        let error = query(&queries, text).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        for internal in [
            "caused by",
            "Optimizer rule",
            "bug report",
            "ParserError",
            "TokenizerError",
            "Syntax(",
            "Error during",
            "Internal error",
            "Arrow error",
            "SQL error",
            "Schema error",
            "\n",
            "CreateMemoryTable",
        ] {
            assert!(!error.contains(internal), "{text}: {internal:?} in {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enforces_query_limits() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder).await;
    let config = QueryConfig { memory_bytes: 16 << 20, seconds: 60, max_rows: 1000, ..QueryConfig::default() };
    let queries = QueryEngine::new(Arc::clone(&lake), config.clone()).unwrap();
    let error = query(&queries, "SELECT * FROM generate_series(1, 1001)").await.unwrap_err();
    assert!(matches!(error, QueryError::TooLarge(_)), "{error:?}");
    let wide = "SELECT repeat('x', 1000000) FROM generate_series(1, 100)";
    let error = query(&queries, wide).await.unwrap_err();
    assert!(matches!(error, QueryError::TooLarge(_)), "{error:?}");
    let large = "SELECT count(*) FROM (SELECT DISTINCT a.value, b.value \
                 FROM generate_series(1, 5000) a, generate_series(1, 5000) b)";
    let error = query(&queries, large).await.unwrap_err();
    assert!(matches!(error, QueryError::TooLarge(_)), "{error:?}");
    let small = QueryEngine::new(Arc::clone(&lake), QueryConfig { max_bytes: 1000, ..config.clone() }).unwrap();
    let error = query(&small, "SELECT value FROM generate_series(1, 500)").await.unwrap_err();
    assert!(matches!(&error, QueryError::TooLarge(detail) if detail.contains("max-bytes")), "{error:?}");
    let long = "SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 1";
    let engine_with_timeout = QueryEngine::new(lake, QueryConfig { seconds: 1, ..config }).unwrap();
    let error = query(&engine_with_timeout, long).await.unwrap_err();
    assert!(matches!(error, QueryError::Timeout(1)), "{error:?}");
    let timed_out = tokio::time::timeout(Duration::from_millis(500), query(&queries, long)).await;
    assert!(timed_out.is_err());
    let cancelled = std::time::Instant::now();
    while !queries.is_idle() && cancelled.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(queries.is_idle(), "a cancelled query ends");
    let started = std::time::Instant::now();
    assert_eq!(query(&queries, "SELECT 1 AS one").await.unwrap(), serde_json::json!([{ "one": 1 }]));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Reading a table blocks threads on others: four queries at once used to deadlock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_many_concurrent_queries() {
    let folder = tempfile::tempdir().unwrap();
    let config = QueryConfig { seconds: 20, ..QueryConfig::default() };
    let queries = Arc::new(QueryEngine::new(lake(&folder).await, config).unwrap());
    for round in 0..3 {
        let engines: Vec<_> = (0..12).map(|_| Arc::clone(&queries)).collect();
        let all = engines.into_iter().map(|queries| {
            tokio::spawn(async move { query(&queries, "SELECT severity, count(*) AS n FROM logs GROUP BY 1").await })
        });
        for result in all.collect::<Vec<_>>() {
            let result = result.await.unwrap();
            let n = result.as_ref().map(|rows| rows[0]["n"].clone());
            assert_eq!(n.unwrap(), 1, "round {round}");
        }
    }
}
