//! Detection: from samples, spans and log lines to findings.
//!
//! ```text
//! series ─► wardroom_signals::Catalog ─► what it means ─┬─► z-score of the series itself ─► anomalies
//!                                                         └─► parts of signals
//! parts of signals, spans, error lines ─► points (whole scrapes, windows that share no samples)
//! points ─► evaluation: shifts against a signal's own past ─► anomalies;  rules ─► findings
//! labels, start times, versions, announced settings ─► events;  labels, spans ─► graph of entities
//! ```
//!
//! The z-score of a series uses a window of 1000 samples, a cold start of ten samples and the bands 2.5 / 3 / 4; a
//! standard deviation of 0 gives no z-score. An anomaly does not open an incident. Only a [`Finding`] does: a rule over
//! a signal that users or resource limits are affected by, which held for long enough and by enough.
//!
//! This crate is pure: state and samples in, findings out. All times are event times of the telemetry, capped by the
//! time of arrival; each entity has its own, so that a clock that runs ahead changes nothing for others.
//!
//! [`Finding`]: wardroom_domain::Finding

#![forbid(unsafe_code)]

mod baseline;
mod budget;
mod config;
mod dedup;
mod durations;
mod engine;
mod evaluation;
mod events;
mod health;
mod logs;
mod point;
mod points;
mod series_detector;
mod signals;
mod traces;
mod view;

pub use config::Config;
pub use dedup::DedupCache;
pub use engine::{BatchFindings, Engine, EngineSize, LimitedRecords};
pub use evaluation::rules;
pub use evaluation::{Bad, Baseline, Judgement, Signal, SignalShift};
pub use health::health;
pub use logs::{TemplateCount, TemplateMiner, template};
pub use point::{Flow, Point, RequestCounts, Tail};
pub use series_detector::{Excursion, LevelShift, SeriesDetector};
pub use signals::Signals;
pub use view::EngineView;
