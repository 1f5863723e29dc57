//! The show in the terminal: calm, readable at 80 columns, without colour, and when nobody looks.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;

use crate::world::World;

const WIDTH: usize = 78;

/// What has been told so far.
pub(crate) struct Story {
    shown: bool,
    state: String,
    opened: bool,
    asked: bool,
    waited: u64,
    /// What the person at the terminal types.
    answer: Option<std::sync::mpsc::Receiver<String>>,
}

impl Story {
    pub(crate) fn new(shown: bool) -> Self {
        Self { shown, state: String::new(), opened: false, asked: false, waited: 0, answer: None }
    }

    fn say(&self, text: &str) {
        if self.shown {
            for line in wrap(text) {
                anstream::println!("{line}");
            }
        }
    }

    fn head(&self, text: &str) {
        if self.shown {
            anstream::println!("\n\x1b[1m{text}\x1b[0m");
        }
    }

    pub(crate) fn begin(&self, world: &World) {
        self.head("A small shop is open, and Wardroom watches it.");
        self.say("Eight services, real traffic, real readings once a second. Soon one of them will break. Nobody tells Wardroom which.");
        self.say(&format!("Page:  {}   (any user; password: the token)", world.url));
        self.say(&format!("Token: {}", world.responder));
    }

    pub(crate) fn waiting(&mut self, since: Duration) {
        let seconds = since.as_secs();
        if seconds >= self.waited + 10 {
            self.waited = seconds;
            self.say(&format!("{seconds:>4} s  all is well"));
        }
    }

    /// Tells what is new about the incident.
    pub(crate) fn look(&mut self, incident: &Value, url: &str) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if !self.opened {
            self.opened = true;
            self.head(&format!("{}  {}", text(&incident["id"]), text(&incident["title"])));
        }
        let state = text(&incident["state"]);
        if state == self.state {
            return;
        }
        match state.as_str() {
            "awaiting_approval" => {
                self.head("What was seen");
                self.charts(incident);
                self.head("Why it matters");
                self.say(&text(&incident["analysis"]["estimated_customer_impact"]));
                self.head("Why it happened");
                let cause = &incident["hypotheses"][0];
                let sure = cause["confidence"].as_f64().unwrap_or_default() * 100.0;
                self.say(&format!("{} ({sure:.0} % sure)", text(&cause["reasoning"])));
                for item in incident["evidence"].as_array().into_iter().flatten() {
                    if cause["evidence"].as_array().is_some_and(|cited| cited.contains(&item["id"])) {
                        self.say(&format!("  - {}", text(&item["summary"])));
                    }
                }
                self.head("What Wardroom would do");
                let plan = &incident["plan"];
                self.say(&format!(
                    "{} {} of {}: {}",
                    text(&plan["tool"]),
                    text(&plan["operation"]),
                    text(&plan["target"]),
                    text(&plan["diff"])
                ));
                self.say(&format!(
                    "Risk {}. Who feels it: {}. Runbook: {}.",
                    text(&plan["risk"]),
                    text(&plan["blast_radius"]),
                    text(&plan["runbook"])
                ));
                self.say(&format!("Plan {}", text(&plan["plan_sha256"])));
                self.say(&format!("The same as a page: {url}/incidents/{}", text(&incident["id"])));
            }
            "verifying" => {
                let who = text(&incident["approved_by"]);
                self.head(&format!("Approved by {who}, done. Did it help?"));
            }
            "mitigated" => {
                self.say("Every watched signal is good again. Now it has to stay so.");
                self.charts(incident);
            }
            "resolved" => {
                self.head("Resolved: it stayed good for the whole hold.");
                self.charts(incident);
            }
            "escalated" => {
                let last =
                    incident["timeline"].as_array().and_then(|lines| lines.last()).map(|line| text(&line["text"]));
                self.head(&format!("Escalated to a person: {}", last.unwrap_or_default()));
            }
            _ => {}
        }
        self.state = state;
    }

    fn charts(&self, incident: &Value) {
        for chart in incident["charts"].as_array().into_iter().flatten().take(6) {
            let values: Vec<f64> =
                chart["points"].as_array().into_iter().flatten().filter_map(|point| point[1].as_f64()).collect();
            let Some(last) = values.last() else { continue };
            let shown = match chart["unit"].as_str() {
                Some("seconds") => format!("{:.0} ms", last * 1000.0),
                Some("ratio") => format!("{:.0} %", last * 100.0),
                _ => format!("{last:.1}"),
            };
            // A share without a limit is drawn against the whole, so that a quiet line looks quiet.
            let floor = chart["bad_above"].as_f64().unwrap_or(if chart["unit"] == "ratio" { 1.0 } else { 0.0 });
            let title: String = chart["title"].as_str().unwrap_or_default().chars().take(30).collect();
            self.say(&format!("  {title:<30} {} {shown}", sparkline(&values, 36, floor)));
        }
    }

    /// Asks the person at the terminal, once, and says whether they have said yes by now. Whoever sits at
    /// the page may be faster: nobody waits here. Without a terminal it says how to answer.
    pub(crate) fn asks(&mut self, incident: &Value, url: &str) -> anyhow::Result<bool> {
        if !self.asked {
            self.asked = true;
            if !std::io::stdin().is_terminal() {
                self.head("Approve it on the page, or with");
                self.say(&format!("export WARDROOM_URL={url} WARDROOM_TOKEN=<the token above>"));
                let text = |key: &str| incident[key].as_str().unwrap_or_default();
                self.say(&format!("wardroom incidents approve {} --plan {}", text("id"), text("plan_sha256")));
                return Ok(false);
            }
            anstream::print!("\n\x1b[1mShall Wardroom do this? [y/N] \x1b[0m");
            std::io::stdout().flush()?;
            let (answered, answer) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let mut line = String::new();
                if std::io::stdin().read_line(&mut line).is_ok() {
                    // Nobody listens any more if the page was faster.
                    drop(answered.send(line));
                }
            });
            self.answer = Some(answer);
        }
        let Some(line) = self.answer.as_ref().and_then(|answer| answer.try_recv().ok()) else { return Ok(false) };
        let yes = ["y", "yes"].contains(&line.trim().to_lowercase().as_str());
        if !yes {
            self.say("Then it waits for you on the page; Ctrl-C ends the demo.");
        }
        Ok(yes)
    }

    pub(crate) fn end(&self, report: &Value) {
        let seconds = |key: &str| report["seconds"][key].as_f64().map_or_else(|| "-".into(), |s| format!("{s:.0} s"));
        self.head("The whole story");
        self.say(&format!(
            "What broke: {} at {}. What Wardroom said: {} at {}.",
            report["fault"]["kind"], report["fault"]["service"], report["cause"]["kind"], report["cause"]["service"]
        ));
        self.say(&format!(
            "After the fault: noticed {}, proposed {}, done {}, good {}, resolved {}.",
            seconds("incident"),
            seconds("proposal"),
            seconds("executed"),
            seconds("mitigated"),
            seconds("resolved")
        ));
        self.say(&format!(
            "Audit book: {} entries, {}.",
            report["audit"]["entries"],
            if report["audit"]["verified"] == true { "unbroken" } else { "BROKEN" }
        ));
    }
}

