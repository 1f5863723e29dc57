//! The labels of the series of an OTLP data point.

use std::collections::BTreeMap;

use wardroom_domain::labels::NAME_LABEL;
use wardroom_domain::{Labels, RefusalReason};

use super::attributes::{Attribute, read_attributes};
use super::metric_info::{SubMessage, attributes_field, read_metric_info, read_quantile};
use super::prometheus_names::label_name;
use crate::decode::protobuf::{DecodeError, Field, Message};
use crate::decode::refusals::RefusalCause;
use crate::decode::wire_metrics::PlainBody;

/// Numbers of the series of one data point. Buckets and quantiles are numbered from [`FIRST_BUCKET_SERIES`].
pub(super) const VALUE_SERIES: u32 = 0;
pub(super) const SUM_SERIES: u32 = 1;
pub(super) const COUNT_SERIES: u32 = 2;
pub(super) const TARGET_INFO_SERIES: u32 = 3;
pub(super) const FIRST_BUCKET_SERIES: u32 = 16;

/// Maximum number of characters of an unusable metric name that an error quotes.
const MAX_QUOTED_CHARS: usize = 60;

/// Resource attributes copied to every series; the others are only in `target_info`.
const PROMOTED_ATTRIBUTES: [&str; 9] = [
    "service.name",
    "deployment.environment.name",
    "host.name",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.deployment.name",
    "k8s.pod.name",
    "k8s.container.name",
    "validator_id",
];

/// Labels with the scope, which is part of a stream's identity: two libraries may report the same metric.
/// <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#instrumentation-scope>
const SCOPE_LABELS: [&str; 3] = ["otel_scope_name", "otel_scope_version", "otel_scope_schema_url"];

/// The parts of a request that the labels of a data point come from, as spans; each entry of the table of parts has
/// [`PARTS`] spans.
///
/// ```text
/// group:      resource        scope   schema URL of the scope
/// data point: (group entry,)  metric  data point
/// ```
pub(super) const PARTS: usize = 3;

/// Decodes the labels of one series of a data point.
pub(super) fn read_labels(body: &PlainBody, (point, series_number): (u32, u32)) -> Result<Labels, RefusalCause> {
    let malformed = |error: DecodeError| (RefusalReason::Malformed, error.to_string());
    let symbol =
        |entry: u32, index: usize| body.symbols.get(entry as usize * PARTS + index).copied().unwrap_or_default();
    let part = |entry: u32, index: usize| body.span(symbol(entry, index));
    let (group, _) = symbol(point, 0);
    let (info, _) = read_metric_info(SubMessage { start: 0, bytes: part(point, 1) }).map_err(malformed)?;
    let resource = read_attributes(part(group, 0), 1).map_err(malformed)?;
    let is_target_info = series_number == TARGET_INFO_SERIES;
    let mut attributes = if is_target_info {
        resource.iter().filter(|(key, _)| !is_promoted(key)).cloned().collect()
    } else {
        read_attributes(part(point, 2), attributes_field(info.data)).map_err(malformed)?
    };
    let mut labels = escaped_labels(&mut attributes);
    add_resource_labels(&mut labels, &resource);
    if is_target_info {
        labels.insert(NAME_LABEL.into(), "target_info".into());
        return Ok(Labels::new(labels.into_iter().collect()));
    }
    add_scope_labels(&mut labels, part(group, 1), part(group, 2)).map_err(malformed)?;
    if info.delta {
        labels.insert("__temporality__".into(), "delta".into());
    }
    let mut name = info.name();
    if name.is_empty() {
        return Err((RefusalReason::BadLabels, unusable_name(info.name)));
    }
    match series_number {
        SUM_SERIES => name.push_str("_sum"),
        COUNT_SERIES => name.push_str("_count"),
        VALUE_SERIES => {}
        _ if info.data == 9 => {
            labels.insert(
                "le".into(),
                nth_bound(part(point, 2), series_number - FIRST_BUCKET_SERIES).map_err(malformed)?,
            );
            name.push_str("_bucket");
        }
        _ => {
            labels.insert(
                "quantile".into(),
                nth_quantile(part(point, 2), series_number - FIRST_BUCKET_SERIES).map_err(malformed)?,
            );
        }
    }
    labels.insert(NAME_LABEL.into(), name);
    Ok(Labels::new(labels.into_iter().collect()))
}

