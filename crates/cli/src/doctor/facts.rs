//! What the checks read: a server's answers.

use std::time::Duration;

use serde_json::Value;
use wardroom_domain::Timestamp;
use wardroom_process::clock;

use crate::client::Client;
use crate::metrics_text::{MetricSample, parse_metrics};

/// Time between the two readings of the server's lag.
const BETWEEN_READINGS: Duration = Duration::from_secs(1);

/// A server's answer to one question.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    /// The answer.
    Known(Value),
    /// The token may not read it, or the server does not have it: status.
    Refused(u16),
    /// No answer.
    Absent,
}

impl Fact {
    /// The answer, if there is one.
    pub(super) fn known(&self) -> Option<&Value> {
        match self {
            Self::Known(value) => Some(value),
            Self::Refused(_) | Self::Absent => None,
        }
    }
}

/// Everything that was asked.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) url: String,
    pub(super) has_token: bool,
    /// The time here when `date` was received.
    pub(super) now: Timestamp,
    /// Seconds since the epoch by the server's clock.
    pub(super) server_seconds: Option<i64>,
    /// Why the server does not answer.
    pub(super) unreachable: Option<String>,
    /// `/readyz`; it answers with a document also when the server is not ready.
    pub(super) ready: Fact,
    /// Records that detection had not processed at the first and at the second reading.
    pub(super) lag: Option<(u64, u64)>,
    pub(super) metrics: Vec<MetricSample>,
    /// Who the token says that the caller is.
    pub(super) whoami: Fact,
    pub(super) incidents: Fact,
    pub(super) dead_letters: Fact,
    pub(super) sources: Fact,
    pub(super) tokens: Fact,
    pub(super) approvers: Fact,
}

impl Facts {
    /// Asks a server; reads only.
    pub(super) fn collect(client: &Client) -> Self {
        let mut facts = Self {
            url: client.url().to_owned(),
            has_token: client.has_token(),
            now: clock::now(),
            server_seconds: None,
            unreachable: None,
            ready: Fact::Absent,
            lag: None,
            metrics: Vec::new(),
            whoami: Fact::Absent,
            incidents: Fact::Absent,
            dead_letters: Fact::Absent,
            sources: Fact::Absent,
            tokens: Fact::Absent,
            approvers: Fact::Absent,
        };
        let answer = match client.ask("/readyz") {
            Ok(answer) => answer,
            Err(error) => {
                facts.unreachable = Some(format!("{error:#}"));
                return facts;
            }
        };
        facts.now = clock::now();
        let date = answer.headers.iter().find(|(name, _)| name == "date");
        facts.server_seconds = date.and_then(|(_, date)| seconds_of_http_date(date));
        facts.ready = serde_json::from_slice(&answer.body).map_or(Fact::Refused(answer.status), Fact::Known);
        let fact = |path: &str| match client.ask(path) {
            Ok(answer) if answer.status == 200 => {
                serde_json::from_slice(&answer.body).map_or(Fact::Absent, Fact::Known)
            }
            Ok(answer) => Fact::Refused(answer.status),
            Err(_) => Fact::Absent,
        };
        facts.incidents = fact("/api/v1/incidents");
        facts.whoami = fact("/api/v1/whoami");
        facts.dead_letters = fact("/api/v1/dead-letters");
        facts.sources = fact("/api/v1/sources");
        facts.tokens = fact("/api/v1/tokens?limit=1000");
        facts.approvers = fact("/api/v1/approvers");
        facts.metrics = client.get_text("/metrics").map_or_else(|_| Vec::new(), |text| parse_metrics(&text));
        facts.lag = lag_of(&facts.ready).and_then(|first| {
            if first == 0 {
                return Some((0, 0));
            }
            std::thread::sleep(BETWEEN_READINGS);
            Some((first, lag_of(&fact("/readyz"))?))
        });
        facts
    }

    /// The sum of a metric over all its labels; `None` if there is none.
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        let mut samples = self.metrics.iter().filter(|sample| sample.name == name).map(|sample| sample.value);
        let first = samples.next()?;
        Some(samples.fold(first, |sum, value| sum + value))
    }
}

fn lag_of(ready: &Fact) -> Option<u64> {
    ready.known()?["detect_lag_records"].as_u64()
}

/// Reads a date such as `Tue, 15 Nov 1994 08:12:31 GMT` (RFC 9110).
fn seconds_of_http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let at = Timestamp::parse(&format!("{year}-{month:02}-{day}T{time}Z")).ok()?;
    Some(at.millis() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http_are_read() {
        assert_eq!(seconds_of_http_date("Tue, 15 Nov 1994 08:12:31 GMT"), Some(784_887_151));
        assert_eq!(seconds_of_http_date("yesterday"), None);
    }
}
