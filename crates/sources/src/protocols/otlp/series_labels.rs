//! The labels of the series of an OTLP data point.

use std::collections::BTreeMap;

use wardroom_domain::labels::NAME_LABEL;
use wardroom_domain::{Labels, RefusalReason};

use super::attributes::read_attributes;
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

/// Decodes the labels of one series of a data point.
pub(super) fn read_labels(body: &PlainBody, (point, series_number): (u32, u32)) -> Result<Labels, RefusalCause> {
    let malformed = |error: DecodeError| (RefusalReason::Malformed, error.to_string());
    let part = |index: u64| body.symbol(u64::from(point) * 3 + index).unwrap_or_default();
    let (info, _) = read_metric_info(SubMessage { start: 0, bytes: part(1) }).map_err(malformed)?;
    let resource = read_attributes(part(0), 1).map_err(malformed)?;
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let attributes = if series_number == TARGET_INFO_SERIES {
        Vec::new()
    } else {
        read_attributes(part(2), attributes_field(info.data)).map_err(malformed)?
    };
    let target_attributes = resource.iter().filter(|(key, _)| series_number == TARGET_INFO_SERIES && !is_promoted(key));
    for (key, value) in attributes.iter().chain(target_attributes) {
        // Attributes whose escaped names are equal are joined.
        let known = labels.entry(label_name(key)).or_default();
        if !known.is_empty() {
            known.push(';');
        }
        known.push_str(value);
    }
    let resource_attribute =
        |key: &str| resource.iter().find(|(known, _)| known == key).map(|(_, value)| value.to_string());
    if let Some(service) = resource_attribute("service.name") {
        let job = resource_attribute("service.namespace")
            .map_or_else(|| service.clone(), |space| format!("{space}/{service}"));
        labels.insert("job".into(), job);
    }
    labels.extend(resource_attribute("service.instance.id").map(|instance| ("instance".into(), instance)));
    labels.extend(PROMOTED_ATTRIBUTES.iter().filter_map(|key| Some((label_name(key), resource_attribute(key)?))));
    if series_number == TARGET_INFO_SERIES {
        labels.insert(NAME_LABEL.into(), "target_info".into());
        return Ok(Labels::new(labels.into_iter().collect()));
    }
    if info.delta {
        labels.insert("__temporality__".into(), "delta".into());
    }
    let mut name = info.name();
    if name.is_empty() {
        return Err((RefusalReason::BadLabels, "the metric has no name".into()));
    }
    match series_number {
        SUM_SERIES => name.push_str("_sum"),
        COUNT_SERIES => name.push_str("_count"),
        VALUE_SERIES => {}
        _ if info.data == 9 => {
            labels.insert("le".into(), nth_bound(part(2), series_number - FIRST_BUCKET_SERIES).map_err(malformed)?);
            name.push_str("_bucket");
        }
        _ => {
            labels.insert(
                "quantile".into(),
                nth_quantile(part(2), series_number - FIRST_BUCKET_SERIES).map_err(malformed)?,
            );
        }
    }
    labels.insert(NAME_LABEL.into(), name);
    Ok(Labels::new(labels.into_iter().collect()))
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
