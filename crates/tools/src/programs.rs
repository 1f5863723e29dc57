//! Programs that tools start.
//!
//! Problem: the executor may start no programs: a fault in it must not become a shell (ADR 012). Some tools are
//! programs all the same. Model: a process of its own, the tool runner, is started by the executor before it gives up
//! the right, and only if a target needs it. It starts the programs that the executor's file names, with the arguments
//! it is given, without a shell, and nothing else. Guarantee: a program has a time and an output limit, its own process
//! group, an environment of its own, and no standard input but the one of the call.

mod local;
mod runner;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wardroom_respond::ToolError;

use crate::redaction::redact;

pub use local::LocalPrograms;
pub use runner::{ToolRunner, serve};

/// A program with everything it is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramCall {
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments, one a word: there is no shell.
    pub arguments: Vec<String>,
    /// Environment besides `PATH`, `HOME` and `LANG`.
    pub environment: Vec<(String, String)>,
    /// Working folder.
    pub folder: PathBuf,
    /// Standard input.
    pub input: String,
    /// Time after which it is ended.
    pub timeout: Duration,
    /// Maximum size of standard output and of standard error, each, in bytes; the rest is read and dropped.
    pub output_bytes: usize,
}

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramOutput {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Whether output was dropped.
    pub truncated: bool,
    /// Whether its time was over.
    pub timed_out: bool,
}

impl ProgramOutput {
    /// Describes how the program failed: the last line that it printed. Redacted before it is cut out of its text: the
    /// line alone may not show that it belongs to a key.
    pub fn failure(&self) -> String {
        let last =
            |text: &str| text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
        let (stdout, stderr) = (redact(&self.stdout, &[]), redact(&self.stderr, &[]));
        let line = Some(last(&stderr)).filter(|line| !line.is_empty()).unwrap_or_else(|| last(&stdout));
        match (self.timed_out, self.code) {
            (true, _) => format!("it was ended after its time: {line}"),
            (false, Some(code)) => format!("exit code {code}: {line}"),
            (false, None) => format!("ended by a signal: {line}"),
        }
    }
}

/// Starts programs.
pub trait Programs: std::fmt::Debug + Send + Sync {
    /// Runs a program to its end.
    ///
    /// # Errors
    /// Returns [`ToolError::Invalid`] if it may not or cannot be started, and [`ToolError::Unavailable`] if it is
    /// unknown how it ended.
    fn run(&self, call: &ProgramCall) -> Result<ProgramOutput, ToolError>;
}

/// Starts nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoPrograms;

impl Programs for NoPrograms {
    fn run(&self, _call: &ProgramCall) -> Result<ProgramOutput, ToolError> {
        let detail =
            "the executor runs without a tool runner: none of its targets needed one when it was started; restart it";
        Err(ToolError::Unavailable(detail.to_owned()))
    }
}

/// Checks a program of the configuration.
///
/// # Errors
/// Returns the reason and the remedy.
pub fn check_program(path: &Path) -> Result<(), String> {
    let is_plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if path.is_absolute() && is_plain { Ok(()) } else { Err("it must be an absolute path without `..`".to_owned()) }
}
