//! The meaning of one series.

use serde::{Deserialize, Serialize};
use wardroom_domain::{Entity, Relation, SignalKind};

/// What a series says, by the first convention that knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesMeaning {
    /// What the series is about; `None` if its labels name nothing.
    pub entity: Option<Entity>,
    /// The reporting process or target: series of equal families and different instances are members of one signal.
    pub instance: String,
    /// Further names of the entity: addresses, pod names, DNS names.
    pub aliases: Vec<String>,
    /// Relations that the labels show.
    pub relations: Vec<Relation>,
    /// The signals that the series feeds; empty for series that are watched against their own past only.
    pub uses: Vec<SeriesUse>,
    /// Whether the series tells about the monitoring itself (scrape durations, exporters' own processes, runtimes'
    /// internals): its shifts weigh less.
    pub is_internal: bool,
}

/// One use of a series in a signal.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesUse {
    /// What the signal is about; often the series' entity, otherwise a part of it such as a file system.
    pub entity: Entity,
    /// The called entity, for signals of outgoing calls.
    pub peer: Option<Entity>,
    /// The kind of signal. Parts of requests ([`Part::Requests`] to [`Part::Quantile`]) say [`SignalKind::Traffic`] and
    /// feed traffic, errors and latency.
    pub kind: SignalKind,
    /// What is measured; empty if the kind has one.
    pub resource: String,
    /// The metric family that names the signal: for a histogram the name without its suffix.
    pub family: String,
    /// Which of the entity's members this is: values are joined within a member and compared between members. Often
    /// the instance; for a pool or a partition with its own limit, that as well.
    pub member: String,
    /// Which number of the signal the series is.
    pub part: Part,
    /// Factor from the sample to the part: 0.001 for milliseconds. Bounds of buckets are multiplied already.
    pub scale: f64,
    /// What is added after the factor: a gauge of a bad state is [`Part::Up`] by a factor of −1 and an offset of 1.
    pub offset: f64,
    /// Whether each sample of a counted part is an increase already, not the sum of all.
    pub is_delta: bool,
    /// The unit of the signal's value.
    pub unit: SignalUnit,
    /// Which values are bad.
    pub direction: Direction,
}

/// The outcome of requests that a series counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The labels do not say.
    #[default]
    Unknown,
    /// The requests succeeded, or failed by the client's fault.
    Ok,
    /// The requests failed by the server's fault.
    Failed,
}

/// Which number of a signal a series is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Counter of requests.
    Requests(Outcome),
    /// Counter of failed requests that another counter of the same family or entity counts, too.
    Failures,
    /// Cumulative bucket of durations in seconds: upper bound, outcome.
    Bucket(f64, Outcome),
    /// Counter of seconds spent on requests.
    DurationSum(Outcome),
    /// Counter of the requests in [`Part::DurationSum`].
    DurationCount(Outcome),
    /// A quantile in seconds that the sender computed: 0..1.
    Quantile(f64),
    /// The value itself.
    Value,
    /// A counter whose rate per second is the value.
    Rate,
    /// The limit of the value.
    Limit,
    /// What is left of the limit: the value is limit − free.
    Free,
    /// A counter of idle time or idle units: the value is the limit (or 1) − rate.
    IdleRate,
    /// 1 while up, 0 while down.
    Up,
    /// Number of members that should be up ([`SignalKind::Availability`] by counts).
    Desired,
    /// Number of members that are up.
    Available,
    /// A unix time in seconds: of the newest success, of the start, of the expiry.
    Time,
    /// A counter of events such as restarts: the value is the increase within the window.
    Count,
    /// A counter of items taken from a queue.
    Drained,
    /// A counter of items put into a queue.
    Added,
}

impl Part {
    /// A histogram or summary of durations: the series' name says which number of it each series is.
    pub(crate) const DURATION: Self = Self::Bucket(f64::INFINITY, Outcome::Unknown);

    /// The words for parts in conventions. Outcomes, bounds and quantiles are in the labels of a series.
    pub(crate) const WORDS: [(&str, Self); 18] = [
        ("requests", Self::Requests(Outcome::Unknown)),
        ("failures", Self::Failures),
        ("duration", Self::DURATION),
        ("duration-sum", Self::DurationSum(Outcome::Unknown)),
        ("duration-count", Self::DurationCount(Outcome::Unknown)),
        ("quantile", Self::Quantile(0.5)),
        ("value", Self::Value),
        ("rate", Self::Rate),
        ("limit", Self::Limit),
        ("free", Self::Free),
        ("idle-rate", Self::IdleRate),
        ("up", Self::Up),
        ("desired", Self::Desired),
        ("available", Self::Available),
        ("time", Self::Time),
        ("count", Self::Count),
        ("drained", Self::Drained),
        ("added", Self::Added),
    ];

    /// Returns whether it feeds traffic, errors and latency.
    pub(crate) const fn is_of_requests(self) -> bool {
        matches!(
            self,
            Self::Requests(_)
                | Self::Failures
                | Self::Bucket(..)
                | Self::DurationSum(_)
                | Self::DurationCount(_)
                | Self::Quantile(_)
        )
    }
}

/// The unit of a signal's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalUnit {
    /// A number without a unit.
    #[default]
    Number,
    /// A share, 0..1.
    Ratio,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Events per second.
    PerSecond,
}

/// Which values of a signal are bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// High ones.
    #[default]
    High,
    /// Low ones.
    Low,
    /// Neither by itself: a shift is evidence only.
    Neutral,
}
