//! CPU by stage: perf samples the server, its stacks are folded, and each stack is attributed to the first stage that
//! matches it.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};
use serde_json::{Map, Value, json};
use wardroom_testing::server;

use crate::child_process::ChildProcess;

/// Samples per second of each processor; few enough not to disturb the run.
const SAMPLES_PER_S: &str = "199";

/// Stage, prefix of the thread name, and strings of which a stack must contain one. The first match counts; an empty
/// string matches every stack.
const STAGES: &[(&str, &str, &[&str])] = &[
    ("append", "bus-writer", &[""]),
    ("state", "sqlx", &[""]),
    ("checkpoint", "detect", &["Checkpoints::"]),
    ("head", "detect", &["head::recent_samples", "Exemplars"]),
    ("catch up", "detect", &["read_from_bus"]),
    ("detect", "detect", &[""]),
    ("merge", "role", &["lake::maintain", "run_task", "lake::maintenance"]),
    ("events", "role", &["lake::event_writer"]),
    ("flush", "role", &["wardroom_lake", "pipeline::lake"]),
    ("state", "role", &["respond::", "sqlx"]),
    ("head", "ports", &["Tenants::resolve", "head::series_registry"]),
    ("append", "ports", &["EmbeddedBus", "encode_payload"]),
    ("receive", "ports", &[""]),
    ("receive", "request", &[""]),
];

/// A running profiler.
#[derive(Debug)]
pub(super) struct CpuProfile {
    perf_process: ChildProcess,
    file: PathBuf,
    pids: String,
}

impl CpuProfile {
    /// Starts to profile these processes.
    pub(super) fn start(dir: &Path, pids: &[u32]) -> anyhow::Result<Self> {
        let file = dir.join("perf.data");
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let mut record = perf();
        // The whole machine: with `--pid`, perf spins as soon as one of the threads ends.
        record.args(["record", "-q", "-F", SAMPLES_PER_S, "-e", "cpu-clock", "-g", "-a", "-o"]).arg(&file);
        let perf_process = record.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot run perf")?;
        let perf_process = perf_process.into();
        std::thread::sleep(std::time::Duration::from_millis(300));
        Ok(Self { perf_process, file, pids: pids.join(",") })
    }

    /// Stops the profiler; returns the share of each stage, and writes a flame graph if a file is given.
    pub(super) fn finish(mut self, flame: Option<&Path>) -> anyhow::Result<Value> {
        let pid = nix::unistd::Pid::from_raw(self.perf_process.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        self.perf_process.wait()?;
        let mut script = perf();
        // Resolving inlined frames in the debug information of DataFusion would take minutes.
        script.args(["script", "--no-inline", "--pid", &self.pids, "-i"]).arg(&self.file);
        let mut script = ChildProcess::from(script.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
        let stacks = BufReader::new(script.stdout.take().context("perf script has no output")?);
        let mut folded = Vec::new();
        Folder::from(Options::default()).collapse(stacks, &mut folded)?;
        script.wait()?;
        std::fs::remove_file(&self.file)?;
        let folded = String::from_utf8_lossy(&folded).into_owned();
        if let Some(file) = flame {
            let mut options = inferno::flamegraph::Options::default();
            "Intake, as fast as acknowledged: CPU by stack".clone_into(&mut options.title);
            inferno::flamegraph::from_lines(&mut options, folded.lines(), std::fs::File::create(file)?)?;
        }
        stage_shares(&folded)
    }
}

/// Returns a command for perf, with the libraries of its package.
#[expect(clippy::disallowed_methods, reason = "the benchmark starts the profiler")]
fn perf() -> Command {
    let mut perf = Command::new(server::program("PERF_BIN"));
    perf.env("LD_LIBRARY_PATH", server::program("DEBIAN_LIBRARIES"));
    perf
}

/// Returns the share of each stage in folded stacks.
fn stage_shares(folded: &str) -> anyhow::Result<Value> {
    let (mut stages, mut total) = (Map::new(), 0.0);
    for line in folded.lines() {
        let Some((stack, count)) = line.rsplit_once(' ') else { continue };
        let count: f64 = count.parse()?;
        total += count;
        let matches = |(_, thread, words): &&(&str, &str, &[&str])| {
            stack.starts_with(thread) && words.iter().any(|word| stack.contains(word))
        };
        let stage = STAGES.iter().find(matches).map_or("rest", |(stage, ..)| stage);
        let sum = stages.get(stage).and_then(Value::as_f64).unwrap_or_default();
        stages.insert(stage.to_owned(), json!(sum + count));
    }
    ensure!(total > 0.0, "the profile is empty");
    stages.values_mut().for_each(|count| *count = json!(count.as_f64().unwrap_or_default() / total));
    Ok(Value::Object(stages))
}

#[cfg(test)]
mod tests {
    #[test]
    fn attributes_stacks_to_stages() {
        let folded = "detect;start;wardroom_head::recent_samples::RecentSamples::push 3\ndetect;start;watch 1\nbus-writer;fsync 4\nwardroom;main 2\n";
        let shares = super::stage_shares(folded).unwrap();
        assert_eq!((&shares["head"], &shares["append"], &shares["rest"]), (&0.3.into(), &0.4.into(), &0.2.into()));
    }
}
