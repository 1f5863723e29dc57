//! Generates log searches and requests with selectors, by a grammar with a seed.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Values and patterns of matchers.
const VALUES: [&str; 12] = [
    "",
    ".*",
    ".+",
    "a|b|c",
    "(x|y){90}{90}",
    "((a{99}){99}){99}",
    "(a|aa)+b",
    ".*.*.*.*=.*",
    "\\\\pL{1000}",
    "\\\\Q{a}\\\\E",
    "(",
    "🦀{1000}",
];

/// Maximum length of a path; clients and servers refuse paths of 64 KiB.
const MAX_PATH_BYTES: usize = 60_000;

/// Maximum length of a form; the server refuses longer ones than 2 MiB. Of a refused body it reads 64 MiB at most, and
/// a client that sends more before it looks for an answer sees a closed connection.
const MAX_FORM_BYTES: usize = 32 << 20;

/// A request of a viewer.
pub(super) struct ReadRequest {
    /// Path with its query string.
    pub(super) path: String,
    /// Form of a POST request; `None` for GET.
    pub(super) form: Option<String>,
}

/// Generates requests.
pub(super) struct FilterGrammar {
    random: StdRng,
}

impl FilterGrammar {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.random.random_range(0..list.len())]
    }

    fn size(&mut self, max: usize) -> usize {
        self.random.random_range(0.0..(max as f64).log2()).exp2() as usize
    }

    /// Returns a log search.
    pub(super) fn log_search(&mut self) -> ReadRequest {
        let count = self.size(3000);
        let words: Vec<String> = (0..count).map(|_| encoded(&self.log_condition())).collect();
        let words = joined(&words, "%20", MAX_PATH_BYTES);
        let limit = self.pick(&["", "&limit=10000", "&limit=0", "&limit=x"]);
        let range = self.pick(&["", "&start=0", "&start=2026-01-01T00:00:00Z&end=1", "&start=-1e300"]);
        let format = self.pick(&["", "&format=csv", "&format=arrow", "&format=pretty", "&format=xml"]);
        ReadRequest { path: format!("/api/v1/logs?query={words}{limit}{range}{format}"), form: None }
    }

    fn log_condition(&mut self) -> String {
        let number = self.random.random_range(0..50);
        match self.random.random_range(0..10) {
            0 => format!("service=s{number}"),
            1 => format!("label{number}!=\"{}\"", "x y ".repeat(self.size(20))),
            2 => self.pick(&["level>=error", "level=WARN", "severity>=critical", "level>=loud", "bytes>=7"]).to_owned(),
            3 => format!("trace_id={number:x}"),
            4 => "x".repeat(self.size(5000)),
            5 => self.pick(&["\"", "\\", "=x", "🦀", "\u{202e}", "a=b=c"]).to_owned(),
            _ => format!("request{number}"),
        }
    }

    /// Returns a request with selectors or an expression.
    pub(super) fn selectors(&mut self) -> ReadRequest {
        let path = match self.random.random_range(0..5) {
            0 => "/api/v1/series",
            1 => "/api/v1/labels",
            2 => "/api/v1/label/pod/values",
            3 => "/api/v1/samples",
            _ => "/api/v1/query_exemplars",
        };
        let range =
            self.pick(&["", "&start=0", "&start=1&end=2", "&start=0&end=11&step=0.001", "&start=9999999999999"]);
        if path == "/api/v1/query_exemplars" {
            let form = format!("query={}{range}", encoded(&self.expression()));
            return ReadRequest { path: path.into(), form: Some(form) };
        }
        let count = self.size(2000);
        let selectors: Vec<String> = (0..count).map(|_| format!("match[]={}", encoded(&self.selector()))).collect();
        // Only these two take a form.
        match path {
            "/api/v1/series" | "/api/v1/labels" => {
                let form = joined(&selectors, "&", MAX_FORM_BYTES);
                ReadRequest { path: path.into(), form: Some(format!("{form}{range}")) }
            }
            _ => {
                let selectors = joined(&selectors, "&", MAX_PATH_BYTES);
                ReadRequest { path: format!("{path}?{selectors}{range}"), form: None }
            }
        }
    }

    fn selector(&mut self) -> String {
        let name = self.pick(&["http_requests_total", "queue_depth_items", "up", "", "no such", "{"]);
        let count = if self.random.random_range(0..20) == 0 { self.size(3000) } else { self.random.random_range(0..4) };
        let matchers: Vec<String> = (0..count).map(|_| self.matcher()).collect();
        format!("{name}{{{}}}", matchers.join(","))
    }

    fn matcher(&mut self) -> String {
        let label = self.pick(&["pod", "instance", "job", "namespace", "__name__", "\"k8s.pod\"", "🦀"]);
        let operator = self.pick(&["=", "!=", "=~", "!~", "=~", "=!"]);
        let value = match self.random.random_range(0..6) {
            0 => "a|".repeat(self.size(5000)),
            1 => format!("workload-{}.*", self.random.random_range(0..40)),
            _ => self.pick(&VALUES).to_owned(),
        };
        format!("{label}{operator}\"{value}\"")
    }

    fn expression(&mut self) -> String {
        let times = self.size(3000);
        let selector = self.selector();
        match self.random.random_range(0..6) {
            0 => format!("{}{selector}{}", "sum(".repeat(times), ")".repeat(times)),
            // Encoded, a character has up to three bytes.
            1 => vec![selector.as_str(); times.min(MAX_FORM_BYTES / 3 / (selector.len() + 3))].join(" + "),
            2 => format!("{}1", "-".repeat(times)),
            3 => format!("rate({selector}[{times}m]) > bool {selector}"),
            4 => format!("{}1", "1 and ".repeat(times)),
            _ => format!("histogram_quantile(0.9, sum by (le) (rate({selector}[5m:{times}s])))"),
        }
    }
}

/// Joins as many parts of a query string or a form as fit.
fn joined(parts: &[String], separator: &str, max_bytes: usize) -> String {
    let mut text = String::new();
    for part in parts {
        if text.len() + part.len() + separator.len() > max_bytes {
            break;
        }
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.push_str(part);
    }
    text
}

/// Encodes a value of a query string or a form. Texts have megabytes, and the clients share the server's processors.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => {
                out.push('%');
                let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value & 15)]);
                out.extend([digit(other >> 4), digit(other)]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_requests() {
        let generate = |seed: u64| {
            let mut grammar = FilterGrammar::new(seed);
            (0..6).map(|_| [grammar.log_search().path, grammar.selectors().path]).collect::<Vec<_>>()
        };
        assert_eq!(generate(1), generate(1));
        assert_ne!(generate(1), generate(2));
        assert_eq!(encoded("a b=\"é\""), "a%20b%3D%22%C3%A9%22");
    }
}
