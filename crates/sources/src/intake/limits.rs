//! Limits of records: the accepted time window (ADR 010) and the limits on labels.

use std::collections::BTreeMap;
use std::time::Duration;

use wardroom_domain::{Deployment, Exemplar, Labels, LogEntry, RefusalReason, Timestamp};

use crate::config::Config;
use crate::decode::decoded::Decoded;
use crate::decode::refusals::{RefusalCause, push_refusal};
use crate::decode::wire_metrics::WireMetrics;

/// Maximum number of labels of a log line or span, with those of its resource.
const MAX_EVENT_LABELS: usize = 300;
/// Maximum length of all labels of an exemplar, in bytes. Many exemplars are in memory, and OpenMetrics allows 128
/// characters.
const MAX_EXEMPLAR_LABEL_BYTES: usize = 1024;

/// Removes the records outside the limits and lists them as refused. The labels of a series are checked when the series
/// is new ([`check_series`]).
pub(crate) fn apply_limits(decoded: &mut Decoded, config: &Config, received_at: Timestamp) {
    let window = TimeWindow::new(config, received_at);
    let (oldest_ms, newest_ms) = (window.oldest.millis(), window.newest.millis());
    let mut refused = Vec::new();
    decoded.metrics.retain_exemplars(|_, exemplar| is_valid_exemplar(exemplar, &window));
    let samples = decoded.metrics.samples();
    let times = || samples.iter().map(|sample| sample.ts_ms);
    // One vectorised pass handles the common case of no refused sample.
    if times().any(|ts_ms| ts_ms < oldest_ms || ts_ms > newest_ms) {
        for (index, ts_ms) in times().enumerate() {
            if let Some((reason, detail)) = window.check(Timestamp::from_millis(ts_ms)) {
                push_refusal(&mut refused, decoded.position(index), reason, detail);
            }
        }
    }
    let mut index = samples.len();
    let mut record_result = |cause: Option<RefusalCause>| {
        if let Some((reason, detail)) = cause {
            push_refusal(&mut refused, decoded.position(index), reason, detail);
        }
        index += 1;
    };
    for (_, histogram) in decoded.metrics.histograms() {
        let invalid =
            histogram.validate().err().map(|detail| (RefusalReason::BadValue, format!("histogram: {detail}")));
        record_result(invalid.or_else(|| window.check(Timestamp::from_millis(histogram.ts_ms))));
    }
    for log in &decoded.logs {
        record_result(check_log(log, config).or_else(|| window.check(log.at)));
    }
    for deployment in &decoded.deployments {
        record_result(check_deployment(deployment, config).or_else(|| window.check(deployment.at)));
    }
    for span in &decoded.spans {
        record_result(check_event_labels(&span.labels, config).or_else(|| window.check(span.end)));
    }
    decoded.remove_refused(&refused);
    decoded.refused.extend(refused);
}

/// Removes the exemplars outside the limits on replay. The envelope does not list them, because they are not records.
pub(crate) fn remove_refused_exemplars(metrics: &mut WireMetrics, config: &Config, received_at: Timestamp) {
    let window = TimeWindow::new(config, received_at);
    let mut valid: BTreeMap<u32, bool> = BTreeMap::new();
    for (series, _) in metrics.exemplars() {
        valid.entry(*series).or_insert_with(|| {
            metrics.labels(*series as usize).is_ok_and(|labels| check_series(labels, config).is_ok())
        });
    }
    metrics
        .retain_exemplars(|series, exemplar| valid.get(&series) == Some(&true) && is_valid_exemplar(exemplar, &window));
}

/// Checks the labels of a new series.
pub(crate) fn check_series(labels: Labels, config: &Config) -> Result<Labels, RefusalCause> {
    if labels.name().is_empty() {
        return Err((RefusalReason::BadLabels, "label __name__ is missing: a series needs a metric name".into()));
    }
    check_labels(&labels, config).map_or(Ok(labels), Err)
}

/// The accepted times of records.
struct TimeWindow<'a> {
    config: &'a Config,
    oldest: Timestamp,
    newest: Timestamp,
}

