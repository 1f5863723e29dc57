//! The format of a convention: what the series of one instrumentation mean, as data.
//!
//! One file a convention. Those of public instrumentations are built in (`conventions/*.yaml`), users add their own in
//! the same format (`entities.conventions`). `docs/signals.md` describes the fields.

use std::collections::BTreeMap;

use serde::Deserialize;
use wardroom_domain::{EntityKind, SignalKind};

use crate::meaning::{Direction, Outcome, Part, SignalUnit};

/// One convention.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Convention {
    /// Identifies the convention, such as `node-exporter`.
    pub convention: String,
    /// What it describes, in a few words.
    pub title: String,
    /// Whether it was tested on a real capture.
    #[serde(default)]
    pub verified: bool,
    /// Address of the instrumentation's documentation.
    pub source: String,
    /// What the series are about, unless a rule says otherwise; by default what the entity rules say.
    #[serde(default)]
    pub entity: Option<EntityNaming>,
    /// Labels that name the reporting process; by default `instance`, then the pod, then the machine.
    #[serde(default, deserialize_with = "one_or_more")]
    pub member: Vec<String>,
    /// Whether the series tell about the reporting process itself. Those of an exporter's process have no signal.
    #[serde(default)]
    pub process: bool,
    /// How scrape targets of this exporter are recognised, if it is a process apart from what it watches.
    #[serde(default)]
    pub exporter: Option<ExporterTarget>,
    /// The series; the first rule that fits a series counts.
    pub series: Vec<SeriesRule>,
}

/// How an entity is named.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct EntityNaming {
    /// The kind.
    pub kind: EntityKind,
    /// Templates; the first whose labels are all present is the name. `{label}` stands for a label, `{@node}` and other
    /// names with `@` for what the entity rules find.
    #[serde(deserialize_with = "one_or_more")]
    pub name: Vec<String>,
    /// Labels with the namespace, instead of those of the entity rules.
    #[serde(default, deserialize_with = "one_or_more")]
    pub namespace: Vec<String>,
    /// Whether the namespace in the labels is not the entity's: that of a proxy is not that of what is behind it.
    #[serde(default)]
    pub elsewhere: bool,
}

/// The scrape targets of an exporter. Its own process is not what it watches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ExporterTarget {
    /// Ports that are allocated to it.
    /// <https://github.com/prometheus/prometheus/wiki/Default-port-allocations>
    pub ports: Vec<u16>,
    /// Words in names of jobs, pods and containers that contain `exporter`.
    #[serde(deserialize_with = "one_or_more")]
    pub words: Vec<String>,
    /// Scrape jobs that public configurations have for it; `*` stands for any text.
    #[serde(deserialize_with = "one_or_more")]
    pub jobs: Vec<String>,
    /// What its `up` is about, if not what the convention's series are about.
    pub entity: Option<EntityNaming>,
    /// Whether it passes on the metrics of others, such as those of StatsD: they are about what the convention's entity
    /// names.
    pub relays: bool,
}

/// What series of some names mean.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SeriesRule {
    /// Metric names; `*` stands for any text, at most once in a name.
    #[serde(deserialize_with = "one_or_more")]
    pub metric: Vec<String>,
    /// Name of an OpenTelemetry metric: the name with dots, and its Prometheus spellings with and without units and
    /// `_total` are meant.
    #[serde(default)]
    pub otel: bool,
    /// Conditions on labels.
    #[serde(default, rename = "where")]
    pub conditions: BTreeMap<String, Condition>,
    /// The signal.
    #[serde(default)]
    pub signal: Option<SignalKind>,
    /// What is measured, if the signal has several resources.
    #[serde(default)]
    pub resource: String,
    /// Which number of the signal the series is; none for series that are known but have no signal.
    #[serde(default, deserialize_with = "part")]
    pub part: Option<Part>,
    /// Outcome of the requests, if it does not stand in a label.
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// Unit of the samples; by default that of the signal.
    #[serde(default)]
    pub unit: Option<SampleUnit>,
    /// What is added to the sample after its factor.
    #[serde(default)]
    pub offset: f64,
    /// Factor of the sample, beside that of the unit.
    #[serde(default = "one")]
    pub factor: f64,
    /// Which values are bad; by default what is usual for the signal.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Name of the signal's family, if several metrics are one signal; by default the metric's.
    #[serde(default)]
    pub family: String,
    /// Labels that tell members apart, beside the reporting process.
    #[serde(default, deserialize_with = "one_or_more")]
    pub member: Vec<String>,
    /// What the signal is about.
    #[serde(default)]
    pub entity: Option<EntityNaming>,
    /// The called entity, for signals of outgoing calls.
    #[serde(default)]
    pub peer: Option<PeerNaming>,
    /// The entity calls this one: a proxy and what is behind it.
    #[serde(default)]
    pub called_by: Option<EntityNaming>,
    /// The entity is part of this one.
    #[serde(default)]
    pub part_of: Option<EntityNaming>,
    /// The entity runs on this one.
    #[serde(default)]
    pub runs_on: Option<EntityNaming>,
    /// The entity uses this database, cache or queue.
    #[serde(default)]
    pub uses: Option<EntityNaming>,
    /// Templates of further names of the entity.
    #[serde(default, deserialize_with = "one_or_more")]
    pub aliases: Vec<String>,
    /// Whether the series tells about the monitoring itself or the inside of a runtime.
    #[serde(default)]
    pub internal: bool,
    /// Whether each sample is the number within a period, not the sum of all.
    #[serde(default)]
    pub delta: bool,
    /// Whether further rules that fit count as well: a series may feed several signals.
    #[serde(default)]
    pub also: bool,
}

