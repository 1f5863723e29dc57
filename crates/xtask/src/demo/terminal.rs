//! The demo's output in the terminal: fits 80 columns and needs no colour.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use wardroom_domain::visible_line;

use super::environment::DemoEnvironment;

const LINE_COLUMNS: usize = 78;
const CHART_COLUMNS: usize = 36;
const MAX_CHARTS: usize = 6;
const MAX_CHART_TITLE_CHARS: usize = 30;
/// Interval between status lines while there is no incident, in seconds.
const WAITING_INTERVAL_S: u64 = 10;

/// What has been printed so far.
pub(super) struct Terminal {
    /// False for `--headless`: nothing is printed.
    enabled: bool,
    /// State of the incident that was printed last.
    state: String,
    title_printed: bool,
    asked: bool,
    /// When the last line about waiting was printed, in seconds since the start.
    waiting_printed_s: u64,
    /// Receives the line that the user types at the prompt.
    answer: Option<Receiver<String>>,
}

impl Terminal {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, state: String::new(), title_printed: false, asked: false, waiting_printed_s: 0, answer: None }
    }

    fn print(&self, text: &str) {
        if self.enabled {
            // Titles, summaries and the diff come from telemetry.
            for line in wrap(&visible_line(text)) {
                anstream::println!("{line}");
            }
        }
    }

    fn print_heading(&self, text: &str) {
        if self.enabled {
            anstream::println!("\n\x1b[1m{}\x1b[0m", visible_line(text));
        }
    }

    pub(super) fn print_introduction(&self, environment: &DemoEnvironment) {
        self.print_heading("The demo shop is running and Wardroom monitors it.");
        self.print(
            "The shop has eight services with real traffic and sends telemetry once a second. One of the services will \
             fail soon. Wardroom is not configured with which one or how.",
        );
        self.print(&format!("Web page: {}   (any user name; the password is the token)", environment.url));
        self.print(&format!("Token:    {}", environment.responder_token));
    }

    pub(super) fn print_waiting(&mut self, since_start: Duration) {
        let seconds = since_start.as_secs();
        if seconds >= self.waiting_printed_s + WAITING_INTERVAL_S {
            self.waiting_printed_s = seconds;
            self.print(&format!("{seconds:>4} s  no incident"));
        }
    }

    /// Prints what is new about the incident, if its state has changed.
    pub(super) fn print_progress(&mut self, incident: &Value, url: &str) {
        if !self.title_printed {
            self.title_printed = true;
            self.print_heading(&format!("{}  {}", text(&incident["id"]), text(&incident["title"])));
        }
        let state = text(&incident["state"]);
        if state == self.state {
            return;
        }
        match state {
            "awaiting_approval" => self.print_diagnosis(incident, url),
            "verifying" => {
                let approver = text(&incident["approved_by"]);
                self.print_heading(&format!("Approved by {approver} and executed. Verifying the result."));
            }
            "mitigated" => {
                self.print("Every signal of the incident is normal again. Wardroom checks that they stay normal.");
                self.print_charts(incident);
            }
            "resolved" => {
                self.print_heading("Resolved: the signals stayed normal for the whole hold time.");
                self.print_charts(incident);
            }
            "escalated" => {
                let last = incident["timeline"].as_array().and_then(|timeline| timeline.last());
                self.print_heading(&format!(
                    "Escalated to a person: {}",
                    last.map(|entry| text(&entry["text"])).unwrap_or_default()
                ));
            }
            _ => {}
        }
        self.state = state.to_owned();
    }

    fn print_diagnosis(&self, incident: &Value, url: &str) {
        self.print_heading("Symptoms");
        self.print_charts(incident);
        self.print_heading("Impact");
        self.print(text(&incident["analysis"]["estimated_customer_impact"]));
        self.print_heading("Root cause");
        let cause = &incident["hypotheses"][0];
        let confidence = cause["confidence"].as_f64().unwrap_or_default() * 100.0;
        self.print(&format!("{} (confidence {confidence:.0} %)", text(&cause["reasoning"])));
        for item in incident["evidence"].as_array().into_iter().flatten() {
            if cause["evidence"].as_array().is_some_and(|cited| cited.contains(&item["id"])) {
                self.print(&format!("  - {}", text(&item["summary"])));
            }
        }
        self.print_heading("Proposed action");
        let plan = &incident["plan"];
        self.print(&format!(
            "{} {} of {}: {}",
            text(&plan["tool"]),
            text(&plan["operation"]),
            text(&plan["target"]),
            text(&plan["diff"])
        ));
        self.print(&format!(
            "Risk: {}. Blast radius: {}. Runbook: {}.",
            text(&plan["risk"]),
            text(&plan["blast_radius"]),
            text(&plan["runbook"])
        ));
        self.print(&format!("Plan SHA-256: {}", text(&plan["plan_sha256"])));
        self.print(&format!("Web page: {url}/incidents/{}", text(&incident["id"])));
    }

    fn print_charts(&self, incident: &Value) {
        for chart in incident["charts"].as_array().into_iter().flatten().take(MAX_CHARTS) {
            let values: Vec<f64> =
                chart["points"].as_array().into_iter().flatten().filter_map(|point| point[1].as_f64()).collect();
            let Some(last) = values.last() else { continue };
            let value = match chart["unit"].as_str() {
                Some("seconds") => format!("{:.0} ms", last * 1000.0),
                Some("ratio") => format!("{:.0} %", last * 100.0),
                _ => format!("{last:.1}"),
            };
            // A ratio without a limit is scaled to 100 %, so that small variations look small.
            let full_scale = chart["bad_above"].as_f64().unwrap_or(if chart["unit"] == "ratio" { 1.0 } else { 0.0 });
            let title: String = text(&chart["title"]).chars().take(MAX_CHART_TITLE_CHARS).collect();
            let line = sparkline(&values, CHART_COLUMNS, full_scale);
            self.print(&format!("  {title:<MAX_CHART_TITLE_CHARS$} {line} {value}"));
        }
    }

    /// Asks for approval once and returns whether it has been given at the terminal. Does not block: the plan may be
    /// approved in the browser meanwhile. Without a terminal it prints how to approve.
    ///
    /// # Errors
    /// Returns an error if the terminal cannot be written.
    pub(super) fn approval_given(&mut self, incident: &Value, url: &str) -> anyhow::Result<bool> {
        if !self.asked {
            self.asked = true;
            if !std::io::stdin().is_terminal() {
                self.print_heading("Approve it on the web page, or with");
                self.print(&format!("export WARDROOM_URL={url} WARDROOM_TOKEN=<the token above>"));
                let (id, plan) = (text(&incident["id"]), text(&incident["plan_sha256"]));
                self.print(&format!("wardroom incidents approve {id} --plan {plan}"));
                return Ok(false);
            }
            anstream::print!("\n\x1b[1mApprove this action? [y/N] \x1b[0m");
            std::io::stdout().flush()?;
            let (sender, receiver) = channel();
            std::thread::spawn(move || {
                let mut line = String::new();
                if std::io::stdin().read_line(&mut line).is_ok() {
                    // The receiver is gone if the demo ended meanwhile.
                    drop(sender.send(line));
                }
            });
            self.answer = Some(receiver);
        }
        let Some(line) = self.answer.as_ref().and_then(|answer| answer.try_recv().ok()) else { return Ok(false) };
        let yes = ["y", "yes"].contains(&line.trim().to_lowercase().as_str());
        if !yes {
            self.print("Not approved. You can still approve it on the web page; Ctrl-C ends the demo.");
        }
        Ok(yes)
    }

    pub(super) fn print_summary(&self, report: &Value) {
        let seconds = |key: &str| report["seconds"][key].as_f64().map_or_else(|| "-".into(), |s| format!("{s:.0} s"));
        let (fault, cause) = (&report["fault"], &report["cause"]);
        self.print_heading("Summary");
        self.print(&format!(
            "Injected fault: {} at {}. Root cause found: {} at {}.",
            text(&fault["kind"]),
            text(&fault["service"]),
            text(&cause["kind"]),
            text(&cause["service"])
        ));
        self.print(&format!(
            "Time after the fault: incident {}, proposal {}, execution {}, mitigation {}, resolution {}.",
            seconds("incident"),
            seconds("proposal"),
            seconds("executed"),
            seconds("mitigated"),
            seconds("resolved")
        ));
        let verified = report["audit"]["verified"] == true;
        self.print(&format!(
            "Audit log: {} entries, hash chain {}.",
            report["audit"]["entries"],
            if verified { "verified" } else { "BROKEN" }
        ));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The values as a line of bars in eighths; full height is their maximum, at least `full_scale`.
fn sparkline(values: &[f64], width: usize, full_scale: f64) -> String {
    const BAR_CHARACTERS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns: Vec<f64> = if values.len() <= width {
        values.to_vec()
    } else {
        // The maximum of each column's values, so that spikes stay visible.
        (0..width)
            .map(|column| {
                let (from, to) = (column * values.len() / width, (column + 1) * values.len() / width);
                values[from..to].iter().copied().fold(f64::MIN, f64::max)
            })
            .collect()
    };
    let top = columns.iter().copied().fold(full_scale.max(f64::MIN_POSITIVE), f64::max);
    let line: String =
        columns.iter().map(|value| BAR_CHARACTERS[((value / top * 7.0).round() as usize).min(7)]).collect();
    format!("{line:<width$}")
}

/// Breaks text at spaces into lines of at most [`LINE_COLUMNS`]; the first line's indentation is repeated.
fn wrap(text: &str) -> Vec<String> {
    let indent: String = text.chars().take_while(|c| *c == ' ').collect();
    let mut lines = vec![indent.clone()];
    for word in text.trim_start().split(' ') {
        let line = lines.last_mut().map_or_else(String::new, std::mem::take);
        let empty = line.trim().is_empty();
        if !empty && line.chars().count() + 1 + word.chars().count() > LINE_COLUMNS {
            *lines.last_mut().unwrap_or(&mut String::new()) = line;
            lines.push(format!("{indent}{word}"));
        } else {
            let joined = if empty { format!("{line}{word}") } else { format!("{line} {word}") };
            *lines.last_mut().unwrap_or(&mut String::new()) = joined;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_long_text_and_keeps_spikes_visible() {
        let text = "word ".repeat(60);
        assert!(wrap(&text).iter().all(|line| line.chars().count() <= LINE_COLUMNS));
        let mut values = vec![0.1; 400];
        values[217] = 9.0;
        assert!(sparkline(&values, CHART_COLUMNS, 0.0).contains('█'));
    }
}
