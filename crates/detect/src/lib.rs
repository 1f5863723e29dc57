//! Tier 1: a cheap detector on every series, and the golden signals of every service.
//!
//! ```text
//! gauge, counter rate ─► z-score (seed 002) ─► shifts, unusual points within a budget ─► anomalies
//! _bucket series ─► joined histogram ─► request rate, error ratio, p99 (10 s) ──► breaches
//! native histograms, spans ─► the same, and who calls whom
//! process_* series ─► CPU %, memory % of the limit (seed 003) ──────────────────► breaches
//! log lines ─► templates, setting changes          deployments ─► list
//! ```
//!
//! The z-score is computed as seed 002 wrote it: window 1000, ten samples cold start, bands 2.5 / 3 / 4;
//! a spread of 0 gives no z. It opens nothing alone: only a [`Breach`], at least five consecutive points
//! with an effect of at least 20 % on a signal that customers or limits feel, may.
//!
//! Pure: state and samples in, findings out; all time is the telemetry's own.

#![forbid(unsafe_code)]

mod baseline;
mod budget;
mod coarse;
mod config;
mod engine;
mod health;
mod histogram;
mod logs;
mod seen;
mod signal;
mod traces;
mod watch;

pub use baseline::Baseline;
pub use config::Config;
pub use engine::{Engine, Findings};
pub use health::health;
pub use logs::{SettingChange, TemplateCount, template};
pub use seen::Seen;
pub use signal::{Breach, Signal, SignalKey, SignalKind};
pub use watch::{Run, Shift, Watch};
