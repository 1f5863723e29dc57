//! Configuration of the traces: `tracing.*`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::ConfigProblems;

/// Wardroom's own traces.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// URL of a collector that takes OTLP over HTTP, such as `http://collector:4318`; spans are sent to `/v1/traces`
    /// below it. Default: `OTEL_EXPORTER_OTLP_ENDPOINT` of the environment, else none. Since 0.2.
    pub otlp_endpoint: Option<String>,
    /// Where the value of the header `Authorization` for the collector is: `env:NAME` or `file:PATH` (the file's first
    /// line), such as `Bearer …`. Default: none. Since 0.2.
    pub authorization: Option<String>,
    /// Share of the traces that begin here and are exported, 0 to 1; for the others the caller has decided. Default 1.
    /// Since 0.2.
    pub sample_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { otlp_endpoint: None, authorization: None, sample_ratio: 1.0 }
    }
}

impl Config {
    /// Adds what is wrong with the numbers.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.ratio("tracing.sample-ratio", self.sample_ratio);
    }
}

/// Where and how spans are exported.
#[derive(Clone)]
pub struct ExportSettings {
    /// URL of the collector, without `/v1/traces`.
    pub endpoint: String,
    /// Headers of each request, such as `Authorization`.
    pub headers: Vec<(String, String)>,
    /// The attribute `service.name`.
    pub service: &'static str,
    /// Share of the traces that begin here and are exported.
    pub sample_ratio: f64,
}

impl std::fmt::Debug for ExportSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the headers, which hold credentials.
        f.debug_struct("ExportSettings").field("service", &self.service).finish_non_exhaustive()
    }
}

impl ExportSettings {
    /// Reads the form of `OTEL_EXPORTER_OTLP_HEADERS`: `name=value,name=value`, values percent-encoded.
    pub fn parse_headers(text: &str) -> Vec<(String, String)> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            Some((name.trim().to_ascii_lowercase(), percent_decoded(value.trim())))
        };
        text.split(',').filter_map(pair).filter(|(name, _)| !name.is_empty()).collect()
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (text, expected) in [
            ("Authorization=Bearer%20wr_1", vec![pair("authorization", "Bearer wr_1")]),
            ("a=1, b = 2%", vec![pair("a", "1"), pair("b", "2%")]),
            ("x=a=b", vec![pair("x", "a=b")]),
            ("", vec![]),
            ("nothing,=x", vec![]),
        ] {
            assert_eq!(ExportSettings::parse_headers(text), expected, "{text}");
        }
    }
}
