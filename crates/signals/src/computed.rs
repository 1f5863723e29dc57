//! The names in a template that the entity rules find, beside the labels themselves.

/// What the entity rules find in the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Computed {
    /// The service or workload.
    Own,
    /// The workload of the pod that a series is about.
    Workload,
    /// The pod that a series is about.
    Pod,
    /// The machine: its label, else the host of the scrape target.
    Node,
    /// The host of the scrape target.
    Host,
    /// The scrape target or process.
    Instance,
    /// What an exporter watches: its server label, its pod, else its host.
    Watched,
    /// The scrape job, unless it is generic.
    Job,
    /// The probed address, without scheme.
    Target,
    /// Host and port of the probed address.
    Address,
    /// The first word of the metric name.
    Prefix,
}

impl Computed {
    /// Reads the word after the `@` of a template.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "own" => Self::Own,
            "workload" => Self::Workload,
            "pod" => Self::Pod,
            "node" => Self::Node,
            "host" => Self::Host,
            "instance" => Self::Instance,
            "watched" => Self::Watched,
            "job" => Self::Job,
            "target" => Self::Target,
            "address" => Self::Address,
            "prefix" => Self::Prefix,
            _ => return None,
        })
    }
}
