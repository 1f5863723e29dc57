//! Steps of a command: runs them one after the other or in lanes side by side, and reports how long each took.

use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Name and duration of every finished step, in the order in which they ended.
static DURATIONS: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// Runs a command with its output on the terminal. Cargo draws its own progress bar there, with a count of crates, and
/// prints plain lines where stderr is not a terminal.
///
/// # Errors
/// Returns an error if the command cannot be started or fails.
pub(crate) fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    timed_step(name, || {
        let status = command.status().with_context(|| format!("cannot run {:?}", command.get_program()))?;
        if !status.success() {
            bail!("{status}");
        }
        Ok(())
    })
}

/// Runs a function as a step.
///
/// # Errors
/// Returns the function's error, with the step's name and duration.
pub(crate) fn timed_step<T>(name: &str, run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    anstream::eprintln!("\x1b[1m{name}\x1b[0m …");
    let started = Instant::now();
    let result = run();
    let duration = finish(name, started);
    let result = result.with_context(|| format!("{name} failed after {:.0} s", duration.as_secs_f64()))?;
    anstream::eprintln!("{name}: {:.1} s", duration.as_secs_f64());
    Ok(result)
}

/// A command of a lane; its output is collected.
pub(crate) struct Step {
    name: String,
    command: Command,
}

impl Step {
    pub(crate) fn new(name: impl Into<String>, command: Command) -> Self {
        Self { name: name.into(), command }
    }

    /// Runs the command and prints its output in one piece when it ends.
    fn run(&mut self) -> anyhow::Result<()> {
        let name = &self.name;
        anstream::eprintln!("\x1b[1m{name}\x1b[0m …");
        let started = Instant::now();
        let output = self.command.stdin(Stdio::null()).output();
        let duration = finish(name, started).as_secs_f64();
        let output = output.with_context(|| format!("{name}: cannot run {:?}", self.command.get_program()))?;
        anstream::eprint!("{}", report(name, duration, &output));
        if !output.status.success() {
            bail!("{name} failed after {duration:.0} s ({})", output.status);
        }
        Ok(())
    }
}

/// Runs lanes of steps side by side. The steps of a lane run in turn, and a lane ends at its first failure; the other
/// lanes still run to their end.
///
/// # Errors
/// Returns an error that names every failed step.
pub(crate) fn run_lanes(lanes: Vec<Vec<Step>>) -> anyhow::Result<()> {
    let failures: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for lane in lanes {
            let failures = &failures;
            scope.spawn(move || {
                for mut step in lane {
                    if let Err(error) = step.run() {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
                        return;
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failures.is_empty() {
        bail!("{}", failures.join("; "));
    }
    Ok(())
}

/// Prints the table of all steps and their durations.
pub(crate) fn print_durations() {
    let durations = DURATIONS.lock().unwrap_or_else(PoisonError::into_inner);
    anstream::eprint!("{}", duration_table(&durations));
}

fn finish(name: &str, started: Instant) -> Duration {
    let duration = started.elapsed();
    DURATIONS.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), duration));
    duration
}

/// The output of a finished step, indented under its name and duration.
fn report(name: &str, seconds: f64, output: &Output) -> String {
    let mut text = format!("{name}: {seconds:.1} s, {}\n", output.status);
    for stream in [&output.stderr, &output.stdout] {
        for line in String::from_utf8_lossy(stream).lines() {
            text.push_str("    ");
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn duration_table(durations: &[(String, Duration)]) -> String {
    let width = durations.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let mut table = String::from("\nstep durations (steps of lanes overlap)\n");
    for (name, duration) in durations {
        // Writing into a String cannot fail.
        writeln!(table, "  {name:<width$} {:>8.1} s", duration.as_secs_f64()).unwrap_or_default();
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_the_durations_of_steps() {
        let durations =
            [("build".to_owned(), Duration::from_millis(61_250)), ("tests".to_owned(), Duration::from_secs(5))];
        let table = duration_table(&durations);
        assert!(table.contains("  build     61.2 s\n") && table.contains("  tests      5.0 s\n"), "{table}");
    }

    #[test]
    fn names_every_failed_step_and_finishes_the_other_lanes() {
        let step = |program: &str| Step::new(program, crate::workspace::command(program));
        let error = run_lanes(vec![vec![step("false"), step("true")], vec![step("true"), step("false")]]).unwrap_err();
        assert_eq!(error.to_string().matches("false failed").count(), 2, "{error}");
        run_lanes(vec![vec![step("true")], vec![step("true"), step("true")]]).unwrap();
    }
}