/// How the called entity is named.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum PeerNaming {
    /// `called`: by the attributes of client metrics, such as `server.address` and `db.system.name`.
    ByAttributes(ByAttributes),
    /// By templates.
    Named(EntityNaming),
}

/// The word `called`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ByAttributes {
    /// The only value.
    Called,
}

/// A condition on a label.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Condition {
    /// The value matches the pattern. `!` before it: does not match, or is absent.
    Is(String),
    /// The value matches one of the patterns.
    OneOf(Vec<String>),
}

/// The unit of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SampleUnit {
    /// A number without a unit.
    Number,
    /// A share, 0..1.
    Ratio,
    /// A share in percent.
    Percent,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
    /// Bytes.
    Bytes,
    /// 1024 bytes.
    Kibibytes,
    /// Events per second.
    PerSecond,
}

impl SampleUnit {
    /// Returns the signal's unit, and the factor to it.
    pub(crate) const fn normal(self) -> (SignalUnit, f64) {
        match self {
            Self::Number => (SignalUnit::Number, 1.0),
            Self::Ratio => (SignalUnit::Ratio, 1.0),
            Self::Percent => (SignalUnit::Ratio, 0.01),
            Self::Seconds => (SignalUnit::Seconds, 1.0),
            Self::Milliseconds => (SignalUnit::Seconds, 1e-3),
            Self::Microseconds => (SignalUnit::Seconds, 1e-6),
            Self::Nanoseconds => (SignalUnit::Seconds, 1e-9),
            Self::Bytes => (SignalUnit::Bytes, 1.0),
            Self::Kibibytes => (SignalUnit::Bytes, 1024.0),
            Self::PerSecond => (SignalUnit::PerSecond, 1.0),
        }
    }

    /// Returns the unit that a metric name ends with.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        const ENDINGS: [(&str, SampleUnit); 11] = [
            ("seconds", SampleUnit::Seconds),
            ("milliseconds", SampleUnit::Milliseconds),
            ("millis", SampleUnit::Milliseconds),
            ("ms", SampleUnit::Milliseconds),
            ("microseconds", SampleUnit::Microseconds),
            ("micros", SampleUnit::Microseconds),
            ("us", SampleUnit::Microseconds),
            ("usec", SampleUnit::Microseconds),
            ("nanoseconds", SampleUnit::Nanoseconds),
            ("nanos", SampleUnit::Nanoseconds),
            ("ns", SampleUnit::Nanoseconds),
        ];
        let last = name.rsplit(['_', '.']).next()?;
        ENDINGS.iter().find_map(|(ending, unit)| (*ending == last).then_some(*unit))
    }

    /// Returns the unit that a sender's metadata says, in OpenTelemetry's or Prometheus' spelling.
    pub(crate) fn of_metadata(unit: &str) -> Option<Self> {
        Some(match unit {
            "s" | "seconds" => Self::Seconds,
            "ms" | "milliseconds" => Self::Milliseconds,
            "us" | "microseconds" => Self::Microseconds,
            "ns" | "nanoseconds" => Self::Nanoseconds,
            "By" | "bytes" => Self::Bytes,
            "1" | "ratio" => Self::Ratio,
            "%" | "percent" => Self::Percent,
            _ => return None,
        })
    }
}

const fn one() -> f64 {
    1.0
}

/// Reads the word for a part.
fn part<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Part>, D::Error> {
    let word = String::deserialize(deserializer)?;
    let known = Part::WORDS.iter().find_map(|(known, part)| (*known == word).then_some(*part));
    let all = || Part::WORDS.map(|(known, _)| known).join(", ");
    let error = || serde::de::Error::custom(format!("part {word:?} is unknown; known parts: {}", all()));
    known.map(Some).ok_or_else(error)
}

/// Reads a text or a list of texts.
fn one_or_more<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    Ok(match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(texts) => texts,
    })
}
