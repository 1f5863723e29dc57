//! Starts programs in this process.

use std::collections::BTreeSet;
use std::io::{Read, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use wardroom_respond::ToolError;

use super::{ProgramCall, ProgramOutput, Programs};

/// Search path of programs that start others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Time between the request to end and the kill.
const GRACE: Duration = Duration::from_secs(10);
/// Interval between two looks whether a program has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Time to wait for the end of the output, which processes that a program leaves behind keep open.
const OUTPUT_END_TIMEOUT: Duration = Duration::from_secs(1);
/// Mode bits with which others could change a program.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Starts the programs of a list.
#[derive(Clone, Debug)]
pub struct LocalPrograms {
    allowed: BTreeSet<PathBuf>,
}

impl LocalPrograms {
    /// Creates a starter of these programs.
    pub fn new(allowed: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }
}

impl Programs for LocalPrograms {
    fn run(&self, call: &ProgramCall) -> Result<ProgramOutput, ToolError> {
        if !self.allowed.contains(&call.program) {
            return Err(ToolError::Invalid(format!("{} is not named in the executor's file", call.program.display())));
        }
        check_owner(&call.program)?;
        run(call)
    }
}

/// Checks that no other user can change a program.
fn check_owner(program: &Path) -> Result<(), ToolError> {
    let invalid = |reason: String| Err(ToolError::Invalid(format!("{}: {reason}", program.display())));
    match std::fs::metadata(program) {
        Ok(file) if !file.is_file() => invalid("it is not a file".to_owned()),
        Ok(file) if file.mode() & WRITABLE_BY_OTHERS != 0 => {
            invalid("group or others may change it; chmod go-w".to_owned())
        }
        Ok(file) if file.uid() != 0 && file.uid() != rustix::process::geteuid().as_raw() => {
            invalid("it belongs to another user than root and the one that runs the executor".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => invalid(error.to_string()),
    }
}

#[expect(clippy::disallowed_methods, reason = "the tool runner starts the programs of tools")]
fn run(call: &ProgramCall) -> Result<ProgramOutput, ToolError> {
    let mut command = Command::new(&call.program);
    command.args(&call.arguments).current_dir(&call.folder).process_group(0);
    command.env_clear().env("PATH", PATH).env("HOME", &call.folder).env("LANG", "C.UTF-8");
    command.envs(call.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = command.spawn();
    let mut child = started
        .map_err(|error| ToolError::Invalid(format!("{} cannot be started: {error}", call.program.display())))?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = call.input.clone().into_bytes();
        // A program that does not read its input fails, or not, by itself.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let stdout = child.stdout.take().map(|pipe| read_limited(pipe, call.output_bytes));
    let stderr = child.stderr.take().map(|pipe| read_limited(pipe, call.output_bytes));
    let timed_out = !wait(&mut child, call.timeout);
    if timed_out {
        signal(&child, Signal::SIGTERM);
        if !wait(&mut child, GRACE) {
            signal(&child, Signal::SIGKILL);
        }
    }
    let status = child.wait().map_err(|error| ToolError::Unavailable(format!("waiting failed: {error}")))?;
    let (mut output, mut truncated) = ([String::new(), String::new()], false);
    for (text, pipe) in output.iter_mut().zip([stdout, stderr]) {
        let Some(pipe) = pipe else { continue };
        match pipe.recv_timeout(OUTPUT_END_TIMEOUT) {
            Ok((bytes, cut)) => {
                *text = String::from_utf8_lossy(&bytes).into_owned();
                truncated |= cut;
            }
            // Something that the program started still has the pipe.
            Err(_) => truncated = true,
        }
    }
    let [stdout, stderr] = output;
    Ok(ProgramOutput { code: status.code(), stdout, stderr, truncated, timed_out })
}

/// Waits for the end; whether it came in time.
fn wait(child: &mut Child, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL_INTERVAL),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

/// Signals the program and what it started.
fn signal(child: &Child, signal: Signal) {
    if let Err(error) = killpg(Pid::from_raw(child.id() as i32), signal) {
        tracing::debug!(%error, "the program has already ended");
    }
}

/// Reads to the end and keeps a number of bytes; says whether there were more.
fn read_limited(mut pipe: impl Read + Send + 'static, limit: usize) -> Receiver<(Vec<u8>, bool)> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let (mut kept, mut cut, mut buffer) = (Vec::new(), false, [0; 8192]);
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let room = limit.saturating_sub(kept.len()).min(count);
            kept.extend(buffer.iter().take(room));
            cut |= room < count;
        }
        // The receiver is gone if it took too long.
        drop(sender.send((kept, cut)));
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(program: &str, arguments: &[&str]) -> ProgramCall {
        ProgramCall {
            program: program.into(),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            environment: vec![("NAME".into(), "value".into())],
            folder: "/".into(),
            input: "in".into(),
            timeout: Duration::from_secs(20),
            output_bytes: 1000,
        }
    }

    fn run(call: &ProgramCall) -> Result<ProgramOutput, ToolError> {
        LocalPrograms::new(["/bin/sh", "/bin/cat", "/bin/sleep", "/nonexistent"].map(PathBuf::from)).run(call)
    }

    #[test]
    fn a_program_gets_its_arguments_input_and_environment_and_no_other() {
        let output = run(&call("/bin/sh", &["-c", "env; cat; echo \"$1\" >&2; exit 3", "sh", "a b; $(id)"])).unwrap();
        assert_eq!(output.code, Some(3));
        assert_eq!(output.stderr, "a b; $(id)\n");
        let lines: BTreeSet<&str> = output.stdout.lines().filter(|line| !line.starts_with("PWD=")).collect();
        let path = format!("PATH={PATH}");
        let own = lines.into_iter().filter(|line| !line.starts_with("_=") && !line.starts_with("SHLVL"));
        assert_eq!(own.collect::<Vec<_>>(), ["HOME=/", "LANG=C.UTF-8", "NAME=value", path.as_str(), "in"]);
        assert_eq!(output.failure(), "exit code 3: a b; $(id)");
    }

    #[test]
    fn time_and_output_are_limited() {
        let slow = ProgramCall { timeout: Duration::from_millis(50), ..call("/bin/sleep", &["30"]) };
        let began = Instant::now();
        let output = run(&slow).unwrap();
        assert!(output.timed_out && output.code.is_none() && began.elapsed() < Duration::from_secs(5), "{output:?}");
        let large = ProgramCall { output_bytes: 10, ..call("/bin/sh", &["-c", "yes | head -c 1000000"]) };
        let output = run(&large).unwrap();
        assert!(output.truncated && output.stdout.len() == 10 && output.code == Some(0), "{output:?}");
    }

    #[test]
    fn other_programs_are_not_started() {
        let refused = |call: &ProgramCall, reason: &str| {
            let error = run(call).unwrap_err();
            assert!(matches!(&error, ToolError::Invalid(text) if text.contains(reason)), "{error}");
        };
        refused(&call("/bin/ls", &[]), "not named in the executor's file");
        refused(&call("/nonexistent", &[]), "No such file");
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&program, open).unwrap();
        let open = LocalPrograms::new([program.clone()]).run(&call(&program.display().to_string(), &[]));
        assert!(matches!(open, Err(ToolError::Invalid(text)) if text.contains("chmod go-w")));
    }
}
