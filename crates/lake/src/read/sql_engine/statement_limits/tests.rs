use deltalake_core::datafusion::prelude::SessionContext;

use super::super::statement_text::{MAX_REPARSED, MAX_STATEMENT_BYTES, REPARSED_WORDS, check_text};
use super::*;

/// Checks a statement as the engine does: its text, then the parsed statement.
fn check(text: &str) -> Result<(), String> {
    check_text(text)?;
    let state = SessionContext::new().state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(text, &dialect).map_err(|error| format!("not parsed: {error}"))?;
    check_statement(&statement)
}

#[track_caller]
fn refused(text: &str, reason: &str) {
    let error = check(text).expect_err(text.get(..80).unwrap_or(text));
    assert!(error.contains(reason), "{error}, expected {reason}");
}

#[test]
fn ordinary_statements_are_within_the_limits() {
    let any = |count: usize| (0..count).map(|n| format!("service = 's{n}'")).collect::<Vec<_>>().join(" OR ");
    for text in [
        "SELECT 1".to_owned(),
        "SELECT service, count(*) AS n FROM logs WHERE severity = 'high' GROUP BY service ORDER BY n DESC LIMIT 10".into(),
        format!("SELECT * FROM logs WHERE {}", any(100)),
        format!("SELECT * FROM logs WHERE service IN ({})", vec!["'s'"; 2000].join(",")),
        format!("SELECT {} FROM samples", vec!["value + 1 AS v"; 500].join(",")),
        "WITH base AS (SELECT service, CASE WHEN severity = 'high' THEN 1 ELSE 0 END AS bad FROM logs), \
         sums AS (SELECT service, sum(bad) AS bad, count(*) AS n FROM base GROUP BY service), \
         rates AS (SELECT service, bad * 1.0 / n AS rate FROM sums) \
         SELECT a.service, a.rate, b.rate FROM rates a JOIN rates b ON a.service = b.service"
            .into(),
        "SELECT avg(value) OVER (PARTITION BY series_id ORDER BY ts ROWS BETWEEN 5 PRECEDING AND CURRENT ROW) FROM samples"
            .into(),
        "SELECT count(*) FROM logs WHERE message ~ 'time(d )?out' AND regexp_like(message, '[0-9]+ms')".into(),
        "SELECT approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns), approx_percentile_cont(duration_ns, 0.5) \
         FROM spans"
            .into(),
        "SELECT \"offset\", \"end\", a.b, labels['k']['l'] FROM silver.samples -- OR OR OR".into(),
        "EXPLAIN SELECT count(*) FROM logs".into(),
        "SHOW TABLES".into(),
        "DESCRIBE logs".into(),
    ] {
        assert_eq!(check(&text), Ok(()), "{text}");
    }
}

/// Each statement is short for what planning it would cost, or overflowed the stack.
#[test]
fn deep_statements_are_refused_before_they_are_parsed() {
    let repeated = |start: &str, part: &str, times: usize, end: &str| format!("{start}{}{end}", part.repeat(times));
    for text in [
        repeated("SELECT ", "1+", 247, "1"),
        repeated("SELECT ", "'x' || ", 1500, "'x'"),
        repeated("SELECT 1 WHERE true", " OR 1=2", 600, ""),
        repeated("SELECT 1 WHERE true", " AND 'a' LIKE 'b'", 600, ""),
        repeated("SELECT ", "NOT ", 1000, "true"),
        repeated("SELECT ", "- ", 1000, "1"),
        repeated("SELECT 1", " IS NOT NULL", 1000, ""),
        repeated("SELECT 1", "::int", 1000, ""),
        repeated("SELECT a", "[1]", 1000, ""),
        repeated("SELECT ", "(", 1000, "1"),
        repeated("SELECT ", "CASE WHEN true THEN ", 500, "1"),
        repeated("SELECT n FROM ", "(SELECT n FROM ", 300, "(SELECT 1 AS n)"),
        repeated("SELECT ", "abs(", 300, "1"),
        repeated("SELECT CAST(1 AS ", "ARRAY<", 300, "INT)"),
        repeated("", "EXPLAIN ", 300, "SELECT 1"),
        repeated("SELECT ", "[", 300, "1"),
        repeated("SELECT 1", " AT TIME ZONE 'UTC'", 300, ""),
    ] {
        let error = check_text(&text).expect_err(text.get(..60).unwrap_or(&text));
        assert!(error.contains("at most"), "{error}");
    }
}

/// The parser takes twice as long with each of these around an error, or longer.
#[test]
fn parsing_takes_no_exponential_time() {
    let words =
        REPARSED_WORDS.iter().chain(["ANY", "DATE", "ROW", "TABLE", "UNNEST", "XML", "f", "x IN", "x ="].iter());
    let started = std::time::Instant::now();
    for word in words {
        for (open, end) in [("(", " ?"), (" (", ")"), ("[", ""), (" (1 + ", " ?"), (" (SELECT ", " ?"), (" ", " ?")] {
            for times in [MAX_REPARSED, 17, 30, 45] {
                drop(check(&format!("SELECT {}1{end}", format!("{word}{open}").repeat(times))));
            }
        }
    }
    for open in ["(", "[", "{", "-(", "NOT NOT (", "CASE WHEN ", "CASE (", "(1, (", "x -> (", "(SELECT (", "x[1:("] {
        drop(check(&format!("SELECT {}1 ?", open.repeat(17))));
        drop(check(&format!("SELECT * FROM {}1 ?", open.repeat(40))));
    }
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    refused(&format!("SELECT {}'x' FROM 1", "POSITION(".repeat(9)), "nests 9 of NOT");
    let allowed = "SELECT NOT (NOT (CAST(SUBSTRING(message FROM 1) AS INT) = 1)), CASE WHEN NOT (NOT (1 = 1)) THEN 1 END FROM logs \
                   WHERE service IS NOT NULL AND NOT (service LIKE 'a') AND NOT (service LIKE 'b') AND message IS NOT NULL";
    assert_eq!(check(allowed), Ok(()));
}

