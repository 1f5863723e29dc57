//! Medians, ratios and goals of `bench intake`.

use serde_json::{Value, json};

use super::statistics::median;
use super::target::TARGET_NAMES;

/// Maximum ratios to VictoriaMetrics in the same run.
const GOALS: [(&str, f64); 5] = [
    ("cpu_vs_victoria_metrics", 1.0 / 3.0),
    ("cpu_50k_vs_victoria_metrics", 0.4),
    ("rss_vs_victoria_metrics", 0.75),
    ("ack_p99_vs_victoria_metrics", 1.25),
    // With the lake, at 10 000 series: with more, the run is too short for finished files.
    ("bytes_vs_victoria_metrics", 1.1),
];

/// CPU of a stage as a share of VictoriaMetrics' whole CPU in the same run: series, stage, baseline share. A stage that
/// exceeds its share by more than [`MAX_STAGE_RATIO`] applies as missed, even if the sum still meets its goal.
const STAGE_SHARES: [(u64, &str, f64); 8] = [
    (10_000, "receive", 0.145),
    (10_000, "append", 0.069),
    (10_000, "head", 0.031),
    (10_000, "detect", 0.028),
    (100_000, "receive", 0.101),
    (100_000, "append", 0.043),
    (100_000, "head", 0.045),
    (100_000, "detect", 0.026),
];

/// Allowed growth of a stage over its baseline share.
const MAX_STAGE_RATIO: f64 = 1.25;
/// Minimum share of the injected shifts that must be found.
const MIN_SHIFTS_FOUND_SHARE: f64 = 0.95;

/// Returns the stages that exceed their baseline share.
fn stages_over_baseline(report: &Value) -> Vec<String> {
    let runs = |target: &str, series: u64| {
        let matches = move |run: &&Value| run["target"] == target && run["series"] == series;
        report["runs"].as_array().into_iter().flatten().filter(matches).collect::<Vec<_>>()
    };
    let check = |(series, stage, baseline): &(u64, &str, f64)| {
        let reference =
            median(runs("victoria-metrics", *series).iter().filter_map(|run| figure(run, SATURATED_CPU_FIGURE)))?;
        let wardroom = median(runs("wardroom", *series).iter().filter_map(|run| run["stages"][*stage].as_f64()))?;
        let share = wardroom / reference;
        (share > baseline * MAX_STAGE_RATIO).then(|| {
            format!("{stage} at {series} series takes {share:.3} of VictoriaMetrics' CPU, baseline share {baseline}")
        })
    };
    STAGE_SHARES.iter().filter_map(check).collect()
}

/// Returns a line for each goal that the report misses.
pub(super) fn missed_goals(report: &Value) -> Vec<String> {
    let mut missed = stages_over_baseline(report);
    for (name, goal) in GOALS {
        for (ratio, value) in report["ratios"].as_object().into_iter().flatten() {
            // At 10 000 series memory is mostly fixed cost; with more, the run is too short for finished files.
            let few_series = ratio.ends_with("_10000");
            let excluded = (name.starts_with("rss") && few_series) || (name.starts_with("bytes") && !few_series);
            let applies = ratio.starts_with(&format!("{name}_at_")) && !excluded;
            if let Some(value) = value.as_f64().filter(|value| applies && *value > goal) {
                missed.push(format!("{ratio} is {value:.2}, goal {goal:.2}"));
            }
        }
    }
    for run in report["runs"].as_array().into_iter().flatten().filter(|run| run["target"] == "wardroom") {
        let complete = run["read_back"] == run["read_back_of"] && run["http_errors"] == 0;
        let (found, injected) = (&run["shifts_found"]["found"], &run["shifts_found"]["injected"]);
        let share = found.as_f64().unwrap_or_default() / injected.as_f64().unwrap_or(f64::NAN);
        if !complete || share < MIN_SHIFTS_FOUND_SHARE {
            missed.push(format!(
                "read back {} of {}, shifts {found} of {injected}, errors {}",
                run["read_back"], run["read_back_of"], run["http_errors"]
            ));
        }
    }
    missed
}

