//! Tier 1 detection: a cheap z-score detector for every series, and the golden signals of every service.
//!
//! ```text
//! gauge, counter rate ─► z-score ─► level shifts, unusual points within a budget ──────► anomalies
//! _bucket series ─► joined histogram ─► request rate, error ratio, p99 (10 s) ──► breaches
//! native histograms, spans ─► the same signals, and the call graph
//! process_* series ─► CPU %, memory % of the limit ─────────────────────────────► breaches
//! log lines ─► templates, setting changes          deployments ─► kept as a list
//! ```
//!
//! The z-score uses a window of 1000 samples, a cold start of ten samples and the bands 2.5 / 3 / 4; a standard
//! deviation of 0 gives no z-score. An anomaly does not open an incident. Only a [`Breach`] does: at least five
//! consecutive points with an effect of at least 20 % on a signal that users or resource limits are affected by.
//!
//! This crate is pure: state and samples in, findings out. All times are event times of the telemetry.

#![forbid(unsafe_code)]

mod baseline;
mod budget;
mod config;
mod dedup;
mod deployments;
mod durations;
mod engine;
mod health;
mod histogram;
mod logs;
mod series_detector;
mod signal;
mod signals;
mod traces;
mod view;

pub use baseline::Baseline;
pub use config::Config;
pub use dedup::DedupCache;
pub use engine::{BatchFindings, Engine, LimitedRecords};
pub use health::health;
pub use logs::{SettingChange, TemplateCount, template};
pub use series_detector::{Excursion, LevelShift, SeriesDetector};
pub use signal::{Breach, Signal, SignalKey, SignalKind};
pub use signals::Signals;
pub use view::EngineView;
