//! Statements at and beyond the limits, run as a whole.

use super::*;

fn config() -> QueryConfig {
    QueryConfig { seconds: 60, ..QueryConfig::default() }
}

/// Planning and running statements at the limits does not overflow the stack of a query thread.
#[tokio::test]
async fn statements_at_the_limits_run() {
    let folder = tempfile::tempdir().unwrap();
    let queries = QueryEngine::new(lake(&folder).await, config()).unwrap();
    let any = |condition: &str, operator: &str| vec![condition; 120].join(operator);
    let additions = format!("SELECT {}1 AS n", "1 + ".repeat(120));
    assert_eq!(query(&queries, &additions).await.unwrap(), serde_json::json!([{ "n": 121 }]));
    let one = serde_json::json!([{ "n": 1 }]);
    let steps: Vec<_> =
        (1..32).map(|n| format!("c{n} AS (SELECT message FROM c{} WHERE message <> '{n}')", n - 1)).collect();
    let nested = (0..14)
        .fold("SELECT message FROM logs".to_owned(), |inner, n| format!("SELECT message FROM ({inner}) AS t{n}"));
    for text in [
        format!("SELECT count(*) AS n FROM logs WHERE {}", any("service = 'web'", " OR ")),
        format!("SELECT count(*) AS n FROM logs WHERE {}", any("message LIKE '%secret%'", " AND ")),
        format!("SELECT count(*) AS n FROM logs WHERE {}true", "NOT NOT ".repeat(4)),
        format!("SELECT count(*) AS n FROM logs WHERE service IN ({})", vec!["'web'"; 2400].join(",")),
        format!("SELECT count(*) AS n FROM logs WHERE {} <> ''", vec!["message"; 120].join(" || ")),
        format!("WITH c0 AS (SELECT message FROM logs), {} SELECT count(*) AS n FROM c31", steps.join(", ")),
        format!("SELECT count(*) AS n FROM ({nested}) AS t"),
        format!("SELECT count(*) AS n FROM (SELECT 1{}) AS t", " UNION SELECT 1".repeat(32)),
    ] {
        assert_eq!(query(&queries, &text).await.unwrap(), one, "{text}");
    }
}

#[tokio::test]
async fn statements_beyond_the_limits_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let queries = QueryEngine::new(lake(&folder).await, config()).unwrap();
    for text in [
        format!("SELECT {}1", "1+".repeat(20_000)),
        format!("SELECT {}1", "1+".repeat(247)),
        format!("SELECT count(*) FROM logs WHERE {}", vec!["message LIKE '%a%'"; 906].join(" AND ")),
        "WITH RECURSIVE c AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM c) SELECT * FROM c".into(),
        "EXPLAIN ANALYZE SELECT * FROM logs".into(),
        "SELECT count(*) FROM logs WHERE message ~ service".into(),
    ] {
        let error = query(&queries, &text).await.unwrap_err();
        assert!(matches!(error, QueryError::LimitExceeded(_)), "{error:?}");
    }
    // Functions that do not exist here.
    for text in [
        "SELECT array_repeat(1, 2000000000)",
        "SELECT levenshtein(repeat('a', 100000), repeat('b', 100000))",
        "SELECT range(0, 1000000000)",
        "SELECT arrow_cast('x', 'FixedSizeBinary(2000000000)')",
        "SELECT array_transform([1], x -> x)",
    ] {
        let error = query(&queries, text).await.unwrap_err();
        assert!(matches!(error, QueryError::Invalid(_)), "{text}: {error:?}");
    }
}

