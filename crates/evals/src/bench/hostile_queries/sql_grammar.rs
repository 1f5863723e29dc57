//! Generates SQL of every kind that is hard on a planner or an engine, by a grammar with a seed: deep, wide, expensive,
//! malformed, and queries that are within all limits and as expensive as those allow.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Texts that are odd in one way or another.
const ODD_TEXTS: [&str; 10] = ["", "%", "_%_%_%", "é", "\u{202e}abc", "🦀🦀", "'';--", "\\", "a\u{0}b", "ﷺ"];
/// Patterns that are hard to compile or to match.
const PATTERNS: [&str; 10] = [
    "(a|aa)+$",
    "(x+x+)+y",
    ".*.*.*.*.*=.*",
    "(a{30}){30}",
    "((a{100}){100}){100}",
    "\\pL{500}",
    "[^\\n]*(a|b|c|d)[^\\n]*x$",
    "(",
    "a**",
    "(?i)ſ{50}",
];
const TABLES: [&str; 11] = [
    "logs",
    "silver.logs",
    "samples",
    "metrics",
    "spans",
    "series",
    "deployments",
    "log_templates",
    "gold.incidents",
    "bronze.telemetry",
    "information_schema.columns",
];

type Rule = fn(&mut SqlGrammar) -> String;

/// Kinds of statements, each as likely as the others.
const KINDS: [(&str, Rule); 10] = [
    ("random", SqlGrammar::random_query),
    ("deep", SqlGrammar::deep),
    ("wide", SqlGrammar::wide),
    ("functions", SqlGrammar::functions),
    ("joins", SqlGrammar::joins),
    ("common tables", SqlGrammar::common_tables),
    ("patterns", SqlGrammar::patterns),
    ("windows", SqlGrammar::windows),
    ("expensive", SqlGrammar::expensive),
    ("malformed", SqlGrammar::malformed),
];

/// Generates statements.
pub(super) struct SqlGrammar {
    random: StdRng,
}

