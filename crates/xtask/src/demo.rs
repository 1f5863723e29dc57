//! `cargo xtask demo`: the demo in the terminal, one headless seed, or the table of many seeds.

mod environment;
mod options;
mod report;
mod seed_table;
mod terminal;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::programs::DemoPrograms;
use crate::steps::timed_step;
use environment::DemoEnvironment;
pub(crate) use options::Options;
use report::Observed;
use terminal::Terminal;

/// A headless seed ends within this time after the build.
const HEADLESS_TIMEOUT: Duration = Duration::from_secs(300);
/// The same with readings less often than once a second.
const SLOW_HEADLESS_TIMEOUT: Duration = Duration::from_secs(900);
/// The demo in the terminal ends after this time.
const INTERACTIVE_TIMEOUT: Duration = Duration::from_secs(1800);
/// Part of the timeout that is left for stopping the programs and writing the report.
const REPORT_TIME: Duration = Duration::from_secs(8);
/// Interval between reads of the incidents.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Final states of an incident.
const FINAL_STATES: [&str; 4] = ["resolved", "escalated", "closed", "suppressed"];

/// Runs the command.
///
/// # Errors
/// Returns an error if the programs cannot be built or started, or stop early.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let programs = DemoPrograms::build()?;
    if let Some((first, last)) = options.seeds {
        return seed_table::run(&programs, &options, first, last);
    }
    let mut environment =
        timed_step("start wardroom and shop", || DemoEnvironment::start(&programs, &options.settings))?;
    let mut terminal = Terminal::new(!options.headless);
    terminal.print_introduction(&environment);
    let observed = observe(&mut environment, &mut terminal, &options)?;
    let report = report::create(environment, &observed, &options)?;
    terminal.print_summary(&report);
    if options.headless {
        anstream::println!("{}", wardroom_domain::visible_json(&report.to_string()));
    }
    Ok(ExitCode::from(report::exit_code(&report)))
}

/// Follows the first incident until it is in a final state, and approves its plan unless `--withhold` is given.
fn observe(environment: &mut DemoEnvironment, terminal: &mut Terminal, options: &Options) -> anyhow::Result<Observed> {
    let started = Instant::now();
    let timeout = match (options.headless, &options.settings.interval) {
        (true, Some(interval)) if interval != "1s" => SLOW_HEADLESS_TIMEOUT,
        (true, _) => HEADLESS_TIMEOUT,
        (false, _) => INTERACTIVE_TIMEOUT,
    };
    let mut approved = false;
    let mut observed = Observed::default();
    while started.elapsed() < options.withhold.unwrap_or(timeout - REPORT_TIME) {
        std::thread::sleep(POLL_INTERVAL);
        environment.check_running()?;
        let incidents = environment.get("/api/v1/incidents")?;
        let list = incidents["incidents"].as_array().cloned().unwrap_or_default();
        observed.incidents = list.len() as u64;
        if environment.truth()?["fault"]["at_ms"].is_null() {
            observed.incidents_before_fault = observed.incidents;
        }
        let Some(id) = list.last().and_then(|first| first["id"].as_str()) else {
            terminal.print_waiting(started.elapsed());
            continue;
        };
        let incident = environment.get(&format!("/api/v1/incidents/{id}"))?;
        terminal.print_progress(&incident, &environment.url);
        let state = incident["state"].as_str().unwrap_or_default().to_owned();
        let pending = state == "awaiting_approval" && !approved && options.withhold.is_none();
        if pending && (options.headless || terminal.approval_given(&incident, &environment.url)?) {
            approve(environment, id, &incident)?;
            approved = true;
        }
        observed.incident = incident;
        if FINAL_STATES.contains(&state.as_str()) {
            break;
        }
    }
    Ok(observed)
}

fn approve(environment: &DemoEnvironment, id: &str, incident: &Value) -> anyhow::Result<()> {
    let body = json!({ "plan_sha256": incident["plan_sha256"], "reason": "demo" });
    let (status, response) = environment.post(&format!("/api/v1/incidents/{id}/approve"), &body)?;
    // 409: it was approved in the browser meanwhile.
    anyhow::ensure!(status == 202 || status == 409, "approve: {status} {response}");
    Ok(())
}
