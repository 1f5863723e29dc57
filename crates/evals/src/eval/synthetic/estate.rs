//! One estate: a component, those that call it, and neighbours, each with its scrape targets.

use std::collections::BTreeMap;

use wardroom_domain::sample::STALE_NAN_BITS;
use wardroom_domain::{Sample, SeriesId, Timestamp};

use super::instrumentation::{Change, Effect, Instrumentation, TargetSpec};
use super::random::Random;
use super::scraping::{Form, LiveSeries, SeriesSpec, pairs};
use crate::eval::detection_run::DetectionRun;
use crate::eval::score::Truth;

/// Begin of all estates: some day at noon.
const START_MS: i64 = 1_790_000_000_000 / 60_000 * 60_000;
/// Scrape intervals, in seconds; the usual ones more often.
const INTERVALS: [i64; 8] = [5, 10, 15, 15, 30, 30, 60, 60];
/// Time before the change: at least, and what chance adds, in seconds.
const PAST_SECONDS: (i64, f64) = (1800, 1800.0);
/// Time after the change, in seconds.
const AFTER_SECONDS: i64 = 720;
/// Factors of the load.
const LOADS: [f64; 5] = [0.2, 0.5, 1.0, 2.0, 4.0];
/// A process of a deployment is replaced this long after the one before, in seconds.
const ROLLOUT_SECONDS: i64 = 20;
/// From a scrape to its arrival, in ms.
const TRANSPORT_MS: i64 = 150;
/// Callers and neighbours.
const MAX_CALLERS: usize = 2;
const NEIGHBOURS: usize = 2;

/// An estate.
pub(super) struct Estate {
    random: Random,
    components: Vec<Component>,
    changed_s: i64,
    end_s: i64,
    names: Vec<String>,
}

/// A component with its processes.
struct Component {
    /// What the placeholders in labels stand for.
    names: BTreeMap<String, String>,
    state: BTreeMap<String, f64>,
    effects: BTreeMap<String, Effect>,
    change: Change,
    targets: Vec<Target>,
    pods: Vec<Pod>,
}

/// A process.
#[derive(Clone)]
struct Pod {
    name: String,
    address: String,
    started_s: i64,
    /// Number of starts of this process.
    restarts: u32,
    /// Number of processes before it.
    replaced: u32,
}

/// A scrape target.
struct Target {
    labels: Vec<(String, String)>,
    specs: Vec<SeriesSpec>,
    pod: usize,
    each_pod: bool,
    apart: bool,
    interval_s: i64,
    phase_ms: i64,
    /// Replacements and starts of the process that the series are of.
    generation: (u32, u32),
    series: Vec<LiveSeries>,
    up: Option<SeriesId>,
    scraped_s: i64,
    was_up: bool,
}

impl Estate {
    /// Builds the estate of a case.
    ///
    /// # Errors
    /// Returns an error if a line of an instrumentation cannot be read.
    pub(super) fn new(
        name: &str,
        seed: u64,
        (of, change): (&Instrumentation, &Change),
        all: &[Instrumentation],
    ) -> anyhow::Result<Self> {
        let mut random = Random::new(name, seed);
        let interval_s = random.one_of(&INTERVALS);
        let mut target = Component::new(of, interval_s, &mut random)?;
        target.change = change.clone();
        target.effects = change.set.clone();
        let also = change.also.iter().map(|name| fill(name, &target.names));
        let names: Vec<String> = std::iter::once(target.names["name"].clone()).chain(also).collect();
        let mut components = Vec::new();
        let callers: Vec<&Instrumentation> = all.iter().filter(|it| it.clients.contains_key(&of.called_as)).collect();
        for _ in 0..if callers.is_empty() { 0 } else { 1 + random.index(MAX_CALLERS) } {
            let kind = random.one_of(&callers);
            let mut caller = Component::new(kind, interval_s, &mut random)?;
            caller.effects = change.callers.clone();
            caller.names.insert("callee".to_owned(), target.names["address"].clone());
            for (name, value) in &target.state {
                caller.state.entry(format!("call_{name}")).or_insert(*value);
            }
            let specs = kind.clients[&of.called_as].iter().map(|line| SeriesSpec::parse(line));
            let specs: Vec<SeriesSpec> = specs.collect::<anyhow::Result<_>>()?;
            caller.targets.iter_mut().filter(|it| !it.apart).for_each(|it| it.specs.extend(specs.iter().cloned()));
            components.push(caller);
        }
        for _ in 0..NEIGHBOURS {
            components.push(Component::new(&all[random.index(all.len())], interval_s, &mut random)?);
        }
        components.push(target);
        let changed_s = PAST_SECONDS.0 + (PAST_SECONDS.1 * random.uniform()) as i64;
        Ok(Self { random, components, changed_s, end_s: changed_s + AFTER_SECONDS, names })
    }

