//! The series of a scrape target: how their values follow from the state of what they watch.

use anyhow::Context as _;
use wardroom_domain::{Labels, SeriesId};

use super::random::Random;

/// Upper bounds of histograms, in seconds: the default of the Prometheus clients.
const BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Durations that are drawn for one histogram and scrape; further requests are shared out like these.
const MAX_DRAWN: f64 = 400.0;
/// Noise of a gauge and of a sum, as a share.
const NOISE: f64 = 0.03;
/// The same of a smooth gauge.
const LITTLE_NOISE: f64 = 0.004;

/// How a series follows the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A counter of random events; the expression is their number per second.
    Events,
    /// A counter that grows steadily, such as seconds of CPU; the expression is its growth per second.
    Total,
    /// A gauge with noise.
    Gauge,
    /// A gauge with little noise, such as memory.
    Smooth,
    /// A gauge with noise, in whole numbers.
    Number,
    /// A gauge without noise.
    Level,
    /// A histogram of durations: rate, median in seconds, and units per second (1000 for milliseconds).
    Durations,
    /// The same without buckets: a sum and a count.
    Means,
}

/// One line of an instrumentation.
#[derive(Clone, Debug)]
pub(super) struct SeriesSpec {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) form: Form,
    pub(super) expressions: Vec<Expression>,
}

/// A sum of products of numbers and values of the state; `!x` is 1 − x.
#[derive(Clone, Debug)]
pub(super) struct Expression(Vec<Vec<Factor>>);

#[derive(Clone, Debug)]
enum Factor {
    Number(f64),
    Value(String),
    Complement(String),
}

impl Expression {
    fn parse(text: &str) -> Self {
        let factor = |text: &str| match (text.parse(), text.strip_prefix('!')) {
            (Ok(number), _) => Factor::Number(number),
            (_, Some(name)) => Factor::Complement(name.to_owned()),
            _ => Factor::Value(text.to_owned()),
        };
        Self(text.split('+').map(|product| product.split('*').map(factor).collect()).collect())
    }

    /// Returns the value by the values of the state.
    pub(super) fn value(&self, state: &dyn Fn(&str) -> f64) -> f64 {
        let value = |factor: &Factor| match factor {
            Factor::Number(number) => *number,
            Factor::Value(name) => state(name),
            Factor::Complement(name) => 1.0 - state(name),
        };
        self.0.iter().map(|product| product.iter().map(value).product::<f64>()).sum()
    }
}

impl SeriesSpec {
    /// Reads `name{label=value,…} form expression…`.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut words = text.split_whitespace();
        let series = words.next().context("an empty line")?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let form = match words.next() {
            Some("events") => Form::Events,
            Some("total") => Form::Total,
            Some("gauge") => Form::Gauge,
            Some("smooth") => Form::Smooth,
            Some("number") => Form::Number,
            Some("level") => Form::Level,
            Some("durations") => Form::Durations,
            Some("means") => Form::Means,
            other => anyhow::bail!("{text}: no form {other:?}"),
        };
        let expressions: Vec<_> = words.map(Expression::parse).collect();
        let needed = if matches!(form, Form::Durations | Form::Means) { 3 } else { 1 };
        anyhow::ensure!(expressions.len() == needed, "{text}: {needed} expressions are needed");
        Ok(Self { name: name.to_owned(), labels: pairs(labels.trim_end_matches('}')), form, expressions })
    }

    /// Returns the names and further labels of its series in the registry.
    fn spellings(&self) -> Vec<(String, Option<String>)> {
        let parts = |bounds: bool| {
            let bucket = |le: String| (format!("{}_bucket", self.name), Some(le));
            let buckets = BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]).map(bucket);
            let sums = ["_sum", "_count"].map(|end| (format!("{}{end}", self.name), None));
            buckets.filter(|_| bounds).chain(sums).collect()
        };
        match self.form {
            Form::Durations => parts(true),
            Form::Means => parts(false),
            _ => vec![(self.name.clone(), None)],
        }
    }
}

/// Reads `name=value,…`.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A series of one process, with what it has counted.
#[derive(Debug)]
pub(super) struct LiveSeries {
    spec: SeriesSpec,
    pub(super) ids: Vec<SeriesId>,
    counts: Vec<f64>,
}

impl LiveSeries {
    /// Creates the series; `names` fills in the placeholders of labels, `add` returns the id of a series.
    pub(super) fn new(
        spec: &SeriesSpec,
        scrape: &[(String, String)],
        names: &dyn Fn(&str) -> String,
        add: &dyn Fn(&Labels) -> SeriesId,
    ) -> Self {
        let own =
            || spec.labels.iter().chain(scrape.iter().filter(|(name, _)| spec.labels.iter().all(|own| own.0 != *name)));
        let ids: Vec<SeriesId> = spec
            .spellings()
            .into_iter()
            .map(|(name, bound)| {
                let mut labels: Vec<(String, String)> =
                    own().map(|(name, value)| (name.clone(), names(value))).collect();
                labels.push(("__name__".to_owned(), names(&name)));
                labels.extend(bound.map(|bound| ("le".to_owned(), bound)));
                add(&Labels::new(labels))
            })
            .collect();
        Self { spec: spec.clone(), counts: vec![0.0; ids.len()], ids }
    }

    /// Returns the values after so many seconds.
    pub(super) fn scrape(&mut self, seconds: f64, state: &dyn Fn(&str) -> f64, random: &mut Random) -> Vec<f64> {
        let values: Vec<f64> = self.spec.expressions.iter().map(|expression| expression.value(state)).collect();
        let first = values[0];
        let noisy = |value: f64, random: &mut Random| value * (1.0 + NOISE * random.normal());
        match self.spec.form {
            Form::Level => return values,
            Form::Smooth => return vec![first * (1.0 + LITTLE_NOISE * random.normal())],
            Form::Gauge => return vec![noisy(first, random)],
            Form::Number => return vec![noisy(first, random).round().max(0.0)],
            Form::Events => self.counts[0] += random.poisson((first * seconds).max(0.0)),
            Form::Total => self.counts[0] += (noisy(first, random) * seconds).max(0.0),
            Form::Durations | Form::Means => {
                self.draw(random.poisson((first * seconds).max(0.0)), (values[1], values[2]), random)
            }
        }
        self.counts.clone()
    }

    fn draw(&mut self, requests: f64, (median, unit): (f64, f64), random: &mut Random) {
        let drawn = requests.min(MAX_DRAWN);
        let weight = if drawn > 0.0 { requests / drawn } else { 0.0 };
        let buckets = self.counts.len() - 2;
        for _ in 0..drawn as u64 {
            let seconds = random.duration(median);
            for (count, bound) in self.counts[..buckets].iter_mut().zip(BOUNDS.into_iter().chain([f64::INFINITY])) {
                if seconds <= bound {
                    *count += weight;
                }
            }
            self.counts[buckets] += seconds * unit * weight;
        }
        self.counts[buckets + 1] += requests;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_a_sum_of_products() {
        let state = |name: &str| if name == "rate" { 20.0 } else { 0.25 };
        for (text, value) in [("rate", 20.0), ("rate*!errors", 15.0), ("2*rate+errors", 40.25)] {
            assert_eq!(Expression::parse(text).value(&state), value, "{text}");
        }
        assert!(SeriesSpec::parse("up gauge").is_err() && SeriesSpec::parse("up sometimes 1").is_err());
    }
}
