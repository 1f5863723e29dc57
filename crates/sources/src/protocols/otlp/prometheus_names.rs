//! Prometheus names for OpenTelemetry metrics and attributes: escaped with underscores, unit and type as suffixes.
//!
//! The rules are those of the OTLP receiver in Prometheus (its default, `UnderscoreEscapingWithSuffixes`):
//! <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>.

/// The metric type, as far as it affects the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricKind {
    Gauge,
    /// A monotonic cumulative sum.
    Counter,
    /// Any other sum, histogram or summary.
    Other,
}

/// Returns the metric name: `http.server.duration` in `ms` becomes `http_server_duration_milliseconds`.
pub(super) fn metric_name(name: &str, unit: &str, kind: MetricKind) -> String {
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
        MetricKind::Counter => Some("total"),
        MetricKind::Gauge if unit == "1" => Some("ratio"),
        MetricKind::Gauge | MetricKind::Other => None,
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

/// Returns the label name: `http.route` becomes `http_route`.
pub(super) fn label_name(key: &str) -> String {
    let escaped: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match escaped.as_bytes() {
        [b'0'..=b'9', ..] => format!("key_{escaped}"),
        // Names with two leading underscores are reserved by Prometheus and stay.
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
        // `1`, annotations such as `{requests}` and units that are not a word have no name.
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
    fn metric_names_match_prometheus() {
        let cases = [
            ("http.server.request.duration", "s", MetricKind::Other, "http_server_request_duration_seconds"),
            ("http.server.duration", "ms", MetricKind::Other, "http_server_duration_milliseconds"),
            ("system.memory.usage", "By", MetricKind::Other, "system_memory_usage_bytes"),
            ("system.cpu.utilization", "1", MetricKind::Gauge, "system_cpu_utilization_ratio"),
            ("requests", "{request}", MetricKind::Counter, "requests_total"),
            ("process.cpu.seconds_total", "s", MetricKind::Counter, "process_cpu_seconds_total"),
            ("network.io", "By/s", MetricKind::Gauge, "network_io_bytes_per_second"),
            ("2xx.responses", "", MetricKind::Counter, "_2xx_responses_total"),
            ("up", "", MetricKind::Gauge, "up"),
        ];
        for (name, unit, kind, expected) in cases {
            assert_eq!(metric_name(name, unit, kind), expected);
        }
    }

    #[test]
    fn label_names_are_escaped() {
        let cases = [
            ("http.route", "http_route"),
            ("2nd", "key_2nd"),
            ("_private", "key_private"),
            ("__meta", "__meta"),
            ("ü", "key_"),
        ];
        for (key, expected) in cases {
            assert_eq!(label_name(key), expected);
        }
    }
}
