//! What diagnosis is given.

use wardroom_domain::{Deployment, Timestamp};

/// Everything known about an incident at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When the trouble began.
    pub began_at: Timestamp,
    /// What services serve, how they are, and what they use.
    pub signals: Vec<SignalFact>,
    /// Who calls whom, and how it goes.
    pub calls: Vec<Call>,
    /// Series that left their own past.
    pub series: Vec<SeriesFact>,
    /// Deployments in the configured minutes before, and since.
    pub deployments: Vec<Deployment>,
    /// Announced setting changes in the same time.
    pub changes: Vec<Change>,
    /// Error templates of the configured minutes.
    pub logs: Vec<LogFact>,
}

/// What a signal is about.
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
    /// Of which service.
    pub service: String,
    /// About what.
    pub aspect: Aspect,
    /// Now.
    pub value: f64,
    /// Before.
    pub expected: f64,
    /// Since when it is bad, if it is.
    pub bad_since: Option<Timestamp>,
}

/// One edge of the call graph.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who calls.
    pub caller: String,
    /// Who is called.
    pub callee: String,
    /// Whether the caller sees errors or slowness on it, and since when.
    pub bad_since: Option<Timestamp>,
    /// Calls per second now.
    pub rate: f64,
    /// Calls per second before.
    pub usual_rate: f64,
}

/// One series against its own past.
#[derive(Clone, Debug)]
pub struct SeriesFact {
    /// Of which service.
    pub service: String,
    /// Its labels, as text.
    pub series: String,
    /// Deviations from its mean.
    pub z: f64,
    /// Now.
    pub value: f64,
    /// Before.
    pub expected: f64,
    /// Since when.
    pub since: Timestamp,
}

/// One announced setting change.
#[derive(Clone, Debug)]
pub struct Change {
    /// Of which service.
    pub service: String,
    /// When.
    pub at: Timestamp,
    /// Which setting.
    pub key: String,
    /// Former value.
    pub from: String,
    /// New value.
    pub to: String,
}

/// One error template.
#[derive(Clone, Debug)]
pub struct LogFact {
    /// Of which service.
    pub service: String,
    /// The template.
    pub template: String,
    /// One line, as it came: untrusted.
    pub example: String,
    /// Lines.
    pub count: u64,
    /// When the template was first seen.
    pub first: Timestamp,
}

impl Facts {
    pub(crate) fn signal(&self, service: &str, aspect: Aspect) -> Option<&SignalFact> {
        let of = |fact: &&SignalFact| fact.service == service && fact.aspect == aspect;
        // A service may have several histograms: the bad one speaks for it.
        self.signals.iter().filter(of).max_by_key(|fact| fact.bad_since.is_some())
    }

    pub(crate) fn bad(&self, service: &str, aspect: Aspect) -> bool {
        self.signal(service, aspect).is_some_and(|fact| fact.bad_since.is_some())
    }

    /// Whether what the service serves is bad.
    pub(crate) fn serves_badly(&self, service: &str) -> bool {
        self.bad(service, Aspect::Errors) || self.bad(service, Aspect::Latency)
    }

    /// Calls a service makes that go badly.
    pub(crate) fn bad_calls<'a>(&'a self, caller: &'a str) -> impl Iterator<Item = &'a Call> {
        self.calls.iter().filter(move |call| call.caller == caller && call.bad_since.is_some())
    }
}
