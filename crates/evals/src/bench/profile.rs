//! Where the CPU of a run goes, by stage: a sampling profiler beside the server, its stacks folded, and each stack
//! laid to the first stage whose functions stand in it.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};
use serde_json::{Map, Value, json};
use wardroom_testing::server;

/// Samples a second of each processor: enough for shares, and not to be felt.
const RATE: &str = "199";

/// Stage, thread and what stands in a stack of it; the first that fits counts. An empty word fits all.
const STAGES: &[(&str, &str, &[&str])] = &[
    ("append", "bus-writer", &[""]),
    ("state", "sqlx", &[""]),
    ("checkpoint", "detect", &["Checkpoints::"]),
    ("head", "detect", &["head::recent", "head::sealed", "head::block", "Exemplars"]),
    ("catch up", "detect", &["catch_up"]),
    ("detect", "detect", &[""]),
    ("merge", "role", &["lake::merge", "carry_out", "keep::look_after"]),
    ("events", "role", &["events::Recorder"]),
    ("flush", "role", &["wardroom_lake", "pipeline::keep"]),
    ("state", "role", &["respond::", "sqlx"]),
    ("head", "ports", &["Tenants::resolve", "head::registry"]),
    ("append", "ports", &["EmbeddedBus", "encode_payload"]),
    ("receive", "ports", &[""]),
    ("receive", "request", &[""]),
];

/// A profiler at work.
#[derive(Debug)]
pub(crate) struct Profile {
    recording: Child,
    file: PathBuf,
    pids: String,
}

impl Profile {
    /// Watches these processes.
    pub(crate) fn start(dir: &Path, pids: &[u32]) -> anyhow::Result<Self> {
        let file = dir.join("perf.data");
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let mut record = perf();
        // All of the machine: told of processes, it spins as soon as one of their threads ends.
        record.args(["record", "-q", "-F", RATE, "-e", "cpu-clock", "-g", "-a", "-o"]).arg(&file);
        let recording = record.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("cannot run perf")?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        Ok(Self { recording, file, pids: pids.join(",") })
    }

    /// Ends it: the share of each stage, and a flame graph if a file is named for it.
    pub(crate) fn end(mut self, flame: Option<&Path>) -> anyhow::Result<Value> {
        let pid = nix::unistd::Pid::from_raw(self.recording.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
        self.recording.wait()?;
        let mut script = perf();
        // Inlined frames would be looked up one by one in the debug information of all of DataFusion: minutes.
        script.args(["script", "--no-inline", "--pid", &self.pids, "-i"]).arg(&self.file);
        let mut script = script.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stacks = BufReader::new(script.stdout.take().context("no stacks")?);
        let mut folded = Vec::new();
        Folder::from(Options::default()).collapse(stacks, &mut folded)?;
        script.wait()?;
        std::fs::remove_file(&self.file)?;
        let folded = String::from_utf8_lossy(&folded).into_owned();
        if let Some(file) = flame {
            let mut options = inferno::flamegraph::Options::default();
            "Intake, as fast as it is acknowledged: CPU by stack".clone_into(&mut options.title);
            inferno::flamegraph::from_lines(&mut options, folded.lines(), std::fs::File::create(file)?)?;
        }
        shares(&folded)
    }
}

/// The profiler, with the libraries of the package it came from.
#[expect(clippy::disallowed_methods, reason = "the benchmark starts the profiler")]
fn perf() -> Command {
    let mut perf = Command::new(server::program("PERF_BIN"));
    perf.env("LD_LIBRARY_PATH", server::program("DEBIAN_LIBRARIES"));
    perf
}

fn shares(folded: &str) -> anyhow::Result<Value> {
    let (mut stages, mut total) = (Map::new(), 0.0);
    for line in folded.lines() {
        let Some((stack, count)) = line.rsplit_once(' ') else { continue };
        let count: f64 = count.parse()?;
        total += count;
        let fits = |(_, thread, words): &&(&str, &str, &[&str])| {
            stack.starts_with(thread) && words.iter().any(|word| stack.contains(word))
        };
        let stage = STAGES.iter().find(fits).map_or("rest", |(stage, ..)| stage);
        let known = stages.get(stage).and_then(Value::as_f64).unwrap_or_default();
        stages.insert(stage.to_owned(), json!(known + count));
    }
    ensure!(total > 0.0, "the profiler saw nothing");
    stages.values_mut().for_each(|count| *count = json!(count.as_f64().unwrap_or_default() / total));
    Ok(Value::Object(stages))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_stack_belongs_to_its_stage() {
        let folded = "detect;start;wardroom_head::recent::Recent::push 3\ndetect;start;watch 1\nbus-writer;fsync 4\nwardroom;main 2\n";
        let shares = super::shares(folded).unwrap();
        assert_eq!((&shares["head"], &shares["append"], &shares["rest"]), (&0.3.into(), &0.4.into(), &0.2.into()));
    }
}