    /// Returns what is known of the case.
    pub(super) fn truth(&self, name: &str, kind: &str, healthy: bool) -> Truth {
        let injected_ms = START_MS + self.changed_s * 1000;
        let interval_s = self.components.last().and_then(|it| it.targets.first()).map_or(0, |it| it.interval_s);
        let name = format!("{name} {interval_s}s");
        Truth { name, kind: kind.to_owned(), healthy, injected_ms, names: self.names.clone() }
    }

    /// Scrapes everything to the end of the case; `dump` receives the labels of all series.
    pub(super) fn play(&mut self, run: &mut DetectionRun, mut dump: Option<&mut Vec<String>>) {
        for at_s in 0..self.end_s {
            let since_change = at_s - self.changed_s;
            for component in &mut self.components {
                if since_change >= 0 {
                    component.follow_change(at_s, since_change, &mut self.random);
                }
                for index in 0..component.targets.len() {
                    if (at_s + component.targets[index].phase_ms / 1000) % component.targets[index].interval_s == 0 {
                        component.scrape(index, (at_s, since_change), run, &mut self.random, &mut dump);
                    }
                }
            }
        }
    }
}

impl Component {
    fn new(of: &Instrumentation, interval_s: i64, random: &mut Random) -> anyhow::Result<Self> {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        names.insert("word".to_owned(), format!("{}-{}", random.word(), random.word()));
        names.insert("ns".to_owned(), random.word().to_owned());
        let node = format!("ip-10-{}-{}-{}", random.index(200), random.index(200), random.index(200));
        names.insert("node".to_owned(), node);
        names.insert("host".to_owned(), format!("{}-{}.internal", random.word(), random.index(90) + 10));
        names.insert("id".to_owned(), random.suffix(10));
        names.insert("name".to_owned(), fill(&of.name, &names));
        names.insert("callee".to_owned(), String::new());
        let address = fill(&of.address, &names);
        names.insert("address".to_owned(), address);
        let load = random.one_of(&LOADS);
        let state = of.state.iter().map(|(name, value)| {
            let value = if name == "rate" { value * load } else { *value };
            (name.clone(), value)
        });
        let pods: Vec<Pod> = (0..of.pods).map(|_| Pod::new(&names, 0, 0, random)).collect();
        let mut targets = Vec::new();
        for spec in &of.targets {
            for pod in 0..if spec.each_pod { pods.len() } else { 1 } {
                targets.push(Target::new(spec, pod, interval_s, random)?);
            }
        }
        let (effects, change) = (BTreeMap::new(), Change::default());
        Ok(Self { state: state.collect(), names, effects, change, targets, pods })
    }

    /// Restarts and replaces processes as the change says.
    fn follow_change(&mut self, at_s: i64, since_change: i64, random: &mut Random) {
        let every = self.change.restart_every as i64;
        if every > 0 && since_change % every == 0 {
            self.pods[0].started_s = at_s;
            self.pods[0].restarts += 1;
        }
        if self.change.redeploy && since_change % ROLLOUT_SECONDS == 0 {
            let index = (since_change / ROLLOUT_SECONDS) as usize;
            if let Some(pod) = self.pods.get_mut(index) {
                *pod = Pod::new(&self.names, at_s, pod.replaced + 1, random);
            }
        }
    }

    /// Returns a value of the state.
    fn value(&self, name: &str, since_change: f64) -> f64 {
        let base = self.state.get(name).copied().unwrap_or_default();
        let plain = name.strip_prefix("call_").unwrap_or(name);
        match self.effects.get(name).or_else(|| self.effects.get(plain)) {
            Some(effect) if since_change >= 0.0 => effect.apply(base, since_change),
            _ => base,
        }
    }

