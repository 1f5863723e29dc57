//! What is let in: the time window of decision D10 and the limits on labels.

use std::time::Duration;

use wardroom_domain::{Labels, Refusal, RefusalReason, Timestamp};

use crate::{Config, Decoded};

/// Takes out the records that may not come in, and says why.
pub(crate) fn admit(decoded: &mut Decoded, config: &Config, received_at: Timestamp) {
    let oldest = received_at.minus(Duration::from_secs(config.max_age_hours * 3600));
    let newest = received_at.plus(Duration::from_secs(config.max_ahead_minutes * 60));
    let in_window = |at: Timestamp| {
        if at < oldest {
            let detail =
                format!("timestamp {at} is more than {} h old; see sources.max-age-hours", config.max_age_hours);
            Some((RefusalReason::TooOld, detail))
        } else if at > newest {
            let ahead = config.max_ahead_minutes;
            let detail = format!("timestamp {at} is more than {ahead} min ahead; check the sender's clock");
            Some((RefusalReason::TooNew, detail))
        } else {
            None
        }
    };
    let mut positions = decoded.positions.iter().copied();
    let mut refused = Vec::new();
    let mut note = |verdict: Option<(RefusalReason, String)>| {
        let at = positions.next().unwrap_or(u32::MAX);
        if let Some((reason, detail)) = verdict {
            refuse(&mut refused, at, reason, detail);
        }
    };
    for series in &decoded.batch.series {
        let labels = check_labels(&series.labels, config, true);
        for sample in &series.samples {
            note(labels.clone().or_else(|| in_window(Timestamp::from_millis(sample.ts_ms))));
        }
    }
    for log in &decoded.batch.logs {
        let too_long = (log.message.len() > config.max_message_bytes).then(|| {
            let detail =
                format!("message is longer than {} bytes; see sources.max-message-bytes", config.max_message_bytes);
            (RefusalReason::LabelLimit, detail)
        });
        note(too_long.or_else(|| check_labels(&log.labels, config, false)).or_else(|| in_window(log.at)));
    }
    for deployment in &decoded.batch.deployments {
        note(check_labels(&deployment.metadata, config, false).or_else(|| in_window(deployment.at)));
    }
    if !refused.is_empty() {
        decoded.retain(|position| !refused.iter().any(|r: &Refusal| (r.first..=r.last).contains(&position)));
        decoded.refused.extend(refused);
    }
}

/// Adds a refusal, joined to the one before it where it continues it.
pub(crate) fn refuse(refused: &mut Vec<Refusal>, at: u32, reason: RefusalReason, detail: String) {
    match refused.last_mut() {
        Some(last) if last.reason == reason && last.last.checked_add(1) == Some(at) => last.last = at,
        _ => refused.push(Refusal { first: at, last: at, reason, detail }),
    }
}

fn check_labels(labels: &Labels, config: &Config, metric: bool) -> Option<(RefusalReason, String)> {
    if metric && labels.name().is_empty() {
        return Some((RefusalReason::BadLabels, "label __name__ is missing: a series needs a metric name".into()));
    }
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
