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
    let mut tokens = tokens_of(name);
    if tokens.is_empty() {
        // A metric without a name must not be named by its unit.
        return String::new();
    }
    let (main, per) = unit.split_once('/').map_or((unit, None), |(main, per)| (main, Some(per)));
    let main = unit_tokens(unit_name(main.trim())).join("_");
    if !main.is_empty() && !tokens.contains(&main.as_str()) {
        tokens.push(&main);
    }
    let per = per.map(|per| unit_tokens(per_unit(per.trim())).join("_")).unwrap_or_default();
    if !per.is_empty() && !tokens.contains(&per.as_str()) {
        tokens.extend(["per", &per]);
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

/// Returns the parts of a text between characters that a metric name cannot have; several of them are one separator.
fn tokens_of(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':')).filter(|token| !token.is_empty()).collect()
}

/// Returns the parts of a unit. An annotation in braces, such as `{requests}`, is no unit.
fn unit_tokens(unit: &str) -> Vec<&str> {
    if unit.contains(['{', '}']) { Vec::new() } else { tokens_of(unit) }
}

/// Returns the label name: `http.route` becomes `http_route`. Several characters that a label name cannot have, or
/// underscores, become one underscore.
pub(super) fn label_name(key: &str) -> String {
    let mut escaped = String::with_capacity(key.len());
    for c in key.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !escaped.ends_with('_') {
            escaped.push(c);
        }
    }
    match escaped.as_bytes() {
        [b'0'..=b'9', ..] => format!("key_{escaped}"),
        // Names with two leading underscores are reserved by Prometheus and stay.
        [b'_', ..] if key.starts_with("__") => format!("_{escaped}"),
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
        "1" => "",
        other => other,
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
            ("requests", "1/s", MetricKind::Gauge, "requests_per_second"),
            ("custom.metric", "custom_unit", MetricKind::Gauge, "custom_metric_custom_unit"),
            ("custom.metric", "{custom}", MetricKind::Gauge, "custom_metric"),
            ("custom.metric", "By/{custom}", MetricKind::Gauge, "custom_metric_bytes"),
            ("custom", "1/custom_unit", MetricKind::Gauge, "custom_per_custom_unit"),
            ("a__b", "c__d", MetricKind::Gauge, "a_b_c_d"),
            ("m", "unit@with#special/chars", MetricKind::Gauge, "m_unit_with_special_per_chars"),
            ("m", "By/", MetricKind::Gauge, "m_bytes"),
            ("m", " By / s ", MetricKind::Gauge, "m_bytes_per_second"),
            ("m", "/", MetricKind::Gauge, "m"),
            ("m", "1/m", MetricKind::Gauge, "m_per_minute"),
            ("cpu_usage_ratio", "1", MetricKind::Gauge, "cpu_usage_ratio"),
            ("items", "1", MetricKind::Counter, "items_total"),
            ("cpu", "%", MetricKind::Gauge, "cpu_percent"),
            ("@#$%", "s", MetricKind::Counter, ""),
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
            ("___meta", "__meta"),
            ("ü", "key_"),
            ("http..request  id", "http_request_id"),
            ("a__b", "a_b"),
            ("über.größe", "key_ber_gr_e"),
        ];
        for (key, expected) in cases {
            assert_eq!(label_name(key), expected);
        }
    }
}
