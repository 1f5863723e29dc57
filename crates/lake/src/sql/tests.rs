use wardroom_domain::{Deployment, Labels, LogEntry, Sample, Severity, Timestamp};

use super::*;
use crate::{Config, Events, Flush, Line, NewSeries, Origin};

const START_MS: i64 = 1_795_255_038_000;

/// Two tenants, each with a series of ten samples, a log line and a deployment.
async fn lake(folder: &tempfile::TempDir) -> Arc<Lake> {
    let lake = Arc::new(Lake::open(&Config::default(), folder.path()).await.unwrap());
    let (mut flush, mut new) = (Flush::new(9), Vec::new());
    let mut events = Events::new(lake.events_reached().await.unwrap());
    for (offset, tenant) in ["main", "other"].into_iter().enumerate() {
        let tenant = TenantId::new(tenant).unwrap();
        let samples: Vec<_> = (0..10)
            .map(|at| Sample {
                ts_ms: START_MS + at * 15_000,
                value: if at == 3 { f64::NAN } else { at as f64 / 10.0 },
            })
            .collect();
        flush.push(&tenant, 1, &samples).unwrap();
        let labels = Labels::of(&[("__name__", "up"), ("of", tenant.as_str()), ("validator_id", "v1")]);
        new.push(NewSeries { tenant: tenant.clone(), id: 1, labels, first_ms: START_MS });
        let at = Timestamp::from_millis(START_MS);
        let from = Origin::new(tenant.clone(), offset as u64, at, None);
        let message = format!("secret of {tenant}");
        let (service, labels) = (String::from("web"), Labels::default());
        let log = LogEntry { at, severity: Severity::High, message, service: service.clone(), labels: labels.clone() };
        events.log(&from, 0, &Line { log: &log, service: "web", template: "secret", parameters: &[] }).unwrap();
        let deployment = Deployment { at, service, version: "1".into(), status: "success".into(), metadata: labels };
        events.deployment(&from, 0, &deployment).unwrap();
    }
    let now = Timestamp::from_millis(START_MS + 200_000);
    lake.flush(flush, &new, now).await.unwrap();
    lake.land(&events.finish(9, now).unwrap()).await.unwrap();
    lake
}

async fn ask(queries: &Queries, text: &str) -> Result<serde_json::Value, QueryError> {
    let answer = queries.ask(&TenantId::main(), text, Form::Json).await?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

#[tokio::test]
async fn questions_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let queries = Queries::new(lake(&folder).await, QueryConfig::default()).unwrap();
    for (text, expected) in [
        ("SELECT count(*) AS n FROM samples", serde_json::json!([{ "n": 10 }])),
        (
            "SELECT message FROM silver.logs WHERE severity = 'high'",
            serde_json::json!([{ "message": "secret of main" }]),
        ),
        (
            "SELECT value, labels['of'] AS of, validator_id, src_uri FROM metrics WHERE metric_name = 'up' ORDER BY \"timestamp\" LIMIT 3 OFFSET 6",
            serde_json::json!([6, 7, 8].map(|at| serde_json::json!({
                "value": f64::from(at) / 10.0, "of": "main", "validator_id": "v1", "src_uri": "bus://telemetry/0/9"
            }))),
        ),
        ("SELECT 1 AS one WHERE false", serde_json::json!([])),
    ] {
        assert_eq!(ask(&queries, text).await.unwrap(), expected, "{text}");
    }
    let text = "SELECT service, version FROM deployments";
    let main = TenantId::main();
    let csv = queries.ask(&main, text, Form::Csv).await.unwrap();
    assert_eq!(String::from_utf8(csv).unwrap(), "service,version\nweb,1\n");
    let nested = queries.ask(&main, "SELECT labels, parameters FROM logs", Form::Csv).await.unwrap();
    assert_eq!(String::from_utf8(nested).unwrap(), "labels,parameters\n{},[]\n");
    let pretty = String::from_utf8(queries.ask(&main, text, Form::Pretty).await.unwrap()).unwrap();
    assert!(pretty.contains("| web     | 1       |"), "{pretty}");
    let arrow = queries.ask(&main, text, Form::Arrow).await.unwrap();
    let rows = ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    assert_eq!(rows.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1);
}

