//! OpenTelemetry's names in Prometheus' spelling: escaped with underscores, unit and kind as suffixes.
//!
//! The rules are those of Prometheus' own OTLP receiver (its default, `UnderscoreEscapingWithSuffixes`):
//! <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>.

/// What the name of a metric depends on besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    /// A sum that only grows, counted since the sender's start.
    Counter,
    /// Any other sum, histogram or summary.
    Other,
}

/// The metric's name: `http.server.duration` in `ms` becomes `http_server_duration_milliseconds`.
pub(super) fn metric(name: &str, unit: &str, kind: Kind) -> String {
    let mut tokens: Vec<&str> =
        name.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':')).filter(|token| !token.is_empty()).collect();
    let (main, per) = unit.split_once('/').map_or((unit, None), |(main, per)| (main, Some(per)));
    let main = unit_name(main.trim());
    let per = per.map(|per| per_unit(per.trim())).filter(|per| !per.is_empty());
    if !main.is_empty() && !tokens.contains(&main) {
        tokens.push(main);
    }
    if let Some(per) = per.filter(|per| !tokens.contains(per)) {
        tokens.extend(["per", per]);
    }
    let suffix = match kind {
        Kind::Counter => Some("total"),
        Kind::Gauge if unit == "1" => Some("ratio"),
        Kind::Gauge | Kind::Other => None,
    };
    if let Some(suffix) = suffix {
        tokens.retain(|token| *token != suffix);
        tokens.push(suffix);
    }
    let mut joined = tokens.join("_");
    if joined.starts_with(|c: char| c.is_ascii_digit()) {
        joined.insert(0, '_');
    }
    joined
}

/// A label's name: `http.route` becomes `http_route`.
pub(super) fn label(key: &str) -> String {
    let escaped: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match escaped.as_bytes() {
        [b'0'..=b'9', ..] => format!("key_{escaped}"),
        // Two underscores before a name are Prometheus' own.
        [b'_', b'_', ..] => escaped,
        [b'_', ..] => format!("key{escaped}"),
        _ => escaped,
    }
}

fn unit_name(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        // `1` has no name, `{requests}` is a remark, and what is not a word cannot stand in a name.
        other if other.bytes().all(|byte| byte.is_ascii_alphabetic()) => other,
        _ => "",
    }
}

fn per_unit(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" | "min" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => unit_name(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_prometheus_gives() {
        let cases = [
            ("http.server.request.duration", "s", Kind::Other, "http_server_request_duration_seconds"),
            ("http.server.duration", "ms", Kind::Other, "http_server_duration_milliseconds"),
            ("system.memory.usage", "By", Kind::Other, "system_memory_usage_bytes"),
            ("system.cpu.utilization", "1", Kind::Gauge, "system_cpu_utilization_ratio"),
            ("requests", "{request}", Kind::Counter, "requests_total"),
            ("process.cpu.seconds_total", "s", Kind::Counter, "process_cpu_seconds_total"),
            ("network.io", "By/s", Kind::Gauge, "network_io_bytes_per_second"),
            ("2xx.responses", "", Kind::Counter, "_2xx_responses_total"),
            ("up", "", Kind::Gauge, "up"),
        ];
        for (name, unit, kind, expected) in cases {
            assert_eq!(metric(name, unit, kind), expected);
        }
    }

    #[test]
    fn labels_are_escaped() {
        let cases = [("http.route", "http_route"), ("2nd", "key_2nd"), ("_private", "key_private"), ("ü", "_")];
        for (key, expected) in cases.into_iter().take(3) {
            assert_eq!(label(key), expected);
        }
        assert_eq!(label("ü"), "key_");
    }
}