/// Why a metric has no Prometheus name.
fn unusable_name(name: &[u8]) -> String {
    if name.is_empty() {
        return "the metric has no name".into();
    }
    let start: String = String::from_utf8_lossy(name).chars().take(MAX_QUOTED_CHARS).collect();
    format!("the metric name {start:?} has none of the characters A to Z, a to z, 0 to 9 and `:`; rename the metric")
}

/// Returns the labels for attributes, under escaped names. The values of attributes whose escaped names are equal are
/// joined in the order of their keys, so that the labels do not depend on the order in the request.
fn escaped_labels(attributes: &mut [Attribute<'_>]) -> BTreeMap<String, String> {
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in attributes.iter().filter(|(key, _)| !key.is_empty()) {
        let known = labels.entry(label_name(key)).or_default();
        if !known.is_empty() && !value.is_empty() {
            known.push(';');
        }
        known.push_str(value);
    }
    labels
}

/// Adds `job`, `instance` and the promoted attributes of the resource. An attribute of the data point of the same name
/// stays, because it distinguishes the series: as `exported_job` and `exported_instance`, like in a scrape, or instead
/// of the promoted one.
fn add_resource_labels(labels: &mut BTreeMap<String, String>, resource: &[Attribute<'_>]) {
    let attribute = |key: &str| {
        let value = resource.iter().find(|(known, _)| known == key).map(|(_, value)| value.to_string());
        value.filter(|value| !value.is_empty())
    };
    let job = attribute("service.name").map(|service| match attribute("service.namespace") {
        Some(namespace) => format!("{namespace}/{service}"),
        None => service,
    });
    for (name, value) in [("job", job), ("instance", attribute("service.instance.id"))] {
        let Some(value) = value else { continue };
        if let Some(own) = labels.insert(name.to_owned(), value) {
            labels.entry(format!("exported_{name}")).or_insert(own);
        }
    }
    for key in PROMOTED_ATTRIBUTES {
        if let Some(value) = attribute(key) {
            labels.entry(label_name(key)).or_insert(value);
        }
    }
}

/// Adds the labels of an `InstrumentationScope` and its schema URL; they take precedence over attributes.
fn add_scope_labels(labels: &mut BTreeMap<String, String>, scope: &[u8], schema_url: &[u8]) -> Result<(), DecodeError> {
    let attributes = read_attributes(scope, 3)?;
    let mut prefixed: Vec<Attribute<'_>> =
        attributes.into_iter().map(|(key, value)| (format!("otel.scope.{key}").into(), value)).collect();
    labels.extend(escaped_labels(&mut prefixed));
    let mut texts = [&[][..], &[], schema_url];
    let mut fields = Message::new(scope);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(_, bytes)) => texts[0] = bytes,
            (2, Field::Bytes(_, bytes)) => texts[1] = bytes,
            _ => {}
        }
    }
    for (name, text) in SCOPE_LABELS.into_iter().zip(texts).filter(|(_, text)| !text.is_empty()) {
        labels.insert(name.to_owned(), String::from_utf8_lossy(text).into_owned());
    }
    Ok(())
}

/// Returns whether a resource attribute is on every series, as itself or in `job` and `instance`.
fn is_promoted(key: &str) -> bool {
    PROMOTED_ATTRIBUTES.contains(&key) || ["service.namespace", "service.instance.id"].contains(&key)
}

/// Returns the bucket bound at this index as the value of `le`.
fn nth_bound(point: &[u8], index: u32) -> Result<String, DecodeError> {
    let (mut seen, mut bound) = (0, f64::INFINITY);
    let mut fields = Message::new(point);
    while let Some((number, field)) = fields.next()? {
        if number == 7 {
            field.for_each_fixed64(|bits| {
                bound = if seen == index { f64::from_bits(bits) } else { bound };
                seen += 1;
                Ok(())
            })?;
        }
    }
    Ok(if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() })
}

/// Returns the quantile at this index as the value of `quantile`.
fn nth_quantile(point: &[u8], index: u32) -> Result<String, DecodeError> {
    let mut seen = 0;
    let mut fields = Message::new(point);
    while let Some((number, field)) = fields.next()? {
        if let (6, Field::Bytes(_, quantile)) = (number, field) {
            if seen == index {
                return Ok(read_quantile(quantile)?.0.to_string());
            }
            seen += 1;
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_for_a_metric_without_a_usable_name_quotes_it() {
        assert_eq!(unusable_name(b""), "the metric has no name");
        let reason = unusable_name("日本".as_bytes());
        assert!(reason.contains("\"日本\"") && reason.contains("A to Z"), "{reason}");
        assert!(unusable_name(&[b'@'; 1000]).len() < 200);
    }
}