/// Keywords used as names make the estimate from the tokens too small; the syntax tree is checked as well.
#[test]
fn keywords_as_names_do_not_hide_the_depth() {
    for word in ["offset", "\"end\"", "window", "values", "qualify", "limit"] {
        for text in [
            format!("SELECT {}1", format!("{word} + ").repeat(1000)),
            format!("SELECT {}1", format!("1 + {word} + ").repeat(500)),
        ] {
            assert!(check(&text).is_err(), "{word}");
        }
    }
}

#[test]
fn sizes_are_limited() {
    refused(&format!("SELECT '{}'", "x".repeat(MAX_STATEMENT_BYTES)), "bytes");
    refused(&format!("SELECT '{}'", "x".repeat(20_000)), "20000 bytes");
    refused(&format!("SELECT 1 WHERE 1 IN ({}1)", "1,".repeat(20_000)), "words, values and operators");
    refused(&vec!["SELECT 1"; 500].join(" UNION ALL "), "UNION");
    refused(&format!("SELECT 1 FROM {}logs", "logs, ".repeat(40)), "reads 33 tables");
    let ctes: Vec<_> = (0..147).map(|n| format!("c{n} AS (SELECT 1 AS x)")).collect();
    refused(&format!("WITH {} SELECT 1", ctes.join(",")), "common table expressions");
    refused("WITH RECURSIVE c AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM c) SELECT * FROM c", "RECURSIVE");
    refused("SELECT count(*) FROM logs GROUP BY CUBE(a, b, c, d, e, f, g)", "grouping sets");
    refused("SELECT count(*) FROM logs GROUP BY CUBE(a, b, c, d), CUBE(e, f, g)", "grouping sets");
    refused("EXPLAIN ANALYZE SELECT 1", "ANALYZE");
}

/// A common table expression costs as often as it is used, also through others.
#[test]
fn inlining_is_counted() {
    let chain = |count: usize, step: &str| {
        let steps = (1..count).map(|n| format!("c{n} AS ({})", step.replace("PREVIOUS", &format!("c{}", n - 1))));
        let steps: Vec<_> = steps.collect();
        format!("WITH c0 AS (SELECT service AS s FROM logs), {} SELECT s FROM c{}", steps.join(", "), count - 1)
    };
    assert_eq!(check(&chain(30, "SELECT s FROM PREVIOUS")), Ok(()));
    refused(&chain(7, "SELECT a.s FROM PREVIOUS a, PREVIOUS b"), "tables");
    refused(&chain(20, "SELECT s || s AS s FROM PREVIOUS"), "references to columns");
    refused(
        &chain(30, &format!("SELECT {}s AS s FROM PREVIOUS", "1 + ".repeat(20))),
        "levels once subqueries are inlined",
    );
    let nested = (0..20)
        .fold("SELECT service AS s FROM logs".to_owned(), |inner, _| format!("SELECT s || s AS s FROM ({inner})"));
    refused(&nested, "references to columns");
    // The inner definition hides the outer one.
    let hidden = "WITH c AS (SELECT 1 AS x) SELECT * FROM (WITH c AS (SELECT * FROM logs, logs a) SELECT * FROM c), c";
    assert_eq!(check(hidden), Ok(()));
}

#[test]
fn patterns_and_arguments_are_checked() {
    for text in [
        "SELECT count(*) FROM logs WHERE message ~ service",
        "SELECT count(*) FROM logs WHERE message !~* (service || '.*')",
        "SELECT count(*) FROM logs WHERE message SIMILAR TO service",
        "SELECT regexp_replace(message, service, 'x') FROM logs",
        "SELECT regexp_count(message, repeat('(a|b)', 1000)) FROM logs",
    ] {
        refused(text, "regular expression");
    }
    refused(&format!("SELECT 'a' ~ '{}'", "a".repeat(MAX_PATTERN_BYTES + 1)), "1025 bytes");
    for name in ["array_agg", "string_agg", "median", "approx_distinct"] {
        refused(&format!("SELECT {name}(message) OVER (ORDER BY ts) FROM logs"), "OVER clause");
    }
    refused("SELECT approx_percentile_cont(0.5, 2000000000) WITHIN GROUP (ORDER BY value) FROM samples", "centroids");
    refused("SELECT approx_percentile_cont(value, 0.5, 1000 * 1000000) FROM samples", "centroids");
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        /// Any sequence of fragments is refused or within the limits, on a small stack.
        #[test]
        fn any_text_is_checked_without_overflow(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "SELECT ", "(", ")", "[", "]", "CASE ", "WHEN ", "END ", "1", "a", "'x'", ",", " + ", " OR ", " NOT ",
                    " IS NULL ", "::int ", " FROM ", "offset ", "/* ", "*/ ", "-- \n", "\"", "$$", ";", "é", "WITH c AS ",
                ]),
                0..60,
            ),
            times in 1_usize..80,
        ) {
            if let Err(error) = check(&parts.concat().repeat(times)) {
                prop_assert!(!error.is_empty());
            }
        }
    }
}
