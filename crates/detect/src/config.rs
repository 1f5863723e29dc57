//! Configuration of detection.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_COUNT};

/// Maximum of a threshold for |z|.
const MAX_Z: f64 = 1000.0;
/// Maximum of an effect, as a share of the mean.
const MAX_EFFECT: f64 = 1000.0;
/// Maximum number of requests that a window needs.
const MAX_REQUESTS: f64 = 1e9;
/// Maximum of a latency, and of a window of the service signals, in seconds.
const MAX_WINDOW_SECONDS: u32 = 24 * 3600;
/// Maximum number of samples or points that detection keeps or waits for.
const MAX_POINTS: u32 = 1_000_000;

/// Settings of Tier 1.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// |z| above this is a `warning`. Default 2.5. Since 0.1.
    pub z_warning: f64,
    /// |z| above this is `high`. Default 3. Since 0.1.
    pub z_high: f64,
    /// |z| above this is `critical`. Default 4. Since 0.1.
    pub z_critical: f64,
    /// Samples a baseline needs before values are scored. Default 10. Since 0.1.
    pub cold_start: u32,
    /// Consecutive points a breach needs. Default 5. Since 0.1.
    pub consecutive: u32,
    /// Smallest change that is an effect, as a share of the mean. Default 0.2. Since 0.1.
    pub effect: f64,
    /// Window of the service signals, in seconds. Default 10. Since 0.1.
    pub window_seconds: u32,
    /// Requests a window needs before its error ratio and p99 are computed. Default 10. Since 0.1.
    pub min_requests: f64,
    /// Error ratio that is a breach, 0..1. Default 0.05. Since 0.1.
    pub error_ratio: f64,
    /// Smallest rise of the p99 that is a breach, in seconds. Default 0.15. Since 0.1.
    pub latency_floor_seconds: f64,
    /// CPU share of the limit that is a breach, 0..1. Default 0.8. Since 0.1.
    pub cpu: f64,
    /// Memory share of the limit that is a breach, 0..1. Default 0.85. Since 0.1.
    pub memory: f64,
    /// Names of counters of CPU seconds used. Since 0.1.
    pub cpu_metrics: Vec<String>,
    /// Names of gauges of the CPU limit, in cores. Since 0.1.
    pub cpu_limit_metrics: Vec<String>,
    /// Names of gauges of memory in use, in bytes. Since 0.1.
    pub memory_metrics: Vec<String>,
    /// Names of gauges of the memory limit, in bytes. Since 0.1.
    pub memory_limit_metrics: Vec<String>,
    /// Unusual points reported per second of event time, most extreme first: a million healthy series have thousands
    /// of them by chance. Default 2. Since 0.1.
    pub points_per_second: u32,
    /// Level shifts reported per second of event time, most extreme first. Default 50. Since 0.1.
    pub shifts_per_second: u32,
    /// Points of each service signal kept for diagnosis, verification and charts. Default 900. Since 0.1.
    pub history: usize,
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        for (field, value) in [
            ("detect.z-warning", self.z_warning),
            ("detect.z-high", self.z_high),
            ("detect.z-critical", self.z_critical),
        ] {
            problems.number(field, value, 0.0..=MAX_Z);
        }
        problems.ordered(("detect.z-high", self.z_high), ("detect.z-warning", self.z_warning));
        problems.ordered(("detect.z-critical", self.z_critical), ("detect.z-high", self.z_high));
        for (field, ratio) in
            [("detect.error-ratio", self.error_ratio), ("detect.cpu", self.cpu), ("detect.memory", self.memory)]
        {
            problems.ratio(field, ratio);
        }
        problems.number("detect.effect", self.effect, 0.0..=MAX_EFFECT);
        problems.number("detect.min-requests", self.min_requests, 0.0..=MAX_REQUESTS);
        let longest = f64::from(MAX_WINDOW_SECONDS);
        problems.number("detect.latency-floor-seconds", self.latency_floor_seconds, 0.0..=longest);
        problems.range("detect.cold-start", self.cold_start, 1..=MAX_POINTS);
        problems.range("detect.consecutive", self.consecutive, 1..=MAX_POINTS);
        problems.range("detect.window-seconds", self.window_seconds, 1..=MAX_WINDOW_SECONDS);
        problems.range("detect.points-per-second", u64::from(self.points_per_second), 0..=MAX_COUNT);
        problems.range("detect.shifts-per-second", u64::from(self.shifts_per_second), 0..=MAX_COUNT);
        problems.range("detect.history", self.history, 1..=MAX_POINTS as usize);
        // A breach needs the consecutive points in the history.
        problems.ordered(("detect.history", self.history), ("detect.consecutive", self.consecutive as usize));
        problems.names("detect.cpu-metrics", &self.cpu_metrics);
        problems.names("detect.cpu-limit-metrics", &self.cpu_limit_metrics);
        problems.names("detect.memory-metrics", &self.memory_metrics);
        problems.names("detect.memory-limit-metrics", &self.memory_limit_metrics);
    }
}

impl Default for Config {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            z_warning: 2.5,
            z_high: 3.0,
            z_critical: 4.0,
            cold_start: 10,
            consecutive: 5,
            effect: 0.2,
            window_seconds: 10,
            min_requests: 10.0,
            error_ratio: 0.05,
            latency_floor_seconds: 0.15,
            cpu: 0.8,
            memory: 0.85,
            cpu_metrics: list(&["process_cpu_seconds_total", "container_cpu_usage_seconds_total"]),
            cpu_limit_metrics: list(&["process_cpu_limit_cores", "container_cpu_limit_cores"]),
            memory_metrics: list(&["process_resident_memory_bytes", "container_memory_working_set_bytes"]),
            memory_limit_metrics: list(&["process_memory_limit_bytes", "container_spec_memory_limit_bytes"]),
            points_per_second: 2,
            shifts_per_second: 50,
            history: 900,
        }
    }
}