    fn scrape(
        &mut self,
        index: usize,
        (at_s, since_change): (i64, i64),
        run: &mut DetectionRun,
        random: &mut Random,
        dump: &mut Option<&mut Vec<String>>,
    ) {
        let at_ms = START_MS + at_s * 1000 + self.targets[index].phase_ms % 1000;
        let in_gap = since_change >= 0 && (since_change as f64) < self.change.gap;
        let down = |pod: usize| since_change >= 0 && pod < self.change.down as usize;
        let (pod, is_apart) = (self.targets[index].pod, self.targets[index].apart);
        let is_up = !in_gap && (is_apart || !down(pod));
        let mut samples: Vec<(SeriesId, f64)> = Vec::new();
        let stale = f64::from_bits(STALE_NAN_BITS);
        let target = &mut self.targets[index];
        let restarts = if is_apart { 0 } else { self.pods[pod].restarts };
        let generation = if target.each_pod { (self.pods[pod].replaced, restarts) } else { (0, 0) };
        let is_replaced = generation.0 != target.generation.0;
        if !is_up || is_replaced {
            let ids = target.series.iter().flat_map(|series| series.ids.iter().copied());
            samples.extend(ids.filter(|_| target.was_up).map(|id| (id, stale)));
        }
        if generation != target.generation {
            // The process has another name or counts from zero again.
            samples.extend(target.up.take().filter(|_| is_replaced).map(|id| (id, stale)));
            target.generation = generation;
            target.series.clear();
        }
        if target.series.is_empty() {
            let names = names_of(&self.names, &self.pods[pod]);
            let fill = |text: &str| fill(text, &names);
            let add = |labels: &wardroom_domain::Labels| run.series(labels);
            target.series =
                target.specs.iter().map(|spec| LiveSeries::new(spec, &target.labels, &fill, &add)).collect();
            let up =
                SeriesSpec { name: "up".to_owned(), labels: Vec::new(), form: Form::Level, expressions: Vec::new() };
            let has_up = !target.apart || target.pod == 0;
            let up = LiveSeries::new(&up, &target.labels, &fill, &add);
            target.up = up.ids.first().copied().filter(|_| has_up);
            if let Some(dump) = dump {
                dump.push(format!("{names:?}"));
                dump.extend(target.specs.iter().map(|spec| format!("{} {:?}", spec.name, spec.labels)));
            }
        }
        samples.extend(target.up.map(|up| (up, f64::from(u8::from(is_up)))));
        let seconds = (at_s - target.scraped_s.max(self.pods[pod].started_s)).max(1) as f64;
        (target.scraped_s, target.was_up) = (at_s, is_up);
        if is_up {
            let mut series = std::mem::take(&mut self.targets[index].series);
            let started_s = self.pods[pod].started_s;
            let state = |name: &str| match name {
                "now" => at_ms as f64 / 1000.0,
                "begin" => START_MS as f64 / 1000.0,
                "restarts" => f64::from(self.pods[pod].restarts),
                "started" => (START_MS / 1000 + started_s - 86_400 * i64::from(started_s == 0)) as f64,
                _ => self.value(name, since_change as f64),
            };
            for live in &mut series {
                samples.extend(live.ids.clone().into_iter().zip(live.scrape(seconds, &state, random)));
            }
            self.targets[index].series = series;
        }
        let samples: Vec<_> = samples.into_iter().map(|(id, value)| (id, Sample { ts_ms: at_ms, value })).collect();
        run.scrape(Timestamp::from_millis(at_ms + TRANSPORT_MS), &samples);
    }
}

impl Pod {
    fn new(names: &BTreeMap<String, String>, started_s: i64, replaced: u32, random: &mut Random) -> Self {
        let name = format!("{}-{}-{}", names["name"], random.suffix(9), random.suffix(5));
        let address = format!("10.{}.{}.{}", random.index(250), random.index(250), random.index(250) + 1);
        Self { name, address, started_s, restarts: 0, replaced }
    }
}

impl Target {
    fn new(spec: &TargetSpec, pod: usize, interval_s: i64, random: &mut Random) -> anyhow::Result<Self> {
        let specs = spec.series.iter().map(|line| SeriesSpec::parse(line)).collect::<anyhow::Result<_>>()?;
        Ok(Self {
            labels: pairs(&spec.labels),
            specs,
            pod,
            each_pod: spec.each_pod,
            apart: spec.apart,
            interval_s,
            phase_ms: (random.uniform() * interval_s as f64 * 1000.0) as i64,
            generation: (0, 0),
            series: Vec::new(),
            up: None,
            scraped_s: 0,
            was_up: false,
        })
    }
}

/// Returns the placeholders of a component and of one of its processes.
fn names_of(names: &BTreeMap<String, String>, pod: &Pod) -> BTreeMap<String, String> {
    let mut names = names.clone();
    names.insert("pod".to_owned(), pod.name.clone());
    names.insert("ip".to_owned(), pod.address.clone());
    names
}

/// Replaces `$name` by the value of a placeholder; the longest that fits counts.
fn fill(text: &str, names: &BTreeMap<String, String>) -> String {
    let mut filled = text.to_owned();
    let mut keys: Vec<&String> = names.keys().collect();
    keys.sort_by_key(|key| std::cmp::Reverse(key.len()));
    for key in keys {
        filled = filled.replace(&format!("${key}"), &names[key]);
    }
    filled
}