/// Returns the median of each figure, by target and number of series.
pub(super) fn medians(runs: &[Value]) -> Value {
    let mut all = serde_json::Map::new();
    for run in runs {
        let key = format!("{}, {} series", run["target"].as_str().unwrap_or_default(), run["series"]);
        if all.contains_key(&key) {
            continue;
        }
        let matches = |other: &&Value| other["target"] == run["target"] && other["series"] == run["series"];
        let mut figures = serde_json::Map::new();
        for name in FIGURES {
            figures.insert(
                (*name).to_owned(),
                json!(median(runs.iter().filter(matches).filter_map(|run| figure(run, name)))),
            );
        }
        all.insert(key, Value::Object(figures));
    }
    Value::Object(all)
}

/// CPU of the saturated phase.
const SATURATED_CPU_FIGURE: &str = "cpu_s_per_m_saturated";
/// Figures whose medians are reported; a dot separates group and name.
const FIGURES: &[&str] = &[
    SATURATED_CPU_FIGURE,
    "cpu_s_per_m_50k",
    "cpu_s_per_m_own_pace",
    "rss_kib_per_series",
    "ack_ms.p50",
    "ack_ms.p99",
    "samples_per_s",
    "bytes_per_sample",
];

fn figure(run: &Value, name: &str) -> Option<f64> {
    match name.split_once('.') {
        Some((group, name)) => run[group][name].as_f64(),
        None => run[name].as_f64(),
    }
}

/// Returns the median over all repetitions of Wardroom's figure divided by the other target's. Names without a number
/// of series stand for the largest number.
pub(super) fn ratios(runs: &[Value]) -> Value {
    let mut all = serde_json::Map::new();
    for (label, name) in [
        ("cpu", "cpu_s_per_m_saturated"),
        ("cpu_50k", "cpu_s_per_m_50k"),
        ("cpu_own_pace", "cpu_s_per_m_own_pace"),
        ("rss", "rss_kib_per_series"),
        ("ack_p99", "ack_ms.p99"),
        ("bytes", "bytes_per_sample"),
    ] {
        for other in TARGET_NAMES.iter().filter(|other| **other != "wardroom") {
            let ratio_name = format!("{label}_vs_{}", other.replace('-', "_"));
            let mut largest = (0, Value::Null);
            for wardroom in runs.iter().filter(|run| run["target"] == "wardroom") {
                let matches = |run: &&Value| run["target"] == *other && run["series"] == wardroom["series"];
                let pairs = runs.iter().filter(matches).filter_map(|other_run| {
                    let wardroom = runs.iter().find(|run| {
                        run["target"] == "wardroom"
                            && run["series"] == other_run["series"]
                            && run["repeat"] == other_run["repeat"]
                    })?;
                    Some(figure(wardroom, name)? / figure(other_run, name)?)
                });
                if let Some(ratio) = median(pairs) {
                    let series = wardroom["series"].as_u64().unwrap_or_default();
                    all.insert(format!("{ratio_name}_at_{series}"), json!(ratio));
                    if series >= largest.0 {
                        largest = (series, json!(ratio));
                    }
                }
            }
            all.insert(ratio_name, largest.1);
        }
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_stages_that_exceed_their_share_by_more_than_the_tolerance() {
        let run = |target: &str, cpu: f64, receive: f64| json!({ "target": target, "series": 10_000, SATURATED_CPU_FIGURE: cpu, "stages": { "receive": receive } });
        let report =
            |receive: f64| json!({ "runs": [run("wardroom", 0.3, receive), run("victoria-metrics", 2.0, 0.0)] });
        assert_eq!(stages_over_baseline(&report(0.149 * 2.0 * 1.2)), Vec::<String>::new());
        assert!(stages_over_baseline(&report(0.149 * 2.0 * 1.3))[0].starts_with("receive at 10000 series"));
    }
}