impl<'a> TimeWindow<'a> {
    fn new(config: &'a Config, received_at: Timestamp) -> Self {
        Self {
            config,
            oldest: received_at.minus(Duration::from_secs(config.max_age_hours * 3600)),
            newest: received_at.plus(Duration::from_secs(config.max_ahead_minutes * 60)),
        }
    }

    fn contains(&self, at_ms: i64) -> bool {
        (self.oldest.millis()..=self.newest.millis()).contains(&at_ms)
    }

    fn check(&self, at: Timestamp) -> Option<RefusalCause> {
        if at < self.oldest {
            let hours = self.config.max_age_hours;
            let detail = format!("timestamp {at} is more than {hours} h old; see sources.max-age-hours");
            Some((RefusalReason::TooOld, detail))
        } else if at > self.newest {
            let max_ahead_minutes = self.config.max_ahead_minutes;
            let detail = format!("timestamp {at} is more than {max_ahead_minutes} min ahead; check the sender's clock");
            Some((RefusalReason::TooNew, detail))
        } else {
            None
        }
    }
}

fn is_valid_exemplar(exemplar: &Exemplar, window: &TimeWindow<'_>) -> bool {
    exemplar.labels.as_bytes().len() <= MAX_EXEMPLAR_LABEL_BYTES && window.contains(exemplar.ts_ms)
}

fn check_log(log: &LogEntry, config: &Config) -> Option<RefusalCause> {
    if log.message.len() > config.max_message_bytes {
        let detail =
            format!("message is longer than {} bytes; see sources.max-message-bytes", config.max_message_bytes);
        return Some((RefusalReason::LabelLimit, detail));
    }
    check_text("service", &log.service, config).or_else(|| check_event_labels(&log.labels, config))
}

/// Checks the labels of a log line or span.
fn check_event_labels(labels: &Labels, config: &Config) -> Option<RefusalCause> {
    if labels.iter().count() > MAX_EVENT_LABELS {
        let detail = format!("more than {MAX_EVENT_LABELS} labels on one log line or span; send fewer attributes");
        return Some((RefusalReason::LabelLimit, detail));
    }
    check_label_lengths(labels, config)
}

fn check_deployment(deployment: &Deployment, config: &Config) -> Option<RefusalCause> {
    let texts = [("service", &deployment.service), ("version", &deployment.version), ("status", &deployment.status)];
    let too_long = texts.into_iter().find_map(|(field, text)| check_text(field, text, config));
    too_long.or_else(|| check_labels(&deployment.metadata, config))
}

/// Checks a field that names something; it has the limit of a label value.
fn check_text(field: &str, text: &str, config: &Config) -> Option<RefusalCause> {
    let (limit, size) = (config.max_label_value_bytes, text.len());
    (size > limit).then(|| {
        let detail = format!("field {field} has {size} bytes; at most {limit}, see sources.max-label-value-bytes");
        (RefusalReason::LabelLimit, detail)
    })
}

fn check_labels(labels: &Labels, config: &Config) -> Option<RefusalCause> {
    if labels.iter().count() > config.max_labels {
        let detail = format!("more than {} labels; see sources.max-labels", config.max_labels);
        return Some((RefusalReason::LabelLimit, detail));
    }
    check_label_lengths(labels, config)
}

fn check_label_lengths(labels: &Labels, config: &Config) -> Option<RefusalCause> {
    for (name, value) in labels.iter() {
        if name.len() > config.max_label_name_bytes {
            let (limit, size) = (config.max_label_name_bytes, name.len());
            let detail = format!("a label name has {size} bytes; at most {limit}, see sources.max-label-name-bytes");
            return Some((RefusalReason::LabelLimit, detail));
        }
        if value.len() > config.max_label_value_bytes {
            let (limit, size) = (config.max_label_value_bytes, value.len());
            let detail = format!("label {name:?} has {size} bytes; at most {limit}, see sources.max-label-value-bytes");
            return Some((RefusalReason::LabelLimit, detail));
        }
    }
    None
}
