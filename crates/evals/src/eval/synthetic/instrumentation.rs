//! The files below `estates`: what an instrumentation exports, and what happens to what it watches.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize;

/// All files, in the order of their cases.
const FILES: &[(&str, &str)] = &[
    ("prometheus-go", include_str!("../../../estates/prometheus-go.yaml")),
    ("prometheus-python", include_str!("../../../estates/prometheus-python.yaml")),
    ("prometheus-node", include_str!("../../../estates/prometheus-node.yaml")),
    ("micrometer", include_str!("../../../estates/micrometer.yaml")),
    ("opentelemetry", include_str!("../../../estates/opentelemetry.yaml")),
    ("opentelemetry-old", include_str!("../../../estates/opentelemetry-old.yaml")),
    ("grpc", include_str!("../../../estates/grpc.yaml")),
    ("istio", include_str!("../../../estates/istio.yaml")),
    ("linkerd", include_str!("../../../estates/linkerd.yaml")),
    ("envoy", include_str!("../../../estates/envoy.yaml")),
    ("haproxy", include_str!("../../../estates/haproxy.yaml")),
    ("ingress-nginx", include_str!("../../../estates/ingress-nginx.yaml")),
    ("kubernetes", include_str!("../../../estates/kubernetes.yaml")),
    ("node-exporter", include_str!("../../../estates/node-exporter.yaml")),
    ("postgres", include_str!("../../../estates/postgres.yaml")),
    ("mysql", include_str!("../../../estates/mysql.yaml")),
    ("redis", include_str!("../../../estates/redis.yaml")),
    ("kafka", include_str!("../../../estates/kafka.yaml")),
    ("rabbitmq", include_str!("../../../estates/rabbitmq.yaml")),
    ("blackbox", include_str!("../../../estates/blackbox.yaml")),
];

/// One instrumentation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Instrumentation {
    /// Its name.
    pub(super) instrumentation: String,
    /// Template of a component's name; `$word` is a random word.
    #[serde(default = "word")]
    pub(super) name: String,
    /// Template of the address that others call it by.
    #[serde(default = "name")]
    pub(super) address: String,
    /// Processes of a component.
    #[serde(default = "one")]
    pub(super) pods: u32,
    /// The clients' series of callers that others use for it: a key of their `clients`; none calls it without one.
    #[serde(default)]
    pub(super) called_as: String,
    /// The series of the calls to others, by what is called.
    #[serde(default)]
    pub(super) clients: BTreeMap<String, Vec<String>>,
    /// The state while nothing happens; `rate` varies between cases.
    pub(super) state: BTreeMap<String, f64>,
    /// What is scraped.
    pub(super) targets: Vec<TargetSpec>,
    /// What is wrong in a case.
    #[serde(default)]
    pub(super) faults: BTreeMap<String, Change>,
    /// What happens in a healthy case.
    #[serde(default)]
    pub(super) healthy: BTreeMap<String, Change>,
}

/// A scrape target.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct TargetSpec {
    /// Labels of the scrape, as `name=value,…`; they are those of `up`, too.
    pub(super) labels: String,
    /// Whether there is one for each process; it is down while the process is.
    #[serde(default)]
    pub(super) each_pod: bool,
    /// Whether the target is another process: it stays up while the component's processes are down.
    #[serde(default)]
    pub(super) apart: bool,
    /// The series: `name{label=value,…} form expression`.
    pub(super) series: Vec<String>,
}

/// What changes the state of a component.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Change {
    /// New values of the state.
    pub(super) set: BTreeMap<String, Effect>,
    /// New values of the state of those that call it.
    pub(super) callers: BTreeMap<String, Effect>,
    /// Processes that go down and stay so.
    pub(super) down: u32,
    /// Time without any scrape of the component, in seconds.
    pub(super) gap: f64,
    /// Whether all processes are replaced one after the other, as in a deployment.
    pub(super) redeploy: bool,
    /// Interval at which the first process is restarted, in seconds.
    pub(super) restart_every: f64,
    /// Templates of names that are right, beside the component's.
    pub(super) also: Vec<String>,
}

/// How a value of the state changes.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Effect {
    /// It has this value from then on.
    To(f64),
    /// It takes a shape.
    Shape(Shape),
}

/// The shape of a change; without a field the value stays as it was.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Shape {
    /// New value.
    pub(super) to: Option<f64>,
    /// Multiple of the value.
    pub(super) times: Option<f64>,
    /// Added to the value.
    pub(super) plus: f64,
    /// Added in each second.
    pub(super) grow: f64,
    /// Largest value.
    pub(super) most: Option<f64>,
    /// Time over which the change comes, in seconds.
    pub(super) over: f64,
    /// Time that it lasts, in seconds; indefinitely without it.
    #[serde(rename = "for")]
    pub(super) lasts: Option<f64>,
    /// Interval at which it comes again, in seconds.
    pub(super) every: Option<f64>,
}

impl Effect {
    /// Returns a value this long after the change, in seconds.
    pub(super) fn apply(&self, value: f64, after: f64) -> f64 {
        let shape = match self {
            Self::To(value) => return *value,
            Self::Shape(shape) => shape,
        };
        let after = shape.every.map_or(after, |every| after % every);
        if shape.lasts.is_some_and(|lasts| after >= lasts) {
            return value;
        }
        let target = shape.to.unwrap_or(value * shape.times.unwrap_or(1.0) + shape.plus);
        let share = if shape.over > 0.0 { (after / shape.over).min(1.0) } else { 1.0 };
        let changed = value + (target - value) * share + shape.grow * after;
        shape.most.map_or(changed, |most| changed.min(most))
    }
}

/// Reads all files.
pub(super) fn instrumentations() -> anyhow::Result<Vec<Instrumentation>> {
    let read = |(name, text): &(&str, &str)| {
        serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{error}")).with_context(|| format!("{name}.yaml"))
    };
    FILES.iter().map(read).collect()
}

fn word() -> String {
    "$word".to_owned()
}

fn name() -> String {
    "$name".to_owned()
}

const fn one() -> u32 {
    1
}