impl SqlGrammar {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }

    /// Returns the kind of a statement and the statement.
    pub(super) fn statement(&mut self) -> (&'static str, String) {
        let (kind, rule) = KINDS[self.random.random_range(0..KINDS.len())];
        (kind, rule(self))
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.random.random_range(0..list.len())]
    }

    /// Returns a size; small ones are as likely as large ones.
    fn size(&mut self, max: usize) -> usize {
        let power = self.random.random_range(0.0..(max as f64).log2());
        power.exp2() as usize
    }

    fn joined(&mut self, count: usize, separator: &str, part: impl Fn(&mut Self, usize) -> String) -> String {
        let parts: Vec<String> = (0..count).map(|number| part(self, number)).collect();
        parts.join(separator)
    }

    fn literal(&mut self) -> String {
        let text = match self.random.random_range(0..3) {
            0 => self.pick(&ODD_TEXTS).to_owned(),
            1 => "x".repeat(self.size(2000)),
            _ => format!("request {}", self.random.random_range(0..1000)),
        };
        format!("'{}'", text.replace('\'', "''"))
    }

    fn text(&mut self, depth: usize) -> String {
        if depth == 0 {
            return match self.random.random_range(0..3) {
                0 => self.literal(),
                1 => "q.service".into(),
                _ => "q.message".into(),
            };
        }
        let inner = self.text(depth - 1);
        match self.random.random_range(0..14) {
            0 => format!("{inner} || {}", self.text(depth - 1)),
            1 => format!("repeat({inner}, {})", self.size(2_000_000_000)),
            2 => format!("lpad({inner}, {}, {})", self.size(1_000_000_000), self.literal()),
            3 => format!("replace({inner}, {}, {})", self.literal(), self.text(depth - 1)),
            4 => format!("regexp_replace({inner}, '{}', {}, 'g')", self.pick(&PATTERNS), self.literal()),
            5 => format!("concat({inner}, {inner}, {})", self.text(depth - 1)),
            6 => format!("array_to_string(string_to_array({inner}, 'e'), {})", self.text(depth - 1)),
            7 => format!("encode(CAST({inner} AS BYTEA), 'hex')"),
            8 => format!("CASE WHEN {} THEN {inner} ELSE {} END", self.boolean(depth - 1), self.text(depth - 1)),
            9 => format!("upper({inner})"),
            10 => format!("md5({inner})"),
            11 => format!("translate({inner}, 'abc', '🦀🦀🦀')"),
            12 => format!("CAST(({}) AS VARCHAR)", self.query(depth - 1, "max(q.message)")),
            _ => format!("substr({inner}, {})", self.number(depth - 1)),
        }
    }

    fn number(&mut self, depth: usize) -> String {
        if depth == 0 {
            return match self.random.random_range(0..3) {
                0 => self.size(1_000_000_000).to_string(),
                1 => "1e308".into(),
                _ => "character_length(q.message)".into(),
            };
        }
        let inner = self.number(depth - 1);
        match self.random.random_range(0..9) {
            0 => format!("{inner} + {}", self.number(depth - 1)),
            1 => format!("({inner}) * {}", self.number(depth - 1)),
            2 => format!("power({inner}, {})", self.number(depth - 1)),
            3 => format!("levenshtein({}, {})", self.text(depth - 1), self.text(depth - 1)),
            4 => format!("cardinality(array_repeat(1, {}))", self.size(2_000_000_000)),
            5 => format!("({})", self.query(depth - 1, "count(*)")),
            6 => format!("strpos({}, {})", self.text(depth - 1), self.text(depth - 1)),
            7 => format!("cardinality(make_array({inner}, {inner}))"),
            _ => format!("-({inner})"),
        }
    }

    fn boolean(&mut self, depth: usize) -> String {
        if depth == 0 {
            return format!("q.message LIKE '%{}%'", self.random.random_range(0..100));
        }
        match self.random.random_range(0..8) {
            0 => format!("{} AND {}", self.boolean(depth - 1), self.boolean(depth - 1)),
            1 => format!("({} OR {})", self.boolean(depth - 1), self.boolean(depth - 1)),
            2 => format!("NOT {}", self.boolean(depth - 1)),
            3 => format!("{} > {}", self.number(depth - 1), self.number(depth - 1)),
            4 => format!("{} ~ '{}'", self.text(depth - 1), self.pick(&PATTERNS)),
            5 => {
                let count = self.size(50);
                let list = self.joined(count, ",", |grammar, _| grammar.literal());
                format!("{} IN ({list})", self.text(depth - 1))
            }
            6 => format!("EXISTS ({})", self.query(depth - 1, "1")),
            _ => format!("{} ILIKE {}", self.text(depth - 1), self.literal()),
        }
    }

    fn query(&mut self, depth: usize, column: &str) -> String {
        let condition = self.boolean(depth.min(2));
        match self.random.random_range(0..4) {
            0 => format!("SELECT {column} FROM logs q WHERE {condition}"),
            1 => format!("SELECT {column} FROM logs q CROSS JOIN generate_series(1, {}) g", self.size(10_000_000)),
            2 => format!("SELECT {column} FROM (SELECT * FROM logs q WHERE {condition} LIMIT 1000) q"),
            _ => format!("SELECT {column} FROM logs q JOIN logs r ON q.service <> r.service AND {condition}"),
        }
    }

    fn random_query(&mut self) -> String {
        let (depth, columns) = (self.random.random_range(1..6), self.random.random_range(1..4));
        let list = self.joined(columns, ", ", |grammar, number| match number % 2 {
            0 => format!("{} AS t{number}", grammar.text(depth)),
            _ => format!("{} AS n{number}", grammar.number(depth)),
        });
        let query = self.query(depth, &list);
        let order = ["", " ORDER BY 1", " ORDER BY 1 DESC LIMIT 10", " LIMIT 10 OFFSET 1000000", " UNION SELECT 1, 2"];
        format!("{query}{}", self.pick(&order))
    }

    fn deep(&mut self) -> String {
        let times = self.size(4000);
        let (start, part, end) = [
            ("SELECT ", "1+", "1"),
            ("SELECT ", "'x' || ", "'x'"),
            ("SELECT count(*) FROM logs q WHERE true", " OR q.service = 'a'", ""),
            ("SELECT count(*) FROM logs q WHERE true", " AND q.message LIKE '%a%'", ""),
            ("SELECT ", "NOT ", "true"),
            ("SELECT ", "(", "1"),
            ("SELECT ", "CASE WHEN true THEN ", "1"),
            ("SELECT n FROM ", "(SELECT n FROM ", "(SELECT 1 AS n)"),
            ("SELECT ", "abs(", "1"),
            ("SELECT ", "[", "1"),
            ("SELECT 1", "::bigint", ""),
            ("SELECT 1", " IS NOT NULL", ""),
            ("", "EXPLAIN ", "SELECT 1"),
            ("SELECT 1", " UNION ALL SELECT 1", ""),
        ][self.random.random_range(0..14)];
        let close = match part {
            "(" | "abs(" => ")",
            "CASE WHEN true THEN " => " END",
            "(SELECT n FROM " => ")",
            "[" => "]",
            _ => "",
        };
        format!("{start}{}{end}{}", part.repeat(times), close.repeat(times))
    }

    fn wide(&mut self) -> String {
        let count = self.size(8000);
        match self.random.random_range(0..5) {
            0 => format!(
                "SELECT {} FROM logs q",
                self.joined(count, ", ", |_, number| format!("q.message AS c{number}"))
            ),
            1 => format!(
                "SELECT count(*) FROM logs q WHERE q.service IN ({})",
                self.joined(count, ",", |_, number| format!("'s{number}'"))
            ),
            2 => format!("VALUES {}", self.joined(count, ",", |_, number| format!("({number}, 'x')"))),
            3 => format!("SELECT count(*) FROM logs q GROUP BY CUBE({})", ["q.service"; 20].join(", ")),
            _ => format!("SELECT '{}'", "x".repeat(self.size(2_000_000))),
        }
    }

    fn functions(&mut self) -> String {
        let size = self.size(2_000_000_000);
        match self.random.random_range(0..12) {
            0 => format!("SELECT array_repeat(1, {size})"),
            1 => format!("SELECT range(0, {size})"),
            2 => format!("SELECT repeat(repeat('x', 1000), {size})"),
            3 => format!("SELECT levenshtein(repeat('a', {size}), repeat('b', {size}))"),
            4 => format!("SELECT array_agg(repeat('x', 1000000)) FROM generate_series(1, {size})"),
            5 => format!("SELECT string_agg(repeat('x', 10000), ',') FROM generate_series(1, {size})"),
            6 => format!("SELECT unnest(string_to_array(repeat('a,', {size}), ','))"),
            7 => format!("SELECT approx_percentile_cont(0.5, {size}) WITHIN GROUP (ORDER BY value) FROM samples"),
            8 => format!("SELECT arrow_cast('x', 'FixedSizeBinary({size})')"),
            9 => format!("SELECT CAST(repeat('9', {size}) AS DECIMAL(38, 10))"),
            10 => format!("SELECT to_char(now(), repeat('%c', {size}))"),
            _ => format!("SELECT {} FROM logs q", self.text(6)),
        }
    }

    fn joins(&mut self) -> String {
        let count = self.random.random_range(2..40);
        let table = self.pick(&TABLES);
        match self.random.random_range(0..3) {
            0 => format!("SELECT count(*) FROM {}", self.joined(count, ", ", |_, number| format!("{table} t{number}"))),
            1 => {
                let joins = self.joined(count, " ", |_, number| format!("NATURAL JOIN {table} t{number}"));
                format!("SELECT * FROM {table} t {joins} LIMIT 10")
            }
            _ => {
                let other = self.pick(&TABLES);
                format!("SELECT count(*) FROM {table} a FULL JOIN {other} b ON a.tenant >= b.tenant ORDER BY 1")
            }
        }
    }

    fn common_tables(&mut self) -> String {
        let count = self.random.random_range(2..60);
        let (first, step) = match self.random.random_range(0..5) {
            0 => ("SELECT 'xxxxxxxx' AS s", "SELECT s || s AS s FROM PREVIOUS"),
            1 => ("SELECT service AS s FROM logs", "SELECT a.s FROM PREVIOUS a, PREVIOUS b"),
            2 => ("SELECT service AS s FROM logs", "SELECT concat(s, s) AS s FROM PREVIOUS WHERE s <> 'x'"),
            3 => ("SELECT [1] AS s", "SELECT array_concat(s, s) AS s FROM PREVIOUS"),
            _ => ("SELECT 1 AS s", "SELECT s + s AS s FROM PREVIOUS UNION ALL SELECT s FROM PREVIOUS"),
        };
        let steps = self.joined(count, ", ", |_, number| {
            format!("c{} AS ({})", number + 1, step.replace("PREVIOUS", &format!("c{number}")))
        });
        let recursive = self.pick(&["", "", "", "RECURSIVE "]);
        format!("WITH {recursive}c0 AS ({first}), {steps} SELECT max(s) FROM c{count} WHERE s IS NOT NULL")
    }

    fn patterns(&mut self) -> String {
        let pattern = match self.random.random_range(0..3) {
            0 => self.pick(&PATTERNS).to_owned(),
            1 => "(a|b)?".repeat(self.size(1000)),
            _ => format!("(x|y){{{}}}{{{}}}", self.size(1000), self.size(1000)),
        };
        let operator = self.pick(&["~", "~*", "!~", "SIMILAR TO"]);
        match self.random.random_range(0..4) {
            0 => format!("SELECT regexp_count(q.message, q.message || '{pattern}') FROM logs q"),
            1 => format!("SELECT regexp_match(repeat('ab', {}), '{pattern}')", self.size(1_000_000)),
            2 => format!("SELECT count(*) FROM logs q WHERE q.message {operator} q.service"),
            _ => format!("SELECT count(*) FROM logs q WHERE q.message {operator} '{pattern}'"),
        }
    }

    fn windows(&mut self) -> String {
        let function = self.pick(&[
            "array_agg(s)",
            "string_agg(s, ',')",
            "median(n)",
            "sum(n)",
            "lag(s, 1000000)",
            "rank()",
            "max(s)",
            "ntile(9)",
        ]);
        let frame = self.pick(&["", "ROWS UNBOUNDED PRECEDING", "ROWS BETWEEN 100000 PRECEDING AND 100000 FOLLOWING"]);
        let rows = self.size(5_000_000);
        format!(
            "SELECT count(*) FROM (SELECT {function} OVER (ORDER BY n {frame}) AS w FROM (SELECT value AS n, \
             CAST(value AS VARCHAR) AS s FROM generate_series(1, {rows})) AS g) AS h WHERE w IS NOT NULL"
        )
    }

    /// Within all limits of a statement, and as expensive as possible.
    fn expensive(&mut self) -> String {
        let size = 1000 + self.size(5_000_000);
        match self.random.random_range(0..10) {
            0 => format!("SELECT count(*) FROM generate_series(1, {size}) a, generate_series(1, {size}) b WHERE a.value % 7 = b.value % 11"),
            1 => format!("SELECT DISTINCT a.value, b.value FROM generate_series(1, {size}) a, generate_series(1, {size}) b"),
            2 => format!("SELECT count(DISTINCT md5(CAST(value AS VARCHAR))) FROM generate_series(1, {size})"),
            3 => format!("SELECT max(repeat(q.message, {})) FROM logs q", self.size(5000)),
            4 => "SELECT count(*) FROM metrics a JOIN metrics b ON a.series_id < b.series_id AND a.value > b.value".into(),
            5 => format!("SELECT value, repeat('x', 1000) AS s FROM generate_series(1, {size}) ORDER BY md5(CAST(value AS VARCHAR))"),
            6 => format!("SELECT labels, count(*) FROM logs q CROSS JOIN generate_series(1, {size}) GROUP BY labels"),
            7 => "SELECT q.message, r.message FROM logs q JOIN logs r ON q.message < r.message ORDER BY 2, 1".into(),
            8 => format!("SELECT array_agg(value ORDER BY value DESC) FROM generate_series(1, {size})"),
            _ => "SELECT service, approx_distinct(message), median(character_length(message)), max(upper(message)) FROM logs \
                  GROUP BY GROUPING SETS ((service), (severity), (service, severity), ())"
                .into(),
        }
    }

    /// A statement with a part removed, repeated, or replaced by something else.
    fn malformed(&mut self) -> String {
        let whole: Vec<char> = self.random_query().chars().collect();
        let from = self.random.random_range(0..whole.len());
        let to = (from + self.size(50)).min(whole.len());
        let inserted = match self.random.random_range(0..8) {
            0 => String::new(),
            1 => whole[from..to].iter().collect::<String>().repeat(self.size(200)),
            2 => "/*".repeat(self.size(2000)),
            3 => "--".into(),
            4 => "\"".into(),
            5 => self.pick(&ODD_TEXTS).to_owned(),
            6 => "; DROP TABLE logs; SELECT ".into(),
            _ => self
                .pick(&["COPY logs TO '/tmp/x'", "SET datafusion.x = 1", "EXPLAIN ANALYZE", "$1", "{", "''"])
                .to_owned(),
        };
        let (start, end) = (&whole[..from], &whole[to..]);
        start.iter().copied().chain(inserted.chars()).chain(end.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_statements_of_every_kind() {
        let generate = |seed: u64| {
            let mut grammar = SqlGrammar::new(seed);
            (0..500).map(|_| grammar.statement()).collect::<Vec<_>>()
        };
        let statements = generate(1);
        assert_eq!(statements, generate(1));
        assert_ne!(statements, generate(2));
        for (kind, _) in KINDS {
            assert!(statements.iter().any(|(found, _)| *found == kind), "{kind}");
        }
    }
}