/// Memory that functions take is not counted by the pool, so each has a bound of its own.
#[tokio::test]
async fn results_of_functions_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let queries = QueryEngine::new(lake(&folder).await, config()).unwrap();
    let doubling = |first: &str, step: &str| {
        let steps: Vec<_> =
            (1..6).map(|n| format!("c{n} AS (SELECT {step} AS s FROM c{} WHERE s IS NOT NULL)", n - 1)).collect();
        format!("WITH c0 AS (SELECT {first} AS s FROM logs), {} SELECT max(cardinality(s)) FROM c5", steps.join(", "))
    };
    for text in [
        "SELECT character_length(repeat('x', 2000000000))".to_owned(),
        "SELECT max(repeat(message, 100000000)) FROM logs".into(),
        "SELECT lpad('x', 2000000000, 'y')".into(),
        "SELECT replace(repeat('x', 100000), 'x', repeat('y', 100000))".into(),
        "SELECT replace(repeat(message, 10000), '', repeat('y', 10000)) FROM logs".into(),
        "SELECT regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g')".into(),
        "SELECT array_to_string(string_to_array(repeat('a,', 100000), ','), repeat('y', 100000))".into(),
        doubling("string_to_array(repeat('a,', 300000), ',')", "array_concat(s, s)"),
        doubling("string_to_array(repeat(message, 80000), 'e')", "s || s"),
        "WITH a AS (SELECT repeat(message, 1000000) AS s FROM logs) SELECT max(s || s || s || s || s) FROM a".into(),
        "SELECT count(DISTINCT repeat(CAST(value AS VARCHAR), 100000)) FROM generate_series(1, 8000)".into(),
    ] {
        // DataFusion keeps only the text of an error in a filter that runs while a file is read.
        match query(&queries, &text).await.unwrap_err() {
            QueryError::TooLarge(_) => {}
            QueryError::Failed(detail) => assert!(detail.contains("makes more than"), "{text}: {detail}"),
            error => panic!("{text}: {error:?}"),
        }
    }
}

/// A batch whose worst case is beyond the limit is split; its actual result counts.
#[tokio::test]
async fn bounded_functions_return_what_they_did() {
    let folder = tempfile::tempdir().unwrap();
    let queries = QueryEngine::new(lake(&folder).await, config()).unwrap();
    let rows = "(SELECT repeat('a b ', 200) || CAST(value AS VARCHAR) AS s FROM generate_series(1, 20000)) AS t";
    for (column, expected) in [
        (format!("SELECT sum(character_length(replace(s, 'b', ''))) AS n FROM {rows}"), 12088894),
        (format!("SELECT count(*) AS n FROM {rows} WHERE regexp_replace(s, 'b .*$', 'x') = 'a x'"), 20_000),
    ] {
        let found = query(&queries, &column).await.unwrap();
        assert_eq!(found, serde_json::json!([{ "n": expected }]), "{column}");
    }
    for (text, expected) in [
        ("'a' || 1 || 'b'", "a1b"),
        ("concat('a', NULL, 'b')", "ab"),
        ("concat_ws('-', 'a', 'b')", "a-b"),
        ("coalesce('a' || NULL, 'null')", "null"),
        ("array_to_string([1, 2] || 3, ',')", "1,2,3"),
        ("array_to_string(0 || ([1] || [2]), ',')", "0,1,2"),
        ("array_to_string(string_to_array('a b', ' '), '+')", "a+b"),
        ("rpad('a', 3, 'é')", "aéé"),
        ("regexp_replace('foobar', '(o+)(b)', '\\2\\1')", "fbooar"),
        ("encode(CAST('ab' AS BYTEA), 'hex')", "6162"),
        ("array_to_string(regexp_match('k=v', '(k)=(v)'), ',')", "k,v"),
    ] {
        let found = query(&queries, &format!("SELECT {text} AS s")).await.unwrap();
        assert_eq!(found, serde_json::json!([{ "s": expected }]), "{text}");
    }
    // The name of a column without an alias is as before.
    let main = TenantId::main();
    let csv = queries.run_sql(&main, "SELECT service || 'x' FROM logs", OutputFormat::Csv).await.unwrap();
    let csv = String::from_utf8(csv).unwrap();
    assert!(csv.contains("||") && !csv.contains("bound_size"), "{csv}");
}

/// A result is limited as text, too.
#[tokio::test]
async fn encoded_results_are_limited() {
    let folder = tempfile::tempdir().unwrap();
    let config = QueryConfig { max_bytes: 4 << 20, ..config() };
    let queries = QueryEngine::new(lake(&folder).await, config).unwrap();
    // Nulls take a byte in memory, and a line of JSON each.
    let names: Vec<_> = (0..100).map(|n| format!("NULL AS a_column_with_a_long_name_{n}")).collect();
    let text = format!("SELECT {} FROM generate_series(1, 20000)", names.join(", "));
    let main = TenantId::main();
    for format in [OutputFormat::Json, OutputFormat::Csv] {
        let result = queries.run_sql(&main, &text, format).await;
        if format == OutputFormat::Json {
            assert!(
                matches!(&result, Err(QueryError::TooLarge(detail)) if detail.contains("in this format")),
                "{result:?}"
            );
        } else {
            assert!(result.is_ok(), "{result:?}");
        }
    }
}