/// Whatever is asked, no row of another tenant.
#[tokio::test]
async fn one_tenant_sees_its_own_rows() {
    let folder = tempfile::tempdir().unwrap();
    let queries = Queries::new(lake(&folder).await, QueryConfig::default()).unwrap();
    for text in [
        "SELECT * FROM logs WHERE tenant = 'other' OR true",
        "SELECT * FROM logs a RIGHT JOIN logs b ON a.tenant <> b.tenant",
        "SELECT tenant, message FROM logs UNION ALL SELECT tenant, message FROM wardroom.silver.logs",
        "SELECT (SELECT max(message) FROM logs WHERE tenant = 'other') AS message, (SELECT count(*) FROM metrics WHERE tenant = 'other') AS n",
        "SELECT message FROM logs WHERE true OR tenant = 'main' -- ')",
        "WITH logs AS (SELECT * FROM silver.logs) SELECT * FROM logs",
        "SELECT * FROM log_templates",
        "SELECT * FROM deployments",
        "SELECT DISTINCT tenant FROM samples",
        "SELECT * FROM series",
    ] {
        let found = ask(&queries, text).await.unwrap().to_string();
        assert!(!found.contains("other"), "{text}: {found}");
    }
}

#[tokio::test]
async fn what_is_more_than_a_query_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let queries = Queries::new(lake(&folder).await, QueryConfig::default()).unwrap();
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
        let error = ask(&queries, text).await.unwrap_err();
        assert!(matches!(error, QueryError::Refused(_) | QueryError::Invalid(_)), "{text}: {error:?}");
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
        let error = ask(&queries, text).await.unwrap_err();
        assert!(matches!(error, QueryError::Invalid(_)), "{text}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder).await;
    let config = QueryConfig { memory_bytes: 16 << 20, seconds: 60, max_rows: 1000, concurrent: 1 };
    let queries = Queries::new(Arc::clone(&lake), config.clone()).unwrap();
    let error = ask(&queries, "SELECT * FROM generate_series(1, 1001)").await.unwrap_err();
    assert!(matches!(error, QueryError::TooLarge(_)), "{error:?}");
    let wide = "SELECT repeat('x', 1000000) FROM generate_series(1, 100)";
    let error = ask(&queries, wide).await.unwrap_err();
    assert!(matches!(error, QueryError::TooLarge(_)), "{error:?}");
    let large = "SELECT count(*) FROM (SELECT DISTINCT a.value, b.value FROM generate_series(1, 5000) a, generate_series(1, 5000) b)";
    let error = ask(&queries, large).await.unwrap_err();
    assert!(matches!(error, QueryError::TooLarge(_)), "{error:?}");
    let long = "SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 1";
    let hasty = Queries::new(lake, QueryConfig { seconds: 1, ..config }).unwrap();
    let error = ask(&hasty, long).await.unwrap_err();
    assert!(matches!(error, QueryError::TooLong(1)), "{error:?}");
    // Whoever goes away makes room: one at a time may run.
    let waiting = tokio::time::timeout(Duration::from_millis(500), ask(&queries, long)).await;
    assert!(waiting.is_err());
    let started = std::time::Instant::now();
    assert_eq!(ask(&queries, "SELECT 1 AS one").await.unwrap(), serde_json::json!([{ "one": 1 }]));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Reading a table takes threads that wait for others of their kind: four of them at once stood still for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_ask_at_the_same_time() {
    let folder = tempfile::tempdir().unwrap();
    let config = QueryConfig { seconds: 20, ..QueryConfig::default() };
    let queries = Arc::new(Queries::new(lake(&folder).await, config).unwrap());
    for round in 0..3 {
        let people: Vec<_> = (0..12).map(|_| Arc::clone(&queries)).collect();
        let all = people.into_iter().map(|queries| {
            tokio::spawn(async move { ask(&queries, "SELECT severity, count(*) AS n FROM logs GROUP BY 1").await })
        });
        for answer in all.collect::<Vec<_>>() {
            let answer = answer.await.unwrap();
            let n = answer.as_ref().map(|rows| rows[0]["n"].clone());
            assert_eq!(n.unwrap(), 1, "round {round}");
        }
    }
}