/// The values as a line of eighths; full height is the highest of them, or `floor`.
fn sparkline(values: &[f64], width: usize, floor: f64) -> String {
    const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let tail: Vec<f64> = if values.len() <= width {
        values.to_vec()
    } else {
        // The maximum of each stretch, so that a spike is never lost.
        (0..width)
            .map(|at| {
                let (from, to) = (at * values.len() / width, (at + 1) * values.len() / width);
                values[from..to].iter().copied().fold(f64::MIN, f64::max)
            })
            .collect()
    };
    let top = tail.iter().copied().fold(floor.max(f64::MIN_POSITIVE), f64::max);
    let line: String = tail.iter().map(|value| EIGHTHS[((value / top * 7.0).round() as usize).min(7)]).collect();
    format!("{line:<width$}")
}

/// Breaks a line at spaces; continued lines are indented as the first.
fn wrap(text: &str) -> Vec<String> {
    let indent: String = text.chars().take_while(|c| *c == ' ').collect();
    let mut lines = vec![indent.clone()];
    for word in text.trim_start().split(' ') {
        let line = lines.last_mut().map_or_else(String::new, std::mem::take);
        let empty = line.trim().is_empty();
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
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
    fn lines_fit_and_spikes_survive() {
        let text = "word ".repeat(60);
        assert!(wrap(&text).iter().all(|line| line.chars().count() <= WIDTH));
        let mut values = vec![0.1; 400];
        values[217] = 9.0;
        assert!(sparkline(&values, 36, 0.0).contains('█'));
    }
}
