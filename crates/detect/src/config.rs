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
/// Maximum of a latency, a window and a duration, in seconds.
const MAX_TIME_SECONDS: u32 = 24 * 3600;
/// Maximum of a time after which something is learned, and of a forecast, in seconds.
const MAX_RELEARN_SECONDS: u32 = 400 * 24 * 3600;
/// Maximum number of restarts of a crash loop: more are not counted.
const MAX_RESTARTS: u32 = 60;
/// Points of a signal that the rules look at.
const MIN_HISTORY: usize = 60;
/// Maximum number of points that are kept of a signal.
const MAX_POINTS: usize = 1_000_000;

/// Settings of detection.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// |z| above this is a `warning` in the list of anomalies. Default 2.5. Since 0.1.
    pub z_warning: f64,
    /// |z| above this is `high`. Default 3. Since 0.1.
    pub z_high: f64,
    /// |z| above this is `critical`. Default 4. Since 0.1.
    pub z_critical: f64,
    /// Smallest change that is a level shift, as a share of the mean. Default 0.2. Since 0.1.
    pub effect: f64,
    /// Time that a series must be away from its mean for a level shift, in seconds. Default 30. Since 0.2.
    pub shift_seconds: u32,
    /// Shortest window of a point, in seconds; a point covers at least one interval of the sender. Default 5. Since
    /// 0.1.
    pub window_seconds: u32,
    /// Requests that a window needs before its error ratio is computed; windows are joined until it has them.
    /// Default 10. Since 0.1.
    pub min_requests: f64,
    /// Past that a signal needs before it is compared with it, in seconds of telemetry. Default 20. Since 0.2.
    pub cold_start_seconds: u32,
    /// Time after which a new level of a signal in fault becomes its normal one, in seconds. Default 86400. Since 0.2.
    pub relearn_seconds: u32,
    /// Smallest share of failing requests that is a finding, 0..1, however few failed before. Default 0.01. Since 0.1.
    pub error_ratio: f64,
    /// Smallest rise of a latency that is a finding, in seconds. Default 0.025. Since 0.1.
    pub latency_floor_seconds: f64,
    /// Share of a limit from which a resource is nearly exhausted, 0..1. Default 0.9. Since 0.2.
    pub saturation: f64,
    /// Time that CPU and other shared resources must be exhausted for a finding, in seconds. Default 90. Since 0.2.
    pub shared_saturation_seconds: u32,
    /// A resource that grows is a finding if it will be exhausted within this time, in seconds. Default 1800. Since
    /// 0.2.
    pub forecast_horizon_seconds: u32,
    /// Restarts within 15 minutes that are a crash loop. Default 3. Since 0.2.
    pub crash_loop_restarts: u32,
    /// Whether a large, sustained shift of a series that no convention knows may open an incident. Default false. Since
    /// 0.2.
    pub unknown_series_open: bool,
    /// Share of a limit at which CPU is in the list of anomalies, 0..1; critical from 0.95 on. Default 0.8. Since 0.1.
    pub cpu: f64,
    /// The same for memory. Default 0.85. Since 0.1.
    pub memory: f64,
    /// The same for file systems. Default 0.9. Since 0.2.
    pub disk: f64,
    /// Anomalous points reported per second of event time, most extreme first: a million healthy series have thousands
    /// of them by chance. Default 2. Since 0.1.
    pub points_per_second: u32,
    /// Level shifts reported per second of event time, most extreme first. Default 50. Since 0.1.
    pub shifts_per_second: u32,
    /// Points of each signal kept for diagnosis, verification and charts, for a day at most. Default 900. Since 0.1.
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
        for (field, ratio) in [
            ("detect.error-ratio", self.error_ratio),
            ("detect.saturation", self.saturation),
            ("detect.cpu", self.cpu),
            ("detect.memory", self.memory),
            ("detect.disk", self.disk),
        ] {
            problems.ratio(field, ratio);
        }
        problems.number("detect.effect", self.effect, 0.0..=MAX_EFFECT);
        problems.number("detect.min-requests", self.min_requests, 0.0..=MAX_REQUESTS);
        problems.number("detect.latency-floor-seconds", self.latency_floor_seconds, 0.0..=f64::from(MAX_TIME_SECONDS));
        for (field, seconds) in [
            ("detect.window-seconds", self.window_seconds),
            ("detect.shift-seconds", self.shift_seconds),
            ("detect.cold-start-seconds", self.cold_start_seconds),
            ("detect.shared-saturation-seconds", self.shared_saturation_seconds),
        ] {
            problems.range(field, seconds, 1..=MAX_TIME_SECONDS);
        }
        problems.range("detect.relearn-seconds", self.relearn_seconds, 600..=MAX_RELEARN_SECONDS);
        problems.range("detect.forecast-horizon-seconds", self.forecast_horizon_seconds, 1..=MAX_RELEARN_SECONDS);
        problems.range("detect.crash-loop-restarts", self.crash_loop_restarts, 1..=MAX_RESTARTS);
        problems.range("detect.points-per-second", u64::from(self.points_per_second), 0..=MAX_COUNT);
        problems.range("detect.shifts-per-second", u64::from(self.shifts_per_second), 0..=MAX_COUNT);
        // Rules look at the newest points of the history.
        problems.range("detect.history", self.history, MIN_HISTORY..=MAX_POINTS);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            z_warning: 2.5,
            z_high: 3.0,
            z_critical: 4.0,
            effect: 0.2,
            shift_seconds: 30,
            window_seconds: 5,
            min_requests: 10.0,
            cold_start_seconds: 20,
            relearn_seconds: 24 * 3600,
            error_ratio: 0.01,
            latency_floor_seconds: 0.025,
            saturation: 0.9,
            shared_saturation_seconds: 90,
            forecast_horizon_seconds: 1800,
            crash_loop_restarts: 3,
            unknown_series_open: false,
            cpu: 0.8,
            memory: 0.85,
            disk: 0.9,
            points_per_second: 2,
            shifts_per_second: 50,
            history: 900,
        }
    }
}
