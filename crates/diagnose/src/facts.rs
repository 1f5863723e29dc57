//! The input of diagnosis.

use wardroom_domain::{Deployment, Timestamp};

/// Everything known about an incident at one point in time.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Start of the incident.
    pub began_at: Timestamp,
    /// Request and resource signals of services.
    pub signals: Vec<SignalFact>,
    /// The call graph with the state of each edge.
    pub calls: Vec<Call>,
    /// Series with a level shift.
    pub series: Vec<SeriesFact>,
    /// Deployments since the configured time before the start.
    pub deployments: Vec<Deployment>,
    /// Announced setting changes of the same time range.
    pub changes: Vec<Change>,
    /// Error log templates of the configured time range.
    pub logs: Vec<LogFact>,
}

/// The kind of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Requests per second.
    Rate,
    /// Failed requests, 0..1.
    Errors,
    /// 99th percentile, seconds.
    Latency,
    /// CPU share of the limit.
    Cpu,
    /// Memory share of the limit.
    Memory,
}

/// One signal of one service.
#[derive(Clone, Debug)]
pub struct SignalFact {
    /// The service.
    pub service: String,
    /// Kind of signal.
    pub aspect: Aspect,
    /// Current value.
    pub value: f64,
    /// Value before the start.
    pub expected: f64,
    /// Time of the first bad point, if the signal is in breach.
    pub bad_since: Option<Timestamp>,
}

/// One edge of the call graph.
#[derive(Clone, Debug)]
pub struct Call {
    /// The calling service.
    pub caller: String,
    /// The called service.
    pub callee: String,
    /// Time since which the caller sees errors or high latency, if it does.
    pub bad_since: Option<Timestamp>,
    /// Current calls per second.
    pub rate: f64,
    /// Calls per second before the start.
    pub expected_rate: f64,
}

/// One series compared with its own baseline.
#[derive(Clone, Debug)]
pub struct SeriesFact {
    /// The service.
    pub service: String,
    /// Text form of its labels.
    pub series: String,
    /// Standard deviations from its mean.
    pub z: f64,
    /// Current value.
    pub value: f64,
    /// Value before the start.
    pub expected: f64,
    /// Start of the shift.
    pub since: Timestamp,
}

/// One announced setting change.
#[derive(Clone, Debug)]
pub struct Change {
    /// The service.
    pub service: String,
    /// Time of the change.
    pub at: Timestamp,
    /// Name of the setting.
    pub key: String,
    /// Old value.
    pub from: String,
    /// New value.
    pub to: String,
}

/// One error template.
#[derive(Clone, Debug)]
pub struct LogFact {
    /// The service.
    pub service: String,
    /// The template.
    pub template: String,
    /// One original line. Untrusted text.
    pub example: String,
    /// Number of lines.
    pub count: u64,
    /// Time of the template's first line.
    pub first: Timestamp,
}

impl Facts {
    pub(crate) fn signal(&self, service: &str, aspect: Aspect) -> Option<&SignalFact> {
        let matches = |fact: &&SignalFact| fact.service == service && fact.aspect == aspect;
        // A service may have several histograms: prefer one in breach.
        self.signals.iter().filter(matches).max_by_key(|fact| fact.bad_since.is_some())
    }

    pub(crate) fn is_bad(&self, service: &str, aspect: Aspect) -> bool {
        self.signal(service, aspect).is_some_and(|fact| fact.bad_since.is_some())
    }

    /// Returns whether requests to the service fail or are slow.
    pub(crate) fn is_degraded(&self, service: &str) -> bool {
        self.is_bad(service, Aspect::Errors) || self.is_bad(service, Aspect::Latency)
    }

    /// Returns the outgoing calls of a service that fail or are slow.
    pub(crate) fn unhealthy_calls<'a>(&'a self, caller: &'a str) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(move |call| call.caller == caller && call.bad_since.is_some())
    }
}
