//! What is let in: the time window of decision D10 and the limits on labels.

use std::collections::BTreeMap;
use std::time::Duration;

use wardroom_domain::{Labels, Refusal, RefusalReason, Timestamp};

use crate::series::Denial;
use crate::{Config, Decoded, WireMetrics};

/// Attributes that a log line may carry.
const MAX_ATTRIBUTES: usize = 300;

fn too_many_attributes() -> Denial {
    (RefusalReason::LabelLimit, format!("more than {MAX_ATTRIBUTES} labels on one log line"))
}

/// Takes out the records that may not come in, and says why. The labels of series are looked at when a
/// series is new ([`check_series`]).
pub(crate) fn admit(decoded: &mut Decoded, config: &Config, received_at: Timestamp) {
    let window = Window::new(config, received_at);
    let (oldest_ms, newest_ms) = (window.oldest.millis(), window.newest.millis());
    let mut refused = Vec::new();
    decoded.metrics.retain_exemplars(|_, exemplar| window.holds(exemplar.ts_ms));
    let samples = decoded.metrics.samples();
    let times = || samples.iter().map(|sample| sample.ts_ms);
    // One pass that the compiler makes wide decides the ordinary case.
    if times().any(|ts_ms| ts_ms < oldest_ms || ts_ms > newest_ms) {
        for (at, ts_ms) in times().enumerate() {
            if let Some((reason, detail)) = window.check(Timestamp::from_millis(ts_ms)) {
                refuse(&mut refused, decoded.position(at), reason, detail);
            }
        }
    }
    let mut at = samples.len();
    let mut note = |verdict: Option<Denial>| {
        if let Some((reason, detail)) = verdict {
            refuse(&mut refused, decoded.position(at), reason, detail);
        }
        at += 1;
    };
    for (_, histogram) in decoded.metrics.histograms() {
        let sound = histogram.check().err().map(|detail| (RefusalReason::BadValue, format!("histogram: {detail}")));
        note(sound.or_else(|| window.check(Timestamp::from_millis(histogram.ts_ms))));
    }
    for log in &decoded.logs {
        let too_long = (log.message.len() > config.max_message_bytes).then(|| {
            let detail =
                format!("message is longer than {} bytes; see sources.max-message-bytes", config.max_message_bytes);
            (RefusalReason::LabelLimit, detail)
        });
        let attributes = || (log.labels.iter().count() > MAX_ATTRIBUTES).then(too_many_attributes);
        note(too_long.or_else(attributes).or_else(|| window.check(log.at)));
    }
    for deployment in &decoded.deployments {
        note(check_labels(&deployment.metadata, config).or_else(|| window.check(deployment.at)));
    }
    for span in &decoded.spans {
        note(window.check(span.end));
    }
    decoded.leave_out(&refused);
    decoded.refused.extend(refused);
}

/// Takes out the exemplars that did not come in: they are no records, so a request does not say so when it is read again.
pub(crate) fn admit_exemplars(metrics: &mut WireMetrics, config: &Config, received_at: Timestamp) {
    let window = Window::new(config, received_at);
    let mut sound: BTreeMap<u32, bool> = BTreeMap::new();
    for (series, _) in metrics.exemplars() {
        sound.entry(*series).or_insert_with(|| {
            metrics.labels(*series as usize).is_ok_and(|labels| check_series(labels, config).is_ok())
        });
    }
    metrics.retain_exemplars(|series, exemplar| sound.get(&series) == Some(&true) && window.holds(exemplar.ts_ms));
}

/// Whether a series never seen before may come in with these labels.
pub(crate) fn check_series(labels: Labels, config: &Config) -> Result<Labels, Denial> {
    if labels.name().is_empty() {
        return Err((RefusalReason::BadLabels, "label __name__ is missing: a series needs a metric name".into()));
    }
    check_labels(&labels, config).map_or(Ok(labels), Err)
}

/// Adds a refusal, joined to the one before it where it continues it.
pub(crate) fn refuse(refused: &mut Vec<Refusal>, at: u32, reason: RefusalReason, detail: String) {
    match refused.last_mut() {
        // Several samples may be one record on the wire.
        Some(last) if last.reason == reason && (last.first..=last.last).contains(&at) => {}
        Some(last) if last.reason == reason && last.last.checked_add(1) == Some(at) => last.last = at,
        _ => refused.push(Refusal { first: at, last: at, reason, detail }),
    }
}

struct Window<'a> {
    config: &'a Config,
    oldest: Timestamp,
    newest: Timestamp,
}

impl<'a> Window<'a> {
    fn new(config: &'a Config, received_at: Timestamp) -> Self {
        Self {
            config,
            oldest: received_at.minus(Duration::from_secs(config.max_age_hours * 3600)),
            newest: received_at.plus(Duration::from_secs(config.max_ahead_minutes * 60)),
        }
    }

    fn holds(&self, at_ms: i64) -> bool {
        (self.oldest.millis()..=self.newest.millis()).contains(&at_ms)
    }

    fn check(&self, at: Timestamp) -> Option<Denial> {
        if at < self.oldest {
            let hours = self.config.max_age_hours;
            let detail = format!("timestamp {at} is more than {hours} h old; see sources.max-age-hours");
            Some((RefusalReason::TooOld, detail))
        } else if at > self.newest {
            let ahead = self.config.max_ahead_minutes;
            let detail = format!("timestamp {at} is more than {ahead} min ahead; check the sender's clock");
            Some((RefusalReason::TooNew, detail))
        } else {
            None
        }
    }
}

fn check_labels(labels: &Labels, config: &Config) -> Option<Denial> {
    if labels.iter().count() > config.max_labels {
        let detail = format!("more than {} labels; see sources.max-labels", config.max_labels);
        return Some((RefusalReason::LabelLimit, detail));
    }
    for (name, value) in labels.iter() {
        if name.len() > config.max_label_name_bytes {
            let detail = format!("a label name is {} bytes long; at most {}", name.len(), config.max_label_name_bytes);
            return Some((RefusalReason::LabelLimit, detail));
        }
        if value.len() > config.max_label_value_bytes {
            let (most, got) = (config.max_label_value_bytes, value.len());
            let detail = format!("label {name:?} holds {got} bytes; at most {most}: see sources.max-label-value-bytes");
            return Some((RefusalReason::LabelLimit, detail));
        }
    }
    None
}
